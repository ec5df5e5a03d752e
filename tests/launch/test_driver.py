"""The driver with real worker processes and real signals."""

from __future__ import annotations

import io
import json
import signal
import time
from itertools import pairwise

import pytest
from rich.console import Console

from harness.launch.driver import SweepOutcome
from harness.launch.plan import make_plan
from harness.launch.status.status import sweep_status
from harness.record.atomic import read_json, write_json
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.record.lease import reserve
from harness.record.state import RunState, read_state, write_state
from harness.spec.sweep import load_sweep


def console():
    return Console(file=io.StringIO(), width=60)


def test_completes_every_run_within_its_slots_and_then_has_nothing_to_do(sweep, results, run_ids, order, drive):
    order(dict.fromkeys(run_ids, "meet"))
    out = console()
    assert drive(sweep, slots=2, console=out) == SweepOutcome(3, 0, 0, False)
    text = out.file.getvalue()
    for run_id in run_ids:
        assert f"started    {run_id}\n" in text
        assert f"completed  {run_id}  in " in text
    assert text.endswith("small: 3 completed, 0 failed, 0 pending\n")

    # "meet" lets nobody end before two are there, so two slots were used; three spans never overlap.
    spans = [read_json(RunFolder(results, run_id).path / "span.json") for run_id in run_ids]
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    at_once = [sum(change for _, change in edges[: upto + 1]) for upto in range(len(edges))]
    assert max(at_once) == 2

    handler = signal.getsignal(signal.SIGINT)
    start = time.monotonic()
    assert drive(sweep) == SweepOutcome(3, 0, 0, False)
    assert time.monotonic() - start < 1.0
    assert signal.getsignal(signal.SIGINT) is handler is not None
    assert [read_state(RunFolder(results, run_id)).attempts for run_id in run_ids] == [1, 1, 1]


def test_failures_have_a_reason_and_do_not_stop_the_others(sweep, results, run_ids, order, drive):
    failing, killed, fine = run_ids
    order({failing: "fail", killed: "kill"})
    out = console()
    assert drive(sweep, console=out) == SweepOutcome(1, 2, 0, False)
    state = read_state(RunFolder(results, failing))
    assert (state.status, state.error) == ("failed", "no reward for example counting/train/7")
    assert "RuntimeError" in state.traceback and state.failure == "bug"
    # Lost twice without getting further, and since nobody said why, once more with smaller passes.
    state = read_state(RunFolder(results, killed))
    assert (state.status, state.failure, state.error_type) == ("failed", "out_of_memory", "WorkerLost")
    assert state.error == "the worker was ended by SIGKILL (killed by hand or for memory)"
    assert state.traceback == "about to die"
    launches = read_launches(RunFolder(results, killed))
    assert [(launch.failure, launch.halvings, launch.code) for launch in launches] == [
        ("worker_lost", 0, -9),
        ("out_of_memory", 0, -9),
        ("out_of_memory", 1, -9),
    ]
    assert read_state(RunFolder(results, fine)).status == "completed"
    # One line each, whatever the width.
    assert f"failed     {failing}: no reward for example counting/train/7\n" in out.file.getvalue()

    # A later invocation leaves them, or tries them once more.
    assert drive(sweep, retry_failed=False) == SweepOutcome(1, 2, 0, False)
    assert read_state(RunFolder(results, failing)).attempts == 1
    order({})
    assert drive(sweep) == SweepOutcome(3, 0, 0, False)
    assert read_state(RunFolder(results, failing)).attempts == 2


def test_a_worker_that_dies_at_once_is_not_taken_for_its_predecessor(sweep, results, run_ids, order, drive):
    order({run_ids[0]: "fail", run_ids[1]: "silent"})
    assert drive(sweep).num_failed == 2
    assert read_state(RunFolder(results, run_ids[1])).error == (
        "the worker ended with exit code 7 and left no complete summary; its last words: thread panicked"
    )
    order({run_ids[0]: "early", run_ids[1]: "early"})
    assert drive(sweep).num_failed == 2
    for run_id in run_ids[:2]:
        state = read_state(RunFolder(results, run_id))
        assert state.error == "the worker was ended by SIGKILL (killed by hand or for memory)"
        assert state.traceback is None  # the log's lines are the earlier attempt's


def test_a_signal_stops_the_workers_and_a_second_invocation_finishes(
    sweep, results, run_ids, start_driver, order, drive, wait_until
):
    order({run_ids[0]: "wait"})
    driver = start_driver(1)
    wait_until((RunFolder(results, run_ids[0]).path / "here").exists)
    assert [row.status for row in sweep_status(sweep, results)] == ["running", "pending", "pending"]
    driver.send_signal(signal.SIGINT)
    out, _ = driver.communicate(timeout=20)
    assert json.loads(out) == {
        "num_completed": 0,
        "num_failed": 0,
        "num_pending": 3,
        "interrupted": True,
        "num_pruned": 0,
    }
    assert read_state(RunFolder(results, run_ids[0])).status == "pending"
    rows = sweep_status(sweep, results)
    assert [(row.status, row.note) for row in rows] == [
        ("pending", "interrupted"),
        ("pending", None),
        ("pending", None),
    ]
    assert not RunFolder(results, run_ids[1]).path.exists()

    order({})
    assert drive(sweep) == SweepOutcome(3, 0, 0, False)


def test_a_second_signal_ends_a_worker_at_once(sweep, results, run_ids, start_driver, order, wait_until):
    order({run_ids[0]: "gate"})  # deaf to SIGTERM
    driver = start_driver(1)
    wait_until((RunFolder(results, run_ids[0]).path / "here").exists)
    driver.send_signal(signal.SIGTERM)
    wait_until(lambda: "stopping: 1 workers are saving" in (results / "driver0.txt").read_text())
    start = time.monotonic()
    while driver.poll() is None and time.monotonic() < start + 20:
        driver.send_signal(signal.SIGINT)
        time.sleep(1.2)  # faster repeats are one wish
    assert json.loads(driver.communicate()[0])["num_pending"] == 3
    assert read_state(RunFolder(results, run_ids[0])).status == "pending"


@pytest.mark.parametrize("first_is_killed", [False, True])
def test_two_drivers_train_a_run_once(first_is_killed, sweep, results, run_ids, start_driver, order, wait_until):
    order({run_ids[0]: "gate"})
    first = start_driver(1)
    wait_until((RunFolder(results, run_ids[0]).path / "here").exists)
    if first_is_killed:
        first.kill()
        first.wait()
    assert make_plan(sweep, results).runs[0].status == "running"
    second = start_driver(1)
    if first_is_killed:  # its worker takes the only slot of the driver that adopts it
        wait_until(lambda: f"adopted    {run_ids[0]}" in (results / "driver1.txt").read_text())
    else:
        wait_until(lambda: f"elsewhere  {run_ids[0]}" in (results / "driver1.txt").read_text())
        wait_until(lambda: f"completed  {run_ids[2]}" in (results / "driver1.txt").read_text())
    assert second.poll() is None
    (results / "go").touch()
    outcome = {"num_completed": 3, "num_failed": 0, "num_pending": 0, "interrupted": False, "num_pruned": 0}
    assert json.loads(second.communicate(timeout=20)[0]) == outcome
    if not first_is_killed:
        assert json.loads(first.communicate(timeout=20)[0]) == outcome
    assert [read_state(RunFolder(results, run_id)).attempts for run_id in run_ids] == [1, 1, 1]


def test_a_run_that_another_driver_saw_fail_is_not_tried_again_here(sweep, results, run_ids, start_driver, wait_until):
    folder = RunFolder(results, run_ids[0])
    pulse = results / "drivers" / "other.json"
    write_json(pulse, {})
    lease = reserve(folder.path, None, pulse=pulse)
    driver = start_driver(1)
    wait_until(lambda: f"elsewhere  {run_ids[0]}" in (results / "driver0.txt").read_text())
    write_state(folder, RunState(status="failed", error="broken"), lease.files)
    lease.release()
    assert json.loads(driver.communicate(timeout=20)[0])["num_failed"] == 1
    assert f"failed     {run_ids[0]}: broken" in (results / "driver0.txt").read_text()


def test_a_run_that_was_lost_resumes_with_its_number_of_threads(sweep, results, run_ids, drive):
    folder = RunFolder(results, run_ids[0])
    folder.path.mkdir(parents=True)
    write_state(folder, RunState(status="running", step=2, num_steps=4, heartbeat=1.0), Files(folder.path))
    folder.checkpoint.mkdir()
    write_json(folder.job_json, {"num_threads": 7})
    assert make_plan(sweep, results).runs[0].status == "pending"
    assert drive(sweep, slots=1).num_completed == 3
    assert read_json(folder.job_json)["num_threads"] == 7
    # One slot: one after the other, in the order of the sweep.
    spans = [read_json(RunFolder(results, run_id).path / "span.json") for run_id in run_ids]
    assert all(before[1] < after[0] for before, after in pairwise(spans))


def test_a_completed_run_without_a_target_is_pending_again(sweep_file, sweep, results, run_ids, drive):
    drive(sweep)
    wider = load_sweep(sweep_file, ["targets=[counting, geometry]"])
    assert list(wider.runs) == run_ids
    assert [run.status for run in make_plan(sweep, results).runs] == ["completed"] * 3
    assert [run.status for run in make_plan(wider, results).runs] == ["pending"] * 3
    assert {row.note for row in sweep_status(wider, results)} == {"targets missing"}
    assert drive(wider).num_completed == 3
    assert [run.status for run in make_plan(wider, results).runs] == ["completed"] * 3
    more = load_sweep(sweep_file, ["evaluation.num_examples=5"])
    assert [run.status for run in make_plan(more, results).runs] == ["pending"] * 3
