from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness.errors import DataError, SpecError
from harness.spec.names import PROTOCOLS
from harness.tasks.checking import Checker
from harness.tasks.protocols import Protocol, Verdict, load_protocol, r1v_counting, r1v_geoqa


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Checker(timeout_s=0.5) as one:
        yield one


@pytest.mark.parametrize("name", PROTOCOLS)
def test_registry_and_name_agree(name: str) -> None:
    assert load_protocol(name).name == name


def test_token_limits_are_r1vs() -> None:
    assert (r1v_counting.max_new_tokens, r1v_geoqa.max_new_tokens) == (256, 1024)


def test_unknown_protocol_names_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'r1v_counting'"):
        load_protocol("r1v_count")


@pytest.mark.parametrize(
    ("completion", "solution", "verdict"),
    [
        ("<think>a</think>\n<answer>\n4\n</answer>", "4", Verdict(True, "4")),
        ("<answer> 4 </answer>", "<answer> 4 </answer>", Verdict(True, "4")),
        ("<answer>004</answer>", "4", Verdict(True, "004")),
        ("<answer>4</answer><answer>5</answer>", "5", Verdict(False, "4")),
        ("<answer>four</answer><answer>5</answer>", "5", Verdict(True, "5")),
        ("<answer>4.0</answer>", "4", Verdict(False, None)),
        ("<answer>-4</answer>", "-4", Verdict(False, None)),
        ("the answer is 4", "4", Verdict(False, None)),
        ("", "4", Verdict(False, None)),
    ],
)
def test_counting(completion: str, solution: str, verdict: Verdict) -> None:
    assert r1v_counting.verdicts([completion], [solution]) == [verdict]


def test_counting_survives_more_digits_than_python_reads() -> None:
    digits = "9" * 100_000
    assert r1v_counting.verdicts([f"<answer>{digits}</answer>"], ["4"]) == [Verdict(False, digits)]
    zeros = "0" * 100_000 + "4"
    assert r1v_counting.verdicts([f"<answer>{zeros}</answer>"], ["4"]) == [Verdict(True, zeros)]


@pytest.mark.parametrize("solution", ["four", "4.5", "<answer> left </answer>", "", "9" * 5000])
def test_counting_refuses_a_solution_that_is_no_count(solution: str) -> None:
    with pytest.raises(DataError):
        r1v_counting.verdicts(["4"], [solution])


@pytest.mark.parametrize(
    ("completion", "solution", "correct"),
    [
        ("so the angle is 140°", "140°", True),
        ("<think>140°</think><answer>100</answer>", "140°", False),
        (r"<answer> 65\pi </answer>", "65π", True),
        ("<answer> 5.0 </answer>", "<answer> 5 </answer>", True),
        ("nothing", "5", False),
    ],
)
def test_geoqa(checker: Checker, completion: str, solution: str, correct: bool) -> None:
    assert [verdict.correct for verdict in r1v_geoqa.verdicts([completion], [solution], checker)] == [correct]


def test_geoqa_gives_up_a_hostile_completion_only(checker: Checker) -> None:
    verdicts = r1v_geoqa.verdicts([r"\boxed{9^{99999999}}", "5"], ["5", "5"], checker)
    assert verdicts == [Verdict(False, None), Verdict(True, "5")]


def test_geoqa_refuses_an_empty_solution(checker: Checker) -> None:
    with pytest.raises(DataError, match="empty"):
        r1v_geoqa.verdicts(["5"], ["<answer> </answer>"], checker)


@pytest.mark.parametrize("protocol", [r1v_counting, r1v_geoqa], ids=lambda protocol: protocol.name)
def test_lengths_must_agree(protocol: Protocol) -> None:
    with pytest.raises(ValueError, match="shorter"):
        protocol.verdicts(["5", "5"], ["5"])
