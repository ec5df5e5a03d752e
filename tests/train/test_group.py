"""Real processes that share a run: where they meet, what they inherit, and how one's end becomes the others'."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness.errors import ProcessLostError, RunError
from harness.launch.driver import SweepOutcome, run_sweep
from harness.launch.executor import Demand, Launch
from harness.launch.executors.local import LocalExecutor
from harness.record.atomic import read_json, read_jsonl
from harness.record.failures import failure_of
from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.record.lease import is_held, read_owner, reserve
from harness.record.state import read_state
from harness.spec import Job
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep, load_sweep
from harness.train.group import open_group

NUM_STEPS = 10
SWEEP = """\
name: shared
axes: {{method: [grpo_d], source: [counting]}}
base:
  model: {model}
  num_train: 9
  method: {{num_steps: {num_steps}, prompts_per_step: 3, group_size: 4, max_completion_length: 20, lr: 1e-3}}
  schedule: {{type: adaptive, target_kl: 0.001}}
targets: [counting]
evaluation: {{num_examples: 5, max_new_tokens: 20, every: 5, num_validation: 3}}
execution: {{device: cpu}}
"""


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gives the environment back that a group's first process changes."""
    with monkeypatch.context() as patch:
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "")
            patch.delenv(name)
        patch.setenv("TORCHELASTIC_USE_AGENT_STORE", "")
        yield


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.mark.usefixtures("alone")
def test_members_know_their_places_and_end_with_the_first(tmp_path: Path) -> None:
    code = f"""
import json, os, pathlib, sys
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "HARNESS_MEMBER")
pathlib.Path({str(tmp_path)!r}, os.environ["RANK"]).write_text(json.dumps([os.environ[name] for name in names]))
sys.stdin.read()
"""
    others = psutil.Process().children()
    group = open_group(3, script(code))
    port = os.environ["MASTER_PORT"]
    assert (os.environ["RANK"], os.environ["WORLD_SIZE"]) == ("0", "3")
    deadline = time.monotonic() + 30
    while not all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "12"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for rank in "12":
        assert json.loads((tmp_path / rank).read_text()) == [rank, rank, "3", "127.0.0.1", port, "1"]
    members = [child for child in psutil.Process().children() if child not in others]
    assert len(members) == 2
    group.close()
    assert not any(member.is_running() for member in members)
    descriptor = group.take_listener()
    assert descriptor is not None
    os.close(descriptor)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("code", "end"),
    [
        ("import os; os.kill(os.getpid(), 9)", "process 1 of 0 to 1 was ended by SIGKILL"),
        ("raise SystemExit(3)", "process 1 of 0 to 1 ended with exit code 3"),
    ],
)
def test_a_broken_connection_is_told_as_the_end_that_broke_it(code: str, end: str) -> None:
    group = open_group(2, script(code))
    reason = group.reason(RuntimeError("Connection closed by peer"))
    assert isinstance(reason, ProcessLostError) and str(reason) == end
    assert failure_of(reason) == "worker_lost"
    own = RunError("a reason of its own")
    assert group.reason(own) is own
    group.close()
    os.close(group.take_listener() or -1)


def test_one_process_and_those_of_torchrun_start_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert open_group(1, ["must not be started"]).take_listener() is None
    monkeypatch.setenv("RANK", "0")
    group = open_group(2, ["must not be started"])
    error = RuntimeError("its own")
    assert group.take_listener() is None and group.reason(error) is error
    group.close()


def load(folder: Path, model: Path, devices: int) -> Sweep:
    file = folder / "shared.yaml"
    file.write_text(SWEEP.format(model=model, num_steps=NUM_STEPS))
    return load_sweep(file, [f"execution.devices={devices}"])


def drive(sweep: Sweep, results: Path) -> SweepOutcome:
    with contextlib.closing(LocalExecutor(ExecutorSettings(slots=1), sweep.execution)) as executor:
        return run_sweep(sweep, results, executor=executor, wandb=False, checkpoint_every=2)


def when(due: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Does something beside the test as soon as it is due."""

    def wait() -> None:
        deadline = time.monotonic() + 500
        while not due():
            if time.monotonic() > deadline:
                return
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def steps_of(folder: RunFolder) -> list[dict[str, Any]]:
    return [
        {key: value for key, value in row.items() if not key.startswith("time/")} for row in read_jsonl(folder.metrics)
    ]


def outcome(folder: RunFolder) -> dict[str, Any]:
    summary = read_json(folder.summary)
    return {
        "metrics": steps_of(folder),
        "evaluations": summary["evaluations"],
        "weights": (folder.weights / "model.safetensors").read_bytes(),
    }


def assert_nearly(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found["evaluations"] == expected["evaluations"]
    for row, other in zip(found["metrics"], expected["metrics"], strict=True):
        assert row == pytest.approx(other, rel=1e-3, abs=1e-5)


@pytest.fixture(scope="module")
def undisturbed(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, dict[str, Any]]:
    """The same run in one process and in two."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(harness.__file__).parents[1]))
        for devices in (1, 2):
            folder = tmp_path_factory.mktemp(f"devices{devices}")
            sweep = load(folder, policy_folder, devices)
            assert drive(sweep, folder).num_completed == 1
            run = RunFolder(folder, next(iter(sweep.runs)))
            assert read_json(run.run_json)["resolved"]["num_processes"] == devices
            found[devices] = outcome(run)
    return found


@pytest.mark.slow
def test_a_run_on_two_devices_is_that_on_one(undisturbed: dict[int, dict[str, Any]]) -> None:
    assert len(undisturbed[1]["metrics"]) == NUM_STEPS + 2
    assert_nearly(undisturbed[2], undisturbed[1])


@pytest.mark.slow
def test_a_group_that_is_killed_or_stopped_goes_on_to_the_same_end(
    policy_folder: Path, tmp_path: Path, undisturbed: dict[int, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parents[1]))
    results = tmp_path / "results"
    sweep = load(tmp_path, policy_folder, 2)
    folder = RunFolder(results, next(iter(sweep.runs)))
    seen: list[psutil.Process] = []

    def started() -> psutil.Process:
        leader = psutil.Process(read_state(folder).pid)
        seen.extend([leader, *leader.children(recursive=True)])
        return leader

    def num_done() -> int:
        return len(steps_of(folder)) if folder.metrics.exists() else 0

    run = sweep.runs[folder.run_id]
    lease = reserve(folder.path, None, pulse=tmp_path)
    assert lease is not None
    job = Job(
        spec=run.spec,
        targets=run.targets,
        evaluation=sweep.evaluation,
        results=str(results),
        wandb=False,
        execution=sweep.execution,
        reserved=lease.token,
        checkpoint_every=2,
    )
    executor = LocalExecutor(ExecutorSettings(slots=1), sweep.execution)
    [worker] = executor.start([Launch(job, folder, Demand(2), lease.files)])
    deadline = time.monotonic() + 240
    while num_done() < 2:
        assert worker.poll() is None and time.monotonic() < deadline, folder.log.read_text()
        time.sleep(0.005)
    started()
    worker.stop()
    while (end := worker.poll()) is None:
        time.sleep(0.005)
    assert end.code == 128 + signal.SIGTERM, folder.log.read_text()
    executor.close()
    owner = read_owner(folder.path)
    assert read_state(folder).status == "pending" and owner is not None and owner.released
    shutil.copytree(results, tmp_path / "copy")

    def kill_member() -> None:
        next(child for child in started().children() if "harness.worker" in child.cmdline()).kill()

    threads = [
        when(lambda: read_state(folder).attempts == 2 and num_done() >= 4, kill_member),
        when(lambda: read_state(folder).attempts == 3 and num_done() >= 7, lambda: started().kill()),
    ]
    assert drive(sweep, results).num_completed == 1, folder.log.read_text()
    for thread in threads:
        thread.join()
    launches = read_launches(folder)
    assert [(launch.code, launch.failure, launch.error) for launch in launches] == [
        (1, "worker_lost", "process 1 of 0 to 1 was ended by SIGKILL"),
        (-9, "worker_lost", "the worker was ended by SIGKILL (killed by hand or for memory)"),
        (None, None, None),
    ], folder.log.read_text()
    assert outcome(folder) == undisturbed[2]
    _, alive = psutil.wait_procs([process for process in seen if process.is_running()], timeout=10)
    assert not alive and not is_held(folder.path)

    # The checkpoint holds whole weights: one process can go on where two have stopped.
    alone = load(tmp_path, policy_folder, 1)
    assert drive(alone, tmp_path / "copy").num_completed == 1
    assert_nearly(outcome(RunFolder(tmp_path / "copy", folder.run_id)), undisturbed[1])


@pytest.mark.slow
def test_two_groups_on_one_machine_do_not_meet(policy_folder: Path, tmp_path: Path) -> None:
    sweep = load(tmp_path, policy_folder, 2)
    file = tmp_path / "shared.yaml"
    file.write_text(file.read_text().replace("source: [counting]", "source: [counting], seed: [0, 1]"))
    file.write_text(file.read_text().replace(f"num_steps: {NUM_STEPS}", "num_steps: 2"))
    command = [sys.executable, "-m", "harness", "run", str(file), "--set", "execution.devices=2", "--slots", "2"]
    done = subprocess.run(
        [*command, "--no-wandb", "--results", str(tmp_path / "results")],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | {"PYTHONPATH": str(Path(harness.__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert "2 completed, 0 failed" in done.stderr
    assert sweep.execution.devices == 2
