from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import harness.evaluate as evaluate_module
from harness.errors import SpecError
from harness.evaluate import evaluate, num_asked, summarise
from harness.policy import Policy, sample
from harness.tasks.base import load_task
from harness.tasks.prompts import evaluation_prompt
from harness.tasks.protocols import load_protocol
from harness.train.processes import Processes

TASK = load_task("counting")
NUM = 7


@pytest.fixture(scope="module")
def rows(policy: Policy) -> list[dict[str, Any]]:
    return evaluate(policy, TASK, "test", NUM, Processes("cpu"), max_new_tokens=20)


def test_rows_are_the_first_examples_in_order_with_their_verdicts(rows: list[dict[str, Any]]) -> None:
    protocol = load_protocol(TASK.protocol)
    assert [row["index"] for row in rows] == list(range(NUM))
    for row in rows:
        example = TASK.example("test", row["index"])
        assert (row["id"], row["question"], row["solution"]) == (example.id, example.question, example.answer)
        (verdict,) = protocol.verdicts([row["completion"]], [example.solution])
        assert (row["correct"], row["extracted"]) == (verdict.correct, verdict.extracted)
        assert 1 <= row["num_tokens"] <= 20


def test_a_completion_is_the_greedy_answer_to_the_protocols_prompt(policy: Policy, rows: list[dict[str, Any]]) -> None:
    for row in rows[:2]:
        example = TASK.example("test", row["index"])
        batch = policy.batch([policy.prompt(example.image, evaluation_prompt(example.question, TASK.protocol))])
        answer = sample(policy, batch, policy.encode_images(batch), max_new_tokens=20)
        ids = answer.ids[0, 0, : answer.lengths[0, 0]].tolist()
        assert (row["completion"], row["num_tokens"]) == (policy.completion_text(ids), len(ids))


def test_an_evaluation_is_repeatable(policy: Policy, rows: list[dict[str, Any]]) -> None:
    assert evaluate(policy, TASK, "test", NUM, Processes("cpu"), max_new_tokens=20) == rows


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_size_changes_nothing(
    policy: Policy, rows: list[dict[str, Any]], batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "BATCH_SIZE", batch_size)
    seen: list[int] = []
    again = evaluate(policy, TASK, "test", NUM, Processes("cpu"), max_new_tokens=20, progress=seen.append)
    assert again == rows
    assert seen == [*range(batch_size, NUM, batch_size), NUM]


def test_fewer_examples_are_the_first_of_more(policy: Policy, rows: list[dict[str, Any]]) -> None:
    assert evaluate(policy, TASK, "test", 3, Processes("cpu"), max_new_tokens=20) == rows[:3]


def test_a_summary_counts_by_hand() -> None:
    rows = [
        {"correct": True, "format": 1.0, "num_tokens": 4},
        {"correct": False, "format": 1.0, "num_tokens": 6},
        {"correct": False, "format": 0.0, "num_tokens": 5},
        {"correct": True, "format": 0.0, "num_tokens": 9},
    ]
    assert summarise(rows, TASK.protocol) == {
        "protocol": "r1v_counting",
        "num_examples": 4,
        "num_correct": 2,
        "accuracy": 0.5,
        "format": 0.5,
        "mean_length": 6.0,
        "max_new_tokens": None,
    }


def test_stored_rows_are_answered_as_far_as_they_go(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    row = {"image": "one.png", "problem": "How many?", "solution": "<answer> 3 </answer>"}
    for name, count in (("train", 4), ("test", 3)):
        (tmp_path / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * count)
    stored = load_task(str(tmp_path))
    assert [num_asked(asked, stored, "test") for asked in (2, 3, 200)] == [2, 3, 3]
    assert num_asked(2001, TASK, "test") == 2001


def test_more_examples_than_there_are_is_the_users_mistake(policy: Policy) -> None:
    with pytest.raises(SpecError, match="counting has 2000 test examples, not 2001"):
        evaluate(policy, TASK, "test", 2001, Processes("cpu"))
