"""What the figures of a sweep are made of, read once: what it asks, what its runs scored, how they trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.report.collect import Asked, AskedCell, Measurement, asked_by, leaves, measure_all
from harness.report.curves import by_metric, load_curves
from harness.report.one_run import worker_s
from harness.report.published import PublishedNumber, published_beside, read_published
from harness.report.tables import TableRow, rows_of

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep


@dataclass(frozen=True)
class SweepData:
    """A sweep and its run folders.

    Attributes:
        asked: Its cells.
        rows: Of its tables.
        measured: By run and target; None where it is missing.
        curves: By metric, from :func:`harness.report.curves.by_metric`.
        specs: The resolved spec of every run that was started.
        published: By run and target, what others published of such a run.
        worker_s: Of every run that was started, from :func:`harness.report.one_run.worker_s`.
    """

    asked: Asked
    rows: tuple[TableRow, ...]
    measured: Mapping[tuple[str, str], Measurement | None]
    curves: Mapping[str, pd.DataFrame]
    specs: Mapping[str, Mapping[str, Any]]
    published: Mapping[tuple[str, str], tuple[PublishedNumber, ...]]
    worker_s: Mapping[str, float | None]

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Of every run that the sweep asks for, each once."""
        return tuple(dict.fromkeys(cell.run_id for cell in self.asked.cells))

    @property
    def examples(self) -> str:
        """The examples behind each accuracy of one run, such as ``"200 test examples"``."""
        counts = {target: len(found.correct) for (_, target), found in self.measured.items() if found is not None}
        sizes = sorted(set(counts.values())) or [self.asked.evaluation.num(self.asked.evaluation.table_split)]
        return f"{' or '.join(map(str, sizes))} {self.asked.evaluation.table_split} examples"

    def missing(self, run_ids: Iterable[str]) -> list[str]:
        """Those of these runs that are not completed, or lack one of the targets."""
        lacking = {run_id for (run_id, _), found in self.measured.items() if found is None}
        return [run_id for run_id in dict.fromkeys(run_ids) if run_id in lacking]

    def found(self, run_ids: Iterable[str], target: str) -> list[Measurement]:
        """What these runs scored on a target; for runs that are not missing."""
        found = [self.measured[run_id, target] for run_id in run_ids]
        return [item for item in found if item is not None]


def read_sweep_data(results_dir: str | Path, sweep: str | Path | Sweep) -> SweepData:
    """Reads what a sweep's figures need.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    asked = asked_by(results_dir, sweep)
    measured = measure_all(results_dir, asked)
    numbers = read_published() or ()
    folders = (RunFolder(results_dir, run_id) for run_id in dict.fromkeys(run_id for run_id, _ in measured))
    records = {folder.run_id: read_json(folder.run_json) for folder in folders if folder.run_json.is_file()}
    specs = {run_id: record["spec"] for run_id, record in records.items()}
    return SweepData(
        asked=asked,
        rows=tuple(rows_of(results_dir, asked, measured)),
        measured=measured,
        curves=by_metric(load_curves(results_dir, sweep)),
        specs=specs,
        published={pair: published_beside(numbers, specs[pair[0]], pair[1]) for pair in measured if pair[0] in specs},
        worker_s={run_id: worker_s(record) for run_id, record in records.items()},
    )


def flat_settings(cell: AskedCell) -> dict[str, Any]:
    """A cell's settings, those written as a mapping leaf by leaf: the type under the key itself."""
    return _flat(cell.settings)


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removesuffix(".type"): value for key, value in leaves(settings).items()}


def short_name(key: str) -> str:
    """A setting as a sweep file may write it: `beta` for `method.schedule.beta`."""
    return key.rpartition(".")[2]


def shown(value: Any) -> str:
    """A setting's value as a label."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def shown_settings(settings: Mapping[str, Any]) -> str:
    """Settings as a label, such as ``"format_weight=0.5, schedule=linear"``; empty for none."""
    return ", ".join(f"{short_name(key)}={shown(value)}" for key, value in _flat(settings).items())


def seeds_note(counts: Iterable[int]) -> str:
    """How many seeds the numbers of a figure are over, such as ``"n = 3 seeds"`` or ``"n = 3 to 5 seeds"``."""
    known = sorted(set(counts))
    if not known:
        return "n = 0 seeds"
    span = f"{known[0]}" if len(known) == 1 else f"{known[0]} to {known[-1]}"
    return f"n = {span} seed{'' if span == '1' else 's'}"


def missing_note(data: SweepData, run_ids: Iterable[str], left_out: Iterable[str]) -> str:
    """How many runs a figure lacks and what is not drawn for it; empty where none is missing.

    Args:
        data: The sweep's.
        run_ids: The runs that the figure is about.
        left_out: Labels of what is not drawn.
    """
    asked = list(dict.fromkeys(run_ids))
    missing = data.missing(asked)
    if not missing:
        return ""
    labels = list(dict.fromkeys(left_out))
    rest = f" and {len(labels) - 6} more" if len(labels) > 6 else ""
    return f"{len(missing)} of {len(asked)} runs missing; left out: {'; '.join(labels[:6])}{rest}."
