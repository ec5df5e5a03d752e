from __future__ import annotations

import os

import pytest
from run_files import put_state

from harness.record import RunState, is_complete, mark_failed, read_state, read_summary, write_json
from harness.record.files import Files
from harness.spec.methods import Evaluation


def _age(file, by):
    """Puts a file's time back, since two writes in a test can share a clock tick."""
    then = file.stat().st_mtime_ns - by
    os.utime(file, ns=(then, then))


def test_no_state_is_pending(folder):
    assert read_state(folder) == RunState(status="pending")


def test_a_state_is_read_as_it_was_written(folder):
    state = RunState(status="failed", phase="train", step=3, num_steps=9, error="no", attempts=2)
    put_state(folder, state)
    assert read_state(folder) == state


def test_completed_needs_a_summary(folder):
    put_state(folder, RunState(status="completed", step=9))
    assert read_state(folder) == RunState(status="pending", step=9)
    write_json(folder.summary, {})
    assert read_state(folder) == RunState(status="completed", step=9)
    folder.state_json.unlink()
    assert read_state(folder).status == "completed"


def test_a_run_killed_between_summary_and_state_is_completed(folder):
    put_state(folder, RunState(status="running"))
    write_json(folder.summary, {})
    assert read_state(folder).status == "completed"


def test_a_completed_run_that_is_evaluated_again_is_running(folder):
    write_json(folder.summary, {})
    _age(folder.summary, by=1_000_000_000)
    put_state(folder, RunState(status="running"))
    assert read_state(folder).status == "running"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        '{"status": "running", "ste',
        "[1, 2]",
        "3",
        "null",
        '{"status": "lost"}',
        '{"status": ["running"]}',
        '{"status": "running", "step": "3"}',
        '{"status": "running", "heartbeat": "now"}',
        "\0\0\0\0",
    ],
)
def test_a_state_that_cannot_be_trusted_is_none(folder, content):
    folder.path.mkdir(parents=True)
    folder.state_json.write_text(content)
    assert read_state(folder) == RunState(status="pending")
    write_json(folder.summary, {})
    assert read_state(folder) == RunState(status="completed")


def test_fields_of_other_versions_are_passed_over(folder):
    write_json(folder.state_json, {"status": "failed", "step": 3, "boot_id": "x"})
    assert read_state(folder) == RunState(status="failed", step=3)


def test_complete_means_every_target_with_enough_examples(folder):
    assert not is_complete(folder, [], Evaluation(num_examples=1))
    assert read_summary(folder) is None
    write_json(folder.summary, {"evaluations": {"counting": {"num_examples": 200}, "geometry": {"num_examples": 100}}})
    assert is_complete(folder, ["counting"], Evaluation(num_examples=200))
    assert not is_complete(folder, ["counting"], Evaluation(num_examples=200, max_new_tokens=32))
    assert is_complete(folder, ["counting", "geometry"], Evaluation(num_examples=100))
    assert not is_complete(folder, ["counting", "geometry"], Evaluation(num_examples=200))
    assert not is_complete(folder, ["counting", "relations"], Evaluation(num_examples=1))


def test_all_examples_of_a_small_split_are_enough(folder):
    write_json(folder.summary, {"evaluations": {"clevr": {"num_examples": 200, "split_size": 200}}})
    assert is_complete(folder, ["clevr"], Evaluation(num_examples=754))
    write_json(folder.summary, {"evaluations": {"clevr": {"num_examples": 100, "split_size": 200}}})
    assert is_complete(folder, ["clevr"], Evaluation(num_examples=100))
    assert not is_complete(folder, ["clevr"], Evaluation(num_examples=754))


def test_an_evaluation_that_lost_its_file_or_its_length_is_to_be_made_again(folder):
    path = folder.evaluation("counting")
    path.parent.mkdir(parents=True)
    path.write_text("0123456789")
    made = {"evaluations": {"counting": {"num_examples": 4}}}
    asked = Evaluation(num_examples=4)
    write_json(folder.summary, made | {"files": {"eval/counting.jsonl": {"bytes": 10, "sha256": "x"}}})
    assert is_complete(folder, ["counting"], asked)
    path.write_text("012345678")
    assert not is_complete(folder, ["counting"], asked)
    path.unlink()
    assert not is_complete(folder, ["counting"], asked)
    # The first summaries on record did not note their files.
    write_json(folder.summary, made)
    assert is_complete(folder, ["counting"], asked)


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"evaluations": {"counting": {"num_exam',
        "[]",
        "{}",
        '{"evaluations": 3}',
        '{"evaluations": {"counting": 3}}',
        '{"evaluations": {"counting": {"num_exbmples": 4}}}',
        '{"evaluations": {"counting": {"num_examples": "4"}}}',
        '{"evaluations": {}, "validations": [1]}',
        '{"evaluations": {}, "validations": {"counting": null}}',
        '{"evaluations": {"counting": {"num_examples": 4}}, "files": ["eval/counting.jsonl"]}',
        '{"evaluations": {"counting": {"num_examples": 4}}, "files": {"eval/counting.jsonl": 3}}',
        '{"evaluations": {"counting": {"num_examples": 4}}, "files": {"eval/counting.jsonl": {"cytes": 3}}}',
    ],
)
def test_a_summary_that_cannot_be_trusted_completes_nothing(folder, content):
    folder.path.mkdir(parents=True)
    folder.summary.write_text(content)
    assert read_summary(folder) is None
    assert not is_complete(folder, ["counting"], Evaluation(num_examples=1))
    assert not is_complete(folder, [], Evaluation(num_examples=1))


def test_a_lost_worker_is_marked_failed_where_it_was(folder):
    put_state(folder, RunState(status="running", phase="train", step=4, attempts=1))
    mark_failed(folder, Files(folder.path), "killed by signal 9", failure="worker_lost", detail="last line")
    state = read_state(folder)
    assert (state.status, state.step, state.error, state.traceback) == ("failed", 4, "killed by signal 9", "last line")
    assert (state.error_type, state.failure, state.attempts) == ("WorkerLost", "worker_lost", 1)
