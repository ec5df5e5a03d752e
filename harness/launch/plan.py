"""What a sweep would do: its runs, each with the targets it is evaluated on and where it stands. Starts nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.launch.status import current_status
from harness.launch.table import counted, print_line, print_table
from harness.record.folder import RunFolder
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


@dataclass(frozen=True)
class PlannedRun:
    """One training, run once however many cells of the sweep ask for it.

    Attributes:
        targets: The tasks to evaluate on: those of all its cells.
        status: pending, running, completed, failed or pruned.
        settings: The sweep's axes as the first cell that asks for the run has them.
    """

    run_id: str
    spec: RunSpec
    targets: tuple[str, ...]
    status: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
        num_runs: Trainings (and untouched models) after equal ones are merged.
        num_runs_naive: Those of a full grid, targets included, that trains every combination anew.
    """

    sweep_name: str
    num_runs: int
    num_runs_naive: int
    runs: tuple[PlannedRun, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable form that `harness plan --json` prints."""
        runs = [
            {
                "run_id": run.run_id,
                "method": run.spec.method.type,
                "source": run.spec.source,
                "seed": run.spec.seed,
                "targets": list(run.targets),
                "status": run.status,
            }
            for run in self.runs
        ]
        return {
            "sweep": self.sweep_name,
            "num_runs": self.num_runs,
            "num_runs_naive": self.num_runs_naive,
            "runs": runs,
        }

    def print(self, console: Console) -> None:
        """Prints a line per run and the counts."""
        cells = [(run.run_id, _settings(run.settings), " ".join(run.targets), run.status) for run in self.runs]
        print_table(console, ("run", "settings", "targets", "status"), cells)
        counts = counted([run.status for run in self.runs])
        print_line(
            console, f"{self.sweep_name}: {self.num_runs} runs ({counts}); a full grid would be {self.num_runs_naive}"
        )


def make_plan(sweep: Sweep, results: str | Path) -> Plan:
    """The plan of a sweep, with each run's status in a results folder.

    A run that was completed for fewer targets or examples than the sweep asks for is pending: it will be evaluated,
    not trained again.
    """
    settings: dict[str, Mapping[str, Any]] = {}
    for cell in sweep.cells:
        settings.setdefault(cell.run_id, cell.settings)
    runs = tuple(
        PlannedRun(
            run_id=run.run_id,
            spec=run.spec,
            targets=run.targets,
            status=current_status(RunFolder(results, run.run_id), run.targets, sweep.evaluation)[0],
            settings=settings.get(run.run_id, {}),
        )
        for run in sweep.runs.values()
    )
    return Plan(sweep_name=sweep.name, num_runs=len(runs), num_runs_naive=sweep.num_runs_naive, runs=runs)


def _settings(settings: Mapping[str, Any]) -> str:
    """Axes that a run id does not show."""
    in_run_id = {"method", "method.type", "source", "seed"}
    return " ".join(f"{key}={value}" for key, value in settings.items() if key not in in_run_id)
