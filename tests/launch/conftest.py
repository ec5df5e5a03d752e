"""A small sweep file, and workers and drivers that are real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.launch.driver import SweepOutcome, run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep, load_sweep

HERE = Path(__file__).parent
SWEEP = """\
name: small
description: Three runs on one target.
axes:
  method: [sft]
  source: [counting]
  seed: [0, 1, 2]
targets: [counting]
evaluation: {num_examples: 4}
execution: {device: cpu, max_lost: 2, max_out_of_memory: 1, lease_s: 2}
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and drivers find the package whether or not it is installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parents[1]))


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture
def sweep(sweep_file: Path) -> Sweep:
    return load_sweep(sweep_file)


@pytest.fixture
def run_ids(sweep: Sweep) -> list[str]:
    return list(sweep.runs)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results"
    path.mkdir()
    return path


@pytest.fixture
def worker() -> list[str]:
    """The command of the fake worker."""
    return [sys.executable, str(HERE / "fake_worker.py")]


@pytest.fixture
def order(results: Path) -> Callable[[Mapping[str, str]], None]:
    """Tells the fake workers what to do: run id -> behaviour."""

    def write(behaviour: Mapping[str, str]) -> None:
        (results / "behaviour.json").write_text(json.dumps(behaviour))

    return write


@pytest.fixture
def drive(results: Path, worker: list[str]) -> Callable[..., SweepOutcome]:
    """Runs a sweep here with fake workers."""

    def run(sweep: Sweep, slots: int = 2, **options: Any) -> SweepOutcome:
        executor = LocalExecutor(ExecutorSettings(slots=slots), command=worker)
        return run_sweep(sweep, results, executor=executor, wandb=False, **{"retry_failed": True, **options})

    return run


@pytest.fixture
def start_driver(sweep_file: Path, results: Path) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Starts drivers as processes and ends those that are left."""
    started = []

    def start(slots: int = 1) -> subprocess.Popen[str]:
        log = (results / f"driver{len(started)}.txt").open("w")
        command = [sys.executable, str(HERE / "drive.py"), str(sweep_file), str(results), str(slots)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=dict(os.environ))
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Waits for a condition; fails when it does not come true."""

    def wait(condition: Callable[[], object], seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "waited too long"
            time.sleep(0.02)

    return wait
