from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from harness.errors import DataError
from harness.record import (
    RunState,
    is_alive,
    is_complete,
    mark_failed,
    read_state,
    read_summary,
    write_json,
    write_state,
)
from harness.record.state import boot_id
from harness.spec.methods import Evaluation


def _age(file, by):
    """Puts a file's time back, since two writes in a test can share a clock tick."""
    then = file.stat().st_mtime_ns - by
    os.utime(file, ns=(then, then))


def test_no_state_is_pending(folder):
    assert read_state(folder) == RunState(status="pending")


def test_a_state_is_read_as_it_was_written(folder):
    state = RunState(status="failed", phase="train", step=3, num_steps=9, error="no", attempts=2)
    write_state(folder, state)
    assert read_state(folder) == state


def test_completed_needs_a_summary(folder):
    write_state(folder, RunState(status="completed", step=9))
    assert read_state(folder) == RunState(status="pending", step=9)
    write_json(folder.summary, {})
    assert read_state(folder) == RunState(status="completed", step=9)
    folder.state_json.unlink()
    assert read_state(folder).status == "completed"


def test_a_run_killed_between_summary_and_state_is_completed(folder):
    write_state(folder, RunState(status="running"))
    write_json(folder.summary, {})
    assert read_state(folder).status == "completed"


def test_a_completed_run_that_is_evaluated_again_is_running(folder):
    write_json(folder.summary, {})
    _age(folder.summary, by=1_000_000_000)
    write_state(folder, RunState(status="running"))
    assert read_state(folder).status == "running"


def test_a_foreign_state_is_an_error(folder):
    write_json(folder.state_json, {"status": "pending", "colour": "red"})
    with pytest.raises(DataError, match=r"state\.json does not hold the state of a run"):
        read_state(folder)


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


def test_a_lost_worker_is_marked_failed_where_it_was(folder):
    write_state(folder, RunState(status="running", phase="train", step=4, attempts=1))
    mark_failed(folder, "killed by signal 9", detail="last line")
    state = read_state(folder)
    assert (state.status, state.step, state.error, state.traceback) == ("failed", 4, "killed by signal 9", "last line")
    assert (state.error_type, state.attempts) == ("WorkerLost", 1)


def test_alive_is_known_for_processes_of_this_boot_only():
    here = {"host": socket.gethostname(), "boot_id": boot_id()}
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    assert is_alive(RunState(pid=os.getpid(), **here)) is True
    assert is_alive(RunState(pid=done.pid, **here)) is False
    assert is_alive(RunState(pid=os.getpid(), **(here | {"boot_id": "earlier"}))) is False
    assert is_alive(RunState(pid=os.getpid(), **(here | {"host": "elsewhere"}))) is None
    assert is_alive(RunState()) is False
