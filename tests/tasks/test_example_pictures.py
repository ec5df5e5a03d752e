"""Pictures by the ids that rows on record name."""

from __future__ import annotations

import numpy as np
import pytest

from harness.tasks.base import load_task
from harness.tasks.example_pictures import ExamplePictures


def test_an_id_and_its_question_give_the_picture() -> None:
    example = load_task("geometry").example("validation", 5)
    pictures = ExamplePictures({})
    found = pictures(example.id, example.question)
    assert found is not None and np.array_equal(np.asarray(found), np.asarray(example.image))
    assert pictures.reason is None


@pytest.mark.parametrize(
    ("example_id", "question", "reason"),
    [
        ("counting/test/0", "What else?", "counting/test/0 has changed since it was answered"),
        ("counting/5", None, "'counting/5' names no example"),
        ("counting/test/2000", None, "counting has 2000 test examples; there is no number 2000"),
    ],
)
def test_what_cannot_be_shown_is_none_and_says_why(example_id: str, question: str | None, reason: str) -> None:
    pictures = ExamplePictures({})
    assert pictures(example_id, question) is None
    assert pictures("counting/test/0", None) is not None
    assert pictures.reason == reason
