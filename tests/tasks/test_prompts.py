from __future__ import annotations

import pytest

from harness.errors import SpecError
from harness.spec.names import PROTOCOLS
from harness.tasks.prompts import evaluation_prompt, training_prompt

QUESTION = "How many items are there in the image?"


def test_training_prompt_is_r1v_word_for_word() -> None:
    assert training_prompt(QUESTION) == (
        "How many items are there in the image?  Output the thinking process in <think> </think> "
        "and final answer (number) in <answer> </answer> tags."
    )


def test_geoqa_prompt_has_one_space() -> None:
    assert evaluation_prompt(QUESTION, "r1v_geoqa") == (
        "How many items are there in the image? Output the thinking process in <think> </think> "
        "and final answer (number) in <answer> </answer> tags."
    )


def test_counting_prompt_says_first() -> None:
    assert evaluation_prompt(QUESTION, "r1v_counting") == (
        "How many items are there in the image? First output the thinking process in <think> </think> "
        "and final answer (number) in <answer> </answer> tags."
    )


def test_a_question_is_text_and_no_template() -> None:
    assert training_prompt("{0} {Question} %s").startswith("{0} {Question} %s  Output")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_has_a_prompt(protocol: str) -> None:
    assert evaluation_prompt(QUESTION, protocol).startswith(QUESTION + " ")


def test_misspelt_protocol_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="unknown protocol 'r1v_geoqua': did you mean 'r1v_geoqa'"):
        evaluation_prompt(QUESTION, "r1v_geoqua")
