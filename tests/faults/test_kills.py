"""Processes that are killed or stopped: workers before each file that they touch and at random moments, and drivers."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweep_contents import everything, worker_pids

from harness.record.folder import RunFolder
from harness.record.launches import read_launches

HERE = Path(__file__).parent
FULL = os.environ.get("HARNESS_FAULTS") == "full"
"""`make test-faults` does everything; else a few of each."""


@pytest.fixture
def start_driver(sweep_file: Path, tmp_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Starts drivers as processes of their own, and ends those that are left."""
    started: list[subprocess.Popen[str]] = []

    def start(results: Path) -> subprocess.Popen[str]:
        with (tmp_path / f"driver{len(started)}.txt").open("w") as log:
            command = [sys.executable, str(HERE / "drive.py"), str(sweep_file), str(results)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ))
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def finish(driver: subprocess.Popen[str], num_runs: int) -> None:
    out, _ = driver.communicate(timeout=300)
    outcome = json.loads(out.splitlines()[-1])
    assert (outcome["num_completed"], outcome["num_failed"], outcome["num_pending"]) == (num_runs, 0, 0)


@pytest.mark.slow
def test_a_kill_before_each_touch_of_a_file(run, sweep, undisturbed, tmp_path):
    """A first attempt dies before its n-th touch of a file, for every n: in each state that a run goes through."""
    run(tmp_path / "count", {"*": [{"do": "nothing", "count": True}]})
    events = (tmp_path / "count" / "events.txt").read_text().splitlines()
    assert len(events) > 90, events
    most = max(len(events) // len(sweep.runs), 1) + 15  # one method touches more files than another
    numbers = list(range(1, most + 1)) if FULL else [3, 11, 17, 26, 33, 41]
    kills = 0
    for number in numbers:
        results = tmp_path / f"kill{number}"
        outcome, told = run(results, {"*": [{"do": "kill", "event": number}]})
        assert (outcome.num_completed, outcome.num_failed) == (3, 0), told
        assert everything(sweep, results) == undisturbed, f"killed before touch {number}"
        launches = [read_launches(RunFolder(results, run_id)) for run_id in sweep.runs]
        kills += sum(len(ones) - 1 for ones in launches)
    assert kills > len(numbers)
    print(f"\n{kills} kills at {len(numbers)} places in each of {len(sweep.runs)} runs")


@pytest.mark.slow
def test_kills_at_random_moments(run, sweep, undisturbed, tmp_path):
    """Whichever worker lives is killed, again and again, until as many were killed as shall be."""
    wanted, killed = (200 if FULL else 6), 0
    chance = random.Random(7)
    while killed < wanted:
        results = tmp_path / f"random{killed}"
        results.mkdir()
        over = threading.Event()
        kills: list[int] = []

        def strike(
            results: Path = results, over: threading.Event = over, kills: list[int] = kills, most: int = wanted - killed
        ) -> None:
            while not over.wait(chance.uniform(0.2, 4.0)) and len(kills) < min(most, 12):
                alive = worker_pids(sweep, results)
                if alive:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(chance.choice(alive), signal.SIGKILL)
                        kills.append(1)

        thread = threading.Thread(target=strike)
        thread.start()
        try:
            outcome, told = run(results)
        finally:
            over.set()
            thread.join()
        assert (outcome.num_completed, outcome.num_failed) == (3, 0), told
        assert everything(sweep, results) == undisturbed
        killed += len(kills)
    print(f"\n{killed} workers killed at random moments")


@pytest.mark.slow
@pytest.mark.parametrize("with_workers", [False, True])
def test_a_driver_is_killed_again_and_again(with_workers, sweep, undisturbed, start_driver, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    chance = random.Random(11)
    kills = 0
    for _ in range(25 if FULL else 3):
        driver = start_driver(results)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=chance.uniform(3.0, 12.0))
        if driver.poll() is not None:
            break
        workers = worker_pids(sweep, results)
        driver.kill()
        driver.wait()
        kills += 1
        for pid in workers if with_workers else ():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
    assert kills
    finish(start_driver(results), len(sweep.runs))
    assert everything(sweep, results) == undisturbed
    if not with_workers:
        # Workers that outlive their driver are adopted: nobody starts a run a second time while its first worker lives.
        for run_id in sweep.runs:
            launches = read_launches(RunFolder(results, run_id))
            assert all(launch.failure is None or launch.code is None for launch in launches), launches
    print(f"\n{kills} drivers killed{' with their workers' if with_workers else ''}")


@pytest.mark.slow
def test_two_drivers_racing_train_each_run_once(sweep, undisturbed, start_driver, tmp_path):
    results = tmp_path / "results"
    results.mkdir()
    drivers = [start_driver(results), start_driver(results)]
    for driver in drivers:
        finish(driver, len(sweep.runs))
    assert everything(sweep, results) == undisturbed
    for run_id in sweep.runs:
        assert len(read_launches(RunFolder(results, run_id))) == 1


@pytest.mark.slow
def test_a_worker_that_wakes_up_after_its_lease_writes_nothing_more(run, sweep, undisturbed, tmp_path):
    """Started by hand, it is adopted by nobody; stopped, it is passed over; awake again, it finds itself fenced off."""
    run_id = next(run_id for run_id in sweep.runs if run_id.startswith("grpo_d"))
    results = tmp_path / "results"
    folder = RunFolder(results, run_id)
    folder.path.mkdir(parents=True)
    (results / "faults.json").write_text(json.dumps({}))
    job = {
        "spec": sweep.runs[run_id].spec.model_dump(mode="json"),
        "targets": list(sweep.runs[run_id].targets),
        "evaluation": sweep.evaluation.model_dump(mode="json"),
        "execution": sweep.execution.model_dump(mode="json"),
        "results": str(results),
        "wandb": False,
        "checkpoint_every": 1,
        "num_threads": 1,
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    with (tmp_path / "late.txt").open("w") as log:
        late = subprocess.Popen(
            [sys.executable, "-m", "harness.worker", str(tmp_path / "job.json")], stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 120
        while not (folder.metrics.exists() and folder.metrics.read_bytes()):
            assert late.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        late.send_signal(signal.SIGSTOP)
        outcome, told = run(results)
        assert (outcome.num_completed, outcome.num_failed) == (3, 0), told
        assert f"elsewhere  {run_id}" in told
        before = everything(sweep, results)
        files = {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()}
        late.send_signal(signal.SIGCONT)
        assert late.wait(timeout=60) == 75
        assert "fenced off" in (tmp_path / "late.txt").read_text()
    finally:
        if late.poll() is None:
            late.kill()
            late.wait()
    assert before == undisturbed
    assert {path: path.read_bytes() for path in folder.path.rglob("*") if path.is_file()} == files


@pytest.mark.slow
def test_a_worker_that_is_stopped_for_good_is_ended_by_its_driver(run, sweep, undisturbed, tmp_path):
    results = tmp_path / "results"
    outcome, told = run(results, {"*": [{"do": "stop", "path": "eval/counting.jsonl"}]})
    assert (outcome.num_completed, outcome.num_failed) == (3, 0), told
    assert told.count("the worker was lost: no sign of life for 2 s; it goes on from where it was") == 3
    assert everything(sweep, results) == undisturbed
