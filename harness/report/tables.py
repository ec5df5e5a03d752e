"""The two tables of a sweep: accuracy where source and target are the same task, and where they are not.

A row is one method (with the settings that the sweep varies within it), one source and one target, over all seeds.
`base` has no source and stands in both tables, once per target.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.report.collect import Asked, AskedCell, Measurement, asked_by, measure, table_of
from harness.report.stats import interval_rng, relative_improvement, two_level_bootstrap
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

Table = Literal["same_task", "cross_task"]
TABLES: tuple[Table, ...] = ("same_task", "cross_task")

METHOD_ORDER = ("base", "sft", "grpo", "grpo_d")
"""As the paper's Table 1 grows; other methods follow in the sweep's order."""

BASELINES = ("sft", "grpo")
"""The methods that relative improvements are stated over."""


@dataclass(frozen=True)
class TableRow:
    """One accuracy of a table.

    Attributes:
        table: The table it stands in.
        method: The method's type.
        source: The task trained on; None for `base`.
        target: The task evaluated on.
        settings: The values of the sweep's other axes, where they vary within this method.
        mean: Accuracy in [0, 1], mean over seeds; None where no run is complete.
        ci_low: Lower bound of the 95 % interval; None with fewer than three seeds.
        ci_high: Upper bound.
        num_seeds: Completed runs behind the mean.
        num_examples: Examples per run.
        split: What they are of: `test`, or `validation` in a search.
        run_ids: The completed runs.
        missing_run_ids: The runs that the sweep asks for and that are not complete here.
        protocol: The evaluation rule; None where nothing was evaluated.
    """

    table: Table
    method: str
    source: str | None
    target: str
    settings: Mapping[str, Any]
    mean: float | None
    ci_low: float | None
    ci_high: float | None
    num_seeds: int
    num_examples: int
    split: Split
    run_ids: tuple[str, ...]
    missing_run_ids: tuple[str, ...]
    protocol: str | None

    def as_json(self) -> dict[str, Any]:
        """The row as ``harness tables --format json`` prints it."""
        return {
            "table": self.table,
            "method": self.method,
            "source": self.source,
            "target": self.target,
            "settings": dict(self.settings),
            "mean": self.mean,
            "ci_low": self.ci_low,
            "ci_high": self.ci_high,
            "num_seeds": self.num_seeds,
            "num_examples": self.num_examples,
            "split": self.split,
            "run_ids": list(self.run_ids),
        }


@dataclass
class _Group:
    """The runs that one row is about."""

    table: Table
    method: str
    source: str | None
    target: str
    settings: dict[str, Any]
    run_ids: dict[str, None] = field(default_factory=dict)


def build_tables(results_dir: str | Path, sweep: str | Path | Sweep) -> list[TableRow]:
    """The rows of both tables, in reading order.

    Every cell of the sweep has its row, also where nothing was measured. The same run folders give the same rows,
    intervals included.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep.
        DataError: A run folder whose files contradict each other.
    """
    asked = asked_by(results_dir, sweep)
    measured: dict[tuple[str, str], Measurement | None] = {}
    rows = []
    for group in _groups(asked):
        for run_id in group.run_ids:
            if (run_id, group.target) not in measured:
                measured[run_id, group.target] = measure(results_dir, run_id, group.target, asked.evaluation)
        found = {run_id: measured[run_id, group.target] for run_id in group.run_ids}
        rows.append(_table_row(group, found, asked.evaluation))
    return rows


def missing_run_ids(rows: Iterable[TableRow]) -> list[str]:
    """The runs that the tables lack, each once, in reading order."""
    return list(dict.fromkeys(run_id for row in rows for run_id in row.missing_run_ids))


def baseline_of(row: TableRow, baseline: str, rows: Iterable[TableRow]) -> TableRow | None:
    """The row of another method that a row is compared with: the same source and target.

    Where the baseline has settings of its own, the one that agrees on every setting that both have is meant.

    Args:
        row: Any row.
        baseline: A method's type.
        rows: The rows of both tables.

    Returns:
        None for the baseline itself, for `base`, and where no baseline or several would fit.
    """
    if row.method == baseline or row.source is None:
        return None
    place = (row.table, row.source, row.target)
    fitting = [
        other
        for other in rows
        if other.method == baseline
        and (other.table, other.source, other.target) == place
        and all(other.settings[key] == value for key, value in row.settings.items() if key in other.settings)
    ]
    return fitting[0] if len(fitting) == 1 else None


def improvement_over(row: TableRow, baseline: str, rows: Iterable[TableRow]) -> float | None:
    """A row's relative improvement over :func:`baseline_of`, as a fraction: 0.1 for ten percent.

    Returns:
        None where there is no such baseline, or where either accuracy is missing or the baseline's is 0.
    """
    other = baseline_of(row, baseline, rows)
    return None if other is None else relative_improvement(row.mean, other.mean)


def _table_row(group: _Group, found: Mapping[str, Measurement | None], evaluation: Evaluation) -> TableRow:
    complete = {run_id: item for run_id, item in found.items() if item is not None}
    mean = low = high = None
    if complete:
        vectors = [item.correct for item in complete.values()]
        rng = interval_rng(group.target, *complete)
        mean, low, high = two_level_bootstrap(vectors, rng, over_seeds=group.source is not None)
    return TableRow(
        table=group.table,
        method=group.method,
        source=group.source,
        target=group.target,
        settings=group.settings,
        mean=mean,
        ci_low=low,
        ci_high=high,
        num_seeds=len(complete),
        num_examples=evaluation.num(evaluation.table_split),
        split=evaluation.table_split,
        run_ids=tuple(complete),
        missing_run_ids=tuple(run_id for run_id in found if run_id not in complete),
        protocol=next((item.protocol for item in complete.values() if item.protocol is not None), None),
    )


def _groups(asked: Asked) -> list[_Group]:
    varying = _varying(asked.cells)
    groups: dict[tuple[Table, str, str, str | None, str], _Group] = {}
    for cell in asked.cells:
        settings = {key: value for key, value in cell.settings.items() if key in varying[cell.method]}
        for target in cell.targets:
            place = table_of(cell.source, target)
            for table in TABLES if place == "both" else (place,):
                key = (table, cell.method, _key(settings), cell.source, target)
                group = groups.setdefault(key, _Group(table, cell.method, cell.source, target, settings))
                group.run_ids[cell.run_id] = None
    return _in_reading_order(groups)


def _in_reading_order(groups: Mapping[tuple[Table, str, str, str | None, str], _Group]) -> list[_Group]:
    """By table, method, settings, source and target; what has no order of its own keeps the sweep's."""
    methods = list(dict.fromkeys([*METHOD_ORDER, *(key[1] for key in groups)]))
    orders: list[Sequence[Any]] = [TABLES, methods, *(list(dict.fromkeys(key[i] for key in groups)) for i in (2, 3, 4))]
    ranks = [{value: rank for rank, value in enumerate(order)} for order in orders]
    keys = sorted(groups, key=lambda key: [rank[part] for rank, part in zip(ranks, key, strict=True)])
    return [groups[key] for key in keys]


def _varying(cells: Iterable[AskedCell]) -> dict[str, set[str]]:
    """By method, the settings that tell its cells apart; a setting that some cells lack is one of them."""
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_method.setdefault(cell.method, []).append(cell.settings)
    return {
        method: {
            key
            for key in {key for settings in of_method for key in settings}
            if len({_key(settings[key]) if key in settings else None for settings in of_method}) > 1
        }
        for method, of_method in by_method.items()
    }


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
