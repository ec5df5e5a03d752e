"""A small real sweep, left undisturbed and disturbed."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_contents import everything

import harness
from harness.launch.driver import SweepOutcome, run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.record.folder import RunFolder
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep, load_sweep

STANDINS = Path(__file__).parents[1] / "standins"
SWEEP = """\
name: faults
description: Three methods, three steps each.
base: {num_steps: 3, prompts_per_step: 2, num_train: 8}
axes:
  method: [sft, grpo, grpo_d]
  source: [counting]
  seed: [0]
blocks:
  - where: {method: [grpo, grpo_d]}
    set: {group_size: 2, max_completion_length: 24}
targets: [counting, geometry]
evaluation: {num_examples: 4, every: 2, num_validation: 2, max_new_tokens: 24}
execution: {device: cpu, max_lost: 1000, lease_s: 2}
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers and drivers find the package and the faulty worker."""
    path = os.pathsep.join([str(Path(harness.__file__).parents[1]), str(STANDINS)])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture(scope="session")
def sweep_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sweep") / "faults.yaml"
    path.write_text(SWEEP)
    return path


@pytest.fixture(scope="session")
def sweep(sweep_file: Path) -> Sweep:
    return load_sweep(sweep_file)


@pytest.fixture(scope="session")
def executor() -> Iterator[LocalExecutor]:
    """Two faulty workers at a time, of one thread each."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(harness.__file__).parents[1]), str(STANDINS)])
    made = LocalExecutor(
        ExecutorSettings(slots=2, grace_s=10),
        Execution(device="cpu"),
        module="faulty_worker",
    )
    yield made
    made.close()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


Run = Callable[..., tuple[SweepOutcome, str]]


@pytest.fixture
def run(sweep: Sweep, executor: LocalExecutor) -> Run:
    """Runs the sweep in a results folder to its end, with faults; returns the outcome and what was told."""

    def go(
        results: Path, faults: Mapping[str, Any] | None = None, *, sweep: Sweep = sweep, **options: Any
    ) -> tuple[SweepOutcome, str]:
        results.mkdir(exist_ok=True)
        if faults is not None:
            (results / "faults.json").write_text(json.dumps(faults))
        out = io.StringIO()
        console = Console(file=out, width=200)
        outcome = run_sweep(
            sweep, results, executor=executor, wandb=False, console=console, checkpoint_every=1, **options
        )
        return outcome, out.getvalue()

    return go


@pytest.fixture(scope="session")
def undisturbed(sweep: Sweep, executor: LocalExecutor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the sweep comes to when nothing happens to it."""
    results = tmp_path_factory.mktemp("undisturbed")
    console = Console(file=io.StringIO())
    outcome = run_sweep(sweep, results, executor=executor, wandb=False, console=console, checkpoint_every=1)
    assert outcome == SweepOutcome(3, 0, 0, False), [
        RunFolder(results, run_id).log.read_text() for run_id in sweep.runs
    ]
    return everything(sweep, results)
