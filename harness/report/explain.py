"""The runs behind a cell of a table: their seeds, accuracies, commits and folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError, nearest
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.report.collect import asked_by, measure_all
from harness.report.figures.data import shown_settings
from harness.report.tables import TableRow, rows_of
from harness.report.terminal import columns

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


@dataclass(frozen=True)
class CellRun:
    """One run behind a cell.

    Attributes:
        run_id: The run.
        seed: None for `base`.
        accuracy: In [0, 1]; None where it is missing.
        commit: Of the code that trained it; None where not on record.
        dirty: Whether that code had uncommitted changes.
        folder: Where it lies, or would.
    """

    run_id: str
    seed: int | None
    accuracy: float | None
    commit: str | None
    dirty: bool
    folder: str


@dataclass(frozen=True)
class Explained:
    """A cell with its runs."""

    row: TableRow
    name: str
    runs: tuple[CellRun, ...]

    def as_json(self) -> dict[str, Any]:
        """The row as the tables have it, its missing runs, and every run."""
        record = {"cell": self.name} | self.row.as_json()
        return record | {
            "missing_run_ids": list(self.row.missing_run_ids),
            "runs": [asdict(run) for run in self.runs],
        }


def explain(results: str | Path, sweep: str | Path | Sweep, cell: str) -> list[Explained]:
    """The cells of a sweep's tables that a name stands for.

    Args:
        results: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.
        cell: METHOD/SOURCE/TARGET, `base/TARGET`, or the beginning of one: `grpo_d` stands for all cells of the
            method. Settings may follow: `grpo/counting/counting/beta=0.01`.

    Raises:
        UserError: There is no such sweep or cell.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    asked = asked_by(results, sweep)
    measured = measure_all(results, asked)
    rows = {(_name(row), row.ablation): row for row in _once(rows_of(results, asked, measured))}
    wanted = [part.strip() for part in cell.strip("/").split("/")]
    fitting = [(name, row) for (name, _), row in rows.items() if _fits(wanted, name.split("/"))]
    if not fitting:
        raise UserError(f"--explain: no cell '{cell}': {nearest(cell, {name for name, _ in rows})}")
    seeds = {one.run_id: one.seed for one in asked.cells}
    explained = []
    for name, row in fitting:
        found = {run_id: measured[run_id, row.target] for run_id in (*row.run_ids, *row.missing_run_ids)}
        accuracies = {run_id: None if one is None else float(one.correct.mean()) for run_id, one in found.items()}
        ordered = sorted(accuracies, key=lambda run_id: seeds[run_id])
        runs = (
            _run(RunFolder(results, run_id), None if row.source is None else seeds[run_id], accuracies[run_id])
            for run_id in ordered
        )
        explained.append(Explained(row, name, tuple(runs)))
    return explained


def _once(rows: Iterable[TableRow]) -> Iterator[TableRow]:
    """`base` stands in both tables with the same numbers."""
    return (row for row in rows if row.source is not None or row.table == "same_task")


def _name(row: TableRow) -> str:
    parts = [row.method, *([] if row.source is None else [row.source]), row.target]
    return "/".join([*parts, *shown_settings(row.settings).split(", ")] if row.settings else parts)


def _fits(wanted: Sequence[str], name: Sequence[str]) -> bool:
    """Method, source and target in their order; settings in any, and not all of them need be named."""
    settings = [part for part in wanted if "=" in part]
    place = [part for part in wanted if "=" not in part]
    own = [part for part in name if "=" not in part]
    return place == own[: len(place)] and set(settings) <= set(name)


def _run(folder: RunFolder, seed: int | None, accuracy: float | None) -> CellRun:
    record = read_json(folder.run_json) if folder.run_json.is_file() else {}
    origin = record.get("provenance") or {}
    commit, dirty = origin.get("commit"), bool(origin.get("dirty"))
    return CellRun(folder.run_id, seed, accuracy, commit, dirty, str(folder.path))


def explain_text(cells: Sequence[Explained]) -> str:
    """What `harness tables --explain` prints."""
    return "\n\n".join("\n".join(_lines(cell)) for cell in cells)


def _lines(cell: Explained) -> Iterator[str]:
    row = cell.row
    title = cell.name if row.ablation is None else f"{cell.name}, ablation of {row.ablation}"
    mean = "no run is complete" if row.mean is None else f"{100 * row.mean:.1f} %"
    interval = (
        "" if row.ci_low is None or row.ci_high is None else f" [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
    )
    yield f"{title}: {mean}{interval}, {row.num_examples} {row.split} examples, protocol {row.protocol or 'unknown'}"
    rows = [["seed", "accuracy", "commit", "folder"]]
    for run in cell.runs:
        seed = "-" if run.seed is None else str(run.seed)
        accuracy = "missing" if run.accuracy is None else f"{100 * run.accuracy:.1f}"
        commit = "-" if run.commit is None else f"{run.commit[:10]}{'+dirty' if run.dirty else ''}"
        rows.append([seed, accuracy, commit, run.folder])
    yield from columns(rows, right=(0, 1))
