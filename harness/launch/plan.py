"""What a sweep would do: its runs, where each one stands, what is reused, and what is left. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from harness.launch.estimate.estimates import TO_DO, Estimate, Estimator, Place, Total, add_up, place_of
from harness.launch.estimate.measured import read_measurements
from harness.launch.plan_text import estimate_lines
from harness.launch.status.status import current_status
from harness.launch.table import counted, print_line, print_table
from harness.launch.words import duration
from harness.record.folder import RunFolder
from harness.record.index import RunIndex
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun


class PlannedRun(NamedTuple):
    """One training, run once however many cells of the sweep ask for it.

    Attributes:
        targets: The tasks to evaluate on: those of all its cells.
        status: pending, running, completed, failed or pruned.
        settings: The sweep's axes as the first cell that asks for the run has them.
        reused_from: The other sweep that made what is on record of it.
        estimate: What is left; None where nobody asked for it.
    """

    run_id: str
    spec: RunSpec
    targets: tuple[str, ...]
    status: str
    settings: Mapping[str, Any] = MappingProxyType({})
    reused_from: str | None = None
    estimate: Estimate | None = None


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
        num_runs: Trainings (and untouched models) after equal ones are merged.
        num_runs_naive: Those of a full grid, targets included, that trains every combination anew.
        place: Where they would run; None where no estimates are made.
    """

    sweep_name: str
    num_runs: int
    num_runs_naive: int
    runs: tuple[PlannedRun, ...]
    place: Place | None = None

    @property
    def total(self) -> Total:
        """What is left of all runs that would be worked on."""
        left = [run.estimate for run in self.runs if run.status in TO_DO and run.estimate is not None]
        return add_up(left, self.place.num_slots if self.place else None)

    def as_json(self) -> dict[str, Any]:
        """The stable form that `harness plan --json` prints; with `estimate` and `reused_from` where they were made."""
        plan = {
            "sweep": self.sweep_name,
            "num_runs": self.num_runs,
            "num_runs_naive": self.num_runs_naive,
            "runs": [self._run_json(run) for run in self.runs],
        }
        if self.place is None:
            return plan
        where = {"device": self.place.device, "num_slots": self.place.num_slots}
        return plan | {"estimate": self.total.as_json() | where}

    def _run_json(self, run: PlannedRun) -> dict[str, Any]:
        found = {
            "run_id": run.run_id,
            "method": run.spec.method.type,
            "source": run.spec.source,
            "seed": run.spec.seed,
            "targets": list(run.targets),
            "status": run.status,
        }
        if self.place is None:
            return found
        return found | {"reused_from": run.reused_from, "estimate": run.estimate.as_json() if run.estimate else None}

    def print(self, out: IO[str]) -> None:
        """Prints a line per run, what is left by kind, and the counts."""
        cells = [
            (
                run.run_id,
                _settings(run.settings),
                " ".join(run.targets),
                run.status,
                run.reused_from or "",
                _time(run),
            )
            for run in self.runs
        ]
        print_table(out, ("run", "settings", "targets", "status", "from", "left"), cells)
        if self.place is not None:
            left = [(run.spec, run.estimate) for run in self.runs if run.status in TO_DO and run.estimate is not None]
            estimate_lines(out, left, self.total, self.place)
        counts = counted([run.status for run in self.runs])
        print_line(
            out, f"{self.sweep_name}: {self.num_runs} runs ({counts}); a full grid would be {self.num_runs_naive}"
        )


def make_plan(sweep: Sweep, results: str | Path, index: RunIndex | None = None) -> Plan:
    """The plan of a sweep, with each run's status in a results folder, without estimates.

    A run that was completed for fewer targets or examples than the sweep asks for is pending: it will be evaluated,
    not trained again.

    Args:
        sweep: What to plan.
        results: The results folder.
        index: Of that folder, where there is one at hand.
    """
    if index is None:
        with RunIndex(results) as index:
            return make_plan(sweep, results, index)
    settings: dict[str, Mapping[str, Any]] = {}
    for cell in sweep.cells:
        settings.setdefault(cell.run_id, cell.settings)
    there = set(index.run_ids())

    def status(run: SweepRun) -> str:
        if run.run_id not in there:
            return "pending"
        return current_status(results, run.run_id, run.targets, sweep.evaluation, index)[0]

    runs = tuple(
        PlannedRun(run.run_id, run.spec, run.targets, status(run), settings.get(run.run_id, {}))
        for run in sweep.runs.values()
    )
    return Plan(sweep_name=sweep.name, num_runs=len(runs), num_runs_naive=sweep.num_runs_naive, runs=runs)


def with_estimates(plan: Plan, sweep: Sweep, results: str | Path, index: RunIndex) -> Plan:
    """A plan with what each run has from another sweep, and what is left of it.

    Args:
        plan: Of the sweep.
        sweep: What is planned.
        results: The results folder.
        index: Of that folder.
    """
    place = place_of(sweep.executor, sweep.execution)
    there = set(index.run_ids())
    estimator = None
    runs = []
    for run in plan.runs:
        record = index.measured(run.run_id) if run.run_id in there else None
        made_by = record["job"]["sweep"] if record else None
        estimate = None
        if run.status != "completed":
            estimator = estimator or Estimator(sweep, read_measurements(Path(results), index), place)
            folder = RunFolder(results, run.run_id) if run.run_id in there else None
            estimate = estimator.left(run.spec, run.targets, folder, run.status)
        runs.append(run._replace(reused_from=made_by if made_by != sweep.name else None, estimate=estimate))
    return replace(plan, runs=tuple(runs), place=place)


def _time(run: PlannedRun) -> str:
    if run.estimate is None or run.status not in TO_DO:
        return ""
    return "-" if run.estimate.seconds is None else duration(run.estimate.seconds.median)


def _settings(settings: Mapping[str, Any]) -> str:
    """Axes that a run id does not show."""
    return " ".join([f"{key}={value}" for key, value in settings.items() if key not in _IN_RUN_ID])


_IN_RUN_ID = frozenset({"method", "method.type", "source", "seed"})
