from __future__ import annotations

import errno
import hashlib
import math
import os

import pytest

from harness.errors import FencedError
from harness.record import Recorder, is_complete, read_json, read_jsonl, read_state
from harness.record import recorder as module
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.spec.methods import Evaluation


def _train(recorder, steps):
    for step in steps:
        recorder.metrics(step, {"train/loss": 1 / (step + 1), "rollout/length": 12})
        recorder.completions(step, [{"id": f"counting/train/{step}", "completion": "a"}] * 2)
        if step % 2:
            answer = {"id": "counting/validation/0", "completion": "a"}
            recorder.validation(step, "counting", {"accuracy": 0.5, "format": 1.0}, [answer])


def test_start_writes_run_and_state(recorder, folder, job):
    record = read_json(folder.run_json)
    assert record["run_id"] == folder.run_id == job.spec.run_id
    assert record["spec"] == job.spec.model_dump(mode="json")
    assert record["job"]["targets"] == ["counting"]
    assert record["resolved"] == {"device": "cpu", "num_threads": 1}
    assert record["provenance"]["versions"]["python"]
    attempt = record["attempts"][0]
    assert (attempt["number"], attempt["generation"], attempt["start_step"]) == (1, 1, 0)
    state = read_state(folder)
    assert (state.status, state.phase, state.pid, state.attempts) == ("running", "load", os.getpid(), 1)


def test_start_removes_what_a_killed_writer_left(folder, job):
    left = folder.path / "eval" / ".counting.jsonl.1-1.tmp"
    left.parent.mkdir(parents=True)
    left.touch()
    Recorder(folder, job).start("cpu")
    assert not left.exists()


def test_rows_carry_their_step(recorder, folder):
    _train(recorder, range(2))
    assert read_jsonl(folder.metrics) == [
        {"step": 0, "train/loss": 1.0, "rollout/length": 12},
        {"step": 1, "train/loss": 0.5, "rollout/length": 12},
        {"step": 1, "eval/counting/accuracy": 0.5, "eval/counting/format": 1.0},
    ]
    assert [row["step"] for row in read_jsonl(folder.completions)] == [0, 0, 1, 1]
    assert read_jsonl(folder.completions)[0] == {"step": 0, "id": "counting/train/0", "completion": "a"}
    answer = {"step": 1, "target": "counting", "id": "counting/validation/0", "completion": "a"}
    assert read_jsonl(folder.validations) == [answer]


def test_a_number_that_is_none_is_kept_as_null(recorder, folder):
    recorder.metrics(0, {"train/loss": math.nan, "train/kl": math.inf, "train/beta": 0.0})
    assert read_jsonl(folder.metrics) == [{"step": 0, "train/loss": None, "train/kl": None, "train/beta": 0.0}]


def test_resumed_files_equal_those_of_a_run_left_alone(recorder, folder, files, job, tmp_path):
    whole = RunFolder(tmp_path / "whole", job.spec.run_id)
    whole.path.mkdir(parents=True)
    own = Files(whole.path)
    alone = Recorder(whole, job, files=own)
    alone.start("cpu")
    _train(alone, range(10))
    own.close()

    _train(recorder, range(7))
    with folder.metrics.open("a") as stream:
        stream.write('{"step": 7, "train/lo')
    second = Recorder(folder, job, files=files)
    second.start("cpu")
    second.resume_from(5)
    _train(second, range(5, 10))

    assert folder.metrics.read_bytes() == whole.metrics.read_bytes()
    assert folder.completions.read_bytes() == whole.completions.read_bytes()
    assert folder.validations.read_bytes() == whole.validations.read_bytes()


def test_a_generation_lasts_as_long_as_attempts_go_on_from_checkpoints(recorder, folder, job):
    recorder.fail(RuntimeError("one"))
    for step in (0, 4, 6, 0):
        recorder = Recorder(folder, job)
        recorder.start("cpu")
        recorder.resume_from(step)
        recorder.interrupt(step + 1)
    attempts = read_json(folder.run_json)["attempts"]
    assert [attempt["number"] for attempt in attempts] == [1, 2, 3, 4, 5]
    assert [attempt["generation"] for attempt in attempts] == [1, 2, 2, 2, 5]
    assert [attempt["start_step"] for attempt in attempts] == [0, 0, 4, 6, 0]
    assert [attempt["outcome"] for attempt in attempts] == ["failed"] + ["interrupted"] * 4
    assert read_state(folder).attempts == 5


def test_progress_is_written_about_once_a_second_but_always_on_a_turn(recorder, folder, monkeypatch):
    monkeypatch.setattr(module, "STATE_INTERVAL_S", 1000.0)
    recorder.progress("train", 0, 10)
    recorder.progress("train", 5, 10)
    assert read_state(folder).step == 0
    recorder.progress("evaluate", 3, 200, "counting")
    assert (read_state(folder).phase, read_state(folder).step, read_state(folder).target) == ("evaluate", 3, "counting")
    recorder.progress("evaluate", 0, 200, "geometry")
    assert read_state(folder).target == "geometry"
    monkeypatch.setattr(module, "STATE_INTERVAL_S", 0.0)
    before = read_state(folder).heartbeat
    recorder.progress("evaluate", 9, 200, "geometry")
    assert read_state(folder).step == 9
    assert read_state(folder).heartbeat >= before


def test_complete_writes_the_summary(recorder, folder, capsys):
    rows = [{"index": 0, "correct": True, "format": True}]
    recorder.evaluation("counting", rows)
    assert read_jsonl(folder.evaluation("counting")) == rows
    assert read_state(folder).status == "running"
    recorder.complete({"evaluations": {"counting": {"num_examples": 1}}})
    line = b'{"index": 0, "correct": true, "format": true}\n'
    assert folder.evaluation("counting").read_bytes() == line
    assert read_json(folder.summary) == {
        "run_id": folder.run_id,
        "evaluations": {"counting": {"num_examples": 1}},
        "files": {"eval/counting.jsonl": {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}},
    }
    assert read_state(folder).status == "completed"
    assert read_json(folder.run_json)["attempts"][0]["outcome"] == "completed"
    assert is_complete(folder, ["counting"], Evaluation(num_examples=1))
    assert capsys.readouterr().out == f"completed: {folder.path}\n"


def test_a_summary_without_its_evaluations_is_refused(recorder, folder):
    with pytest.raises(ValueError, match="needs its evaluations"):
        recorder.complete({})
    with pytest.raises(ValueError, match="no evaluation on record for counting"):
        recorder.complete({"evaluations": {"counting": {"num_examples": 1}}})
    assert not folder.summary.exists()


def test_fail_keeps_sentence_type_and_traceback(recorder, folder):
    recorder.progress("train", 0, 10)
    recorder.progress("train", 4, 10)
    try:
        raise RuntimeError("the device\n  is gone")
    except RuntimeError as error:
        recorder.fail(error)
    state = read_state(folder)
    assert (state.status, state.step) == ("failed", 4)
    assert (state.error, state.error_type, state.failure) == ("the device is gone", "RuntimeError", "bug")
    assert "test_fail_keeps" in state.traceback


def test_a_run_can_fail_before_it_started(folder, files, job):
    Recorder(folder, job).fail(KeyError())
    assert (read_state(folder).status, read_state(folder).error) == ("failed", "KeyError")
    assert not folder.run_json.exists()


def test_an_interrupted_run_is_pending(recorder, folder):
    recorder.interrupt(6)
    assert (read_state(folder).status, read_state(folder).step) == ("pending", 6)


def test_a_failure_is_told_with_its_class_and_how_much_memory_it_took(recorder, folder):
    recorder.measured |= {"peak_host_gib": 1.5, "peak_device_gib": None}
    recorder.progress("train", 1, 10)
    assert (read_state(folder).peak_host_gib, read_state(folder).peak_device_gib) == (1.5, None)
    recorder.fail(OSError(errno.ENOSPC, "No space left on device"))
    assert (read_state(folder).status, read_state(folder).failure) == ("failed", "disk_full")
    assert read_json(folder.run_json)["attempts"][0]["measured"]["peak_host_gib"] == 1.5


def test_a_class_that_another_process_knows_better_is_kept(recorder, folder):
    recorder.fail(RuntimeError("Connection closed by peer"), "out_of_memory")
    assert (read_state(folder).failure, read_state(folder).error_type) == ("out_of_memory", "RuntimeError")


def test_a_mark_holds_what_the_rows_are(recorder, folder):
    recorder.metrics(0, {"train/loss": 1.0})
    recorder.mark(1)
    line = b'{"step": 0, "train/loss": 1.0}\n'
    assert read_json(folder.marks) == {
        "marks": [
            {"step": 1, "files": {"metrics.jsonl": {"bytes": len(line), "sha256": hashlib.sha256(line).hexdigest()}}}
        ]
    }


def test_a_recorder_that_was_fenced_off_writes_nothing(folder, job):
    stage = folder.path / "lease" / "1" / "stage"
    stage.mkdir(parents=True)
    files = Files(stage)
    late = Recorder(folder, job, files=files)
    late.start("cpu")
    late.metrics(0, {"train/loss": 1.0})
    stage.rmdir()
    before = {path: path.read_bytes() for path in folder.path.glob("*.json*")}
    calls = (
        lambda: late.metrics(1, {"train/loss": 0.5}),
        lambda: late.completions(1, [{"id": "a"}]),
        lambda: late.evaluation("counting", [{"correct": True}]),
        lambda: late.mark(2),
        lambda: late.progress("evaluate", 0, 1, "counting"),
        lambda: late.interrupt(1),
        lambda: late.fail(RuntimeError("late")),
    )
    for call in calls:
        with pytest.raises(FencedError):
            call()
    assert {path: path.read_bytes() for path in folder.path.glob("*.json*")} == before
    assert not folder.evaluation("counting").exists()
    files.close()
