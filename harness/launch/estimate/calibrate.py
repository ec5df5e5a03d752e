"""Measures the kinds of runs that nothing is known of: the real worker, a few steps and one batch of examples each.

What it finds stands in `<results>/calibrations/<kind>.json`; the runs themselves are made in a folder that is removed.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.launch.driver import run_sweep
from harness.launch.estimate.estimates import Estimator, Span, place_of
from harness.launch.estimate.measured import CALIBRATIONS, read_measurements
from harness.launch.executor import Executor
from harness.launch.plan import make_plan
from harness.launch.table import print_line
from harness.launch.words import duration, labels
from harness.record.atomic import read_json_or, write_json
from harness.record.folder import RunFolder
from harness.record.index import RunIndex, measured_of
from harness.record.state import read_state, read_summary
from harness.spec import RunSpec
from harness.spec.expand import Cell
from harness.spec.methods import Trained

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

NUM_STEPS = 3
"""The first one warms up and counts as part of the start."""
NUM_EXAMPLES = 64
"""What is evaluated at a time: fewer would make an example dearer than it is."""


def calibrate_kinds(sweep: Sweep, results: Path, console: Console, executor: Executor | None = None) -> list[str]:
    """Measures one run of each kind that the sweep has left to do and nothing is known of, where the sweep would run.

    Says beforehand what it will do, and what that costs as far as the model's operations tell.

    Args:
        sweep: Whose runs.
        results: The results folder.
        console: Where to say so.
        executor: Where to run; by default the one that the sweep names.

    Returns:
        The kinds that were measured; of the others it is said why they were not.
    """
    with RunIndex(results) as index:
        plan = make_plan(sweep, results, index)
        estimator = Estimator(sweep, read_measurements(results, index), place_of(sweep.executor, sweep.execution))
    chosen: dict[str, RunSpec] = {}
    for run in plan.runs:
        if run.status != "completed" and not estimator.is_measured(run.spec, run.targets):
            chosen.setdefault(estimator.kind(run.spec), run.spec)
    if not chosen:
        print_line(console.file, "nothing to calibrate: every kind of run has been measured")
        return []
    small = calibration_of(sweep, list(chosen.values()))
    _announce(small, chosen, estimator, console)
    folder = results / CALIBRATIONS / f".{uuid.uuid4().hex[:12]}"
    try:
        run_sweep(small, folder, executor=executor, wandb=False, checkpoint_every=0, console=console)
        return _kept(small, list(chosen), folder, results, console)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def calibration_of(sweep: Sweep, specs: Sequence[RunSpec]) -> Sweep:
    """A sweep of short runs, one for each of these.

    Args:
        sweep: Where they are from.
        specs: Runs of different kinds.
    """
    cells = []
    for spec in specs:
        method = spec.method
        if isinstance(method, Trained):
            method = method.model_copy(update={"num_steps": min(NUM_STEPS, method.num_steps)})
        short = spec.model_copy(update={"method": method})
        cells.append(Cell(settings={}, spec=short, run_id=short.run_id, targets=sweep.targets))
    num = min(NUM_EXAMPLES, sweep.evaluation.num_examples)
    evaluation = sweep.evaluation.model_copy(update={"splits": ("test",), "num_examples": num, "every": 0})
    return dataclasses.replace(
        sweep, name=f"{sweep.name}.calibration", cells=tuple(cells), evaluation=evaluation, study=None, claims=()
    )


def _announce(small: Sweep, chosen: dict[str, RunSpec], estimator: Estimator, console: Console) -> None:
    names = labels({kind: [spec] for kind, spec in chosen.items()})
    counts = Estimator(small, estimator.measurements, estimator.place)
    seconds = Span()
    for run in small.runs.values():
        found = counts.left(run.spec, run.targets, None, "pending").seconds
        if found is None:
            cost = "nobody can say how long that takes: the model's operations are not known here"
            break
        seconds = seconds.plus(found)
    else:
        cost = f"by the models' operations {duration(seconds.median)} of a device all together, one after another"
    many = "1 kind of run" if len(chosen) == 1 else f"{len(chosen)} kinds of runs"
    print_line(console.file, f"calibrating {many}: {', '.join(names.values())}")
    print_line(
        console.file, f"  {NUM_STEPS} steps and {small.evaluation.num_examples} examples per target each; {cost}"
    )


def _kept(small: Sweep, kinds: Sequence[str], folder: Path, results: Path, console: Console) -> list[str]:
    """Writes down what the calibrations found."""
    measured = []
    for kind, run_id in zip(kinds, small.runs, strict=True):
        run = RunFolder(folder, run_id)
        found, summary = measured_of(read_json_or(run.run_json, {})), read_summary(run)
        if found is None or summary is None:
            print_line(console.file, f"not calibrated: {run_id}: {read_state(run).error or 'it was stopped'}", "red")
            continue
        kept = {"kind": kind, "made": time.time(), **found, "summary": {"evaluations": summary["evaluations"]}}
        write_json(results / CALIBRATIONS / f"{kind}.json", kept)
        measured.append(kind)
    return measured
