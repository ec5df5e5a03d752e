"""The two tables of a sweep: accuracy where source and target are the same task, and where they are not.

A row is one method (with the settings that the sweep varies within it), one source and one target, over all seeds.
`base` has no source and stands in both tables, once per target. An ablation has rows of its own, over its own seeds,
and is compared with nothing outside of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from harness.report.collect import Asked, AskedCell, Measurement, asked_by, measure_all, spec_of, table_of
from harness.report.effects import Relative
from harness.report.figures.by_format import Share, share_among
from harness.report.published import PublishedNumber, published_beside, read_published
from harness.report.rivals import weighed
from harness.report.stats import interval_rng, two_level_bootstrap
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

Table = Literal["same_task", "cross_task"]
TABLES: tuple[Table, ...] = ("same_task", "cross_task")

METHOD_ORDER = ("base", "sft", "grpo", "grpo_d")
"""As the paper's Table 1 grows; other methods follow in the sweep's order."""


class ByFormat(NamedTuple):
    """Accuracy by format, pooled over seeds.

    Attributes:
        in_format: Share of completions in the right format, in [0, 1].
        accuracy_in_format: Share of right answers among those.
        accuracy_otherwise: Among the others.
    """

    in_format: float
    accuracy_in_format: Share
    accuracy_otherwise: Share

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "in_format": self.in_format,
            "accuracy_in_format": self.accuracy_in_format._asdict(),
            "accuracy_otherwise": self.accuracy_otherwise._asdict(),
        }


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
        published: What others published of such a run; None where this installation has no published numbers.
        ablation: The settings that it ablates, by their short names; None for the sweep's main comparison.
        seeds: Of the completed runs, in their order.
        by_format: Of the completions in the right format and of the others; None where formats are not on record.
        improvements: By baseline that the row has, how far it is above it, relative to it.
        is_best: Whether it is above every other row of its table with the same source and target, beyond chance.
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
    published: tuple[PublishedNumber, ...] | None = ()
    ablation: str | None = None
    seeds: tuple[int, ...] = ()
    by_format: ByFormat | None = None
    improvements: Mapping[str, Relative] = field(default_factory=dict)
    is_best: bool = False

    def as_json(self) -> dict[str, Any]:
        """The row as ``harness tables --format json`` prints it; `published`, `ablation` only where there is one."""
        record: dict[str, Any] = {
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
            "is_best": self.is_best,
            "improvements": {name: gain._asdict() for name, gain in self.improvements.items()},
            "by_format": None if self.by_format is None else self.by_format.as_json(),
            "seeds": list(self.seeds),
            "run_ids": list(self.run_ids),
        }
        if self.published:
            record["published"] = [number.as_json() for number in self.published]
        if self.ablation is not None:
            record["ablation"] = self.ablation
        return record


@dataclass
class _Group:
    """The runs that one row is about."""

    table: Table
    method: str
    source: str | None
    target: str
    settings: dict[str, Any]
    ablation: str | None
    cells: dict[str, AskedCell] = field(default_factory=dict)


def build_tables(results_dir: str | Path, sweep: str | Path | Sweep) -> list[TableRow]:
    """The rows of both tables, in reading order.

    Every cell of the sweep has its row, also where nothing was measured. The same run folders give the same rows,
    intervals included. What others published stands beside a row, and is no part of its numbers.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    asked = asked_by(results_dir, sweep)
    return rows_of(results_dir, asked, measure_all(results_dir, asked))


def rows_of(
    results_dir: str | Path, asked: Asked, measured: Mapping[tuple[str, str], Measurement | None]
) -> list[TableRow]:
    """The rows of what was measured already; see :func:`build_tables`.

    Args:
        results_dir: The results folder.
        asked: The sweep's cells.
        measured: From :func:`harness.report.collect.measure_all`.
    """
    numbers = read_published()
    rows = []
    for group in _groups(asked):
        found = {run_id: measured[run_id, group.target] for run_id in group.cells}
        rows.append(_table_row(group, found, asked.evaluation, _published(results_dir, group, numbers)))
    return weighed(rows, measured)


def _published(
    results_dir: str | Path, group: _Group, numbers: Sequence[PublishedNumber] | None
) -> tuple[PublishedNumber, ...] | None:
    if numbers is None:
        return None
    spec = spec_of(results_dir, group.cells.values())
    return () if spec is None else published_beside(numbers, spec, group.target)


def missing_run_ids(rows: Iterable[TableRow]) -> list[str]:
    """The runs that the tables lack, each once, in reading order."""
    return list(dict.fromkeys(run_id for row in rows for run_id in row.missing_run_ids))


def _table_row(
    group: _Group,
    found: Mapping[str, Measurement | None],
    evaluation: Evaluation,
    published: tuple[PublishedNumber, ...] | None,
) -> TableRow:
    complete = {run_id: item for run_id, item in found.items() if item is not None}
    mean = low = high = None
    if complete:
        vectors = [item.correct for item in complete.values()]
        rng = interval_rng(group.target, *complete)
        mean, low, high = two_level_bootstrap(vectors, rng, over_seeds=group.source is not None)
    seeds = () if group.source is None else tuple(group.cells[run_id].seed for run_id in complete)
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
        num_examples=next((len(item.correct) for item in complete.values()), evaluation.num(evaluation.table_split)),
        split=evaluation.table_split,
        run_ids=tuple(complete),
        missing_run_ids=tuple(run_id for run_id in found if run_id not in complete),
        protocol=next((item.protocol for item in complete.values() if item.protocol is not None), None),
        published=published,
        ablation=group.ablation,
        seeds=seeds,
        by_format=_by_format(group.target, complete),
    )


def _by_format(target: str, complete: Mapping[str, Measurement]) -> ByFormat | None:
    forms = [item.formats for item in complete.values() if item.formats is not None]
    if not complete or len(forms) < len(complete):
        return None
    correct = [item.correct for item in complete.values()]
    return ByFormat(
        float(np.mean(forms)),
        share_among(correct, forms, interval_rng("in format", target, *complete)),
        share_among(correct, [~form for form in forms], interval_rng("otherwise", target, *complete)),
    )


_Key = tuple[str | None, Table, str, str, str | None, str]
"""Of a group: ablation, table, method, settings, source, target."""


def _groups(asked: Asked) -> list[_Group]:
    varying = _varying(asked.cells)
    groups: dict[_Key, _Group] = {}
    for cell in asked.cells:
        among = varying[cell.ablation, cell.method]
        settings = {key: value for key, value in cell.settings.items() if key in among}
        for target in cell.targets:
            place = table_of(cell.source, target)
            for table in TABLES if place == "both" else (place,):
                key = (cell.ablation, table, cell.method, _key(settings), cell.source, target)
                group = groups.setdefault(key, _Group(table, cell.method, cell.source, target, settings, cell.ablation))
                group.cells[cell.run_id] = cell
    return _in_reading_order(groups)


def _in_reading_order(groups: Mapping[_Key, _Group]) -> list[_Group]:
    """By ablation, none first, then as the key has it; what has no order of its own keeps the sweep's."""
    methods = list(dict.fromkeys([*METHOD_ORDER, *(key[2] for key in groups)]))
    ablated = list(dict.fromkeys([None, *(key[0] for key in groups)]))
    rest = (list(dict.fromkeys(key[i] for key in groups)) for i in (3, 4, 5))
    orders: list[Sequence[Any]] = [ablated, TABLES, methods, *rest]
    ranks = [{value: rank for rank, value in enumerate(order)} for order in orders]
    keys = sorted(groups, key=lambda key: [rank[part] for rank, part in zip(ranks, key, strict=True)])
    return [groups[key] for key in keys]


def _varying(cells: Iterable[AskedCell]) -> dict[tuple[str | None, str], set[str]]:
    """By ablation and method, the settings that tell its cells apart; one that some cells lack is one of them."""
    by_method: dict[tuple[str | None, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        by_method.setdefault((cell.ablation, cell.method), []).append(cell.settings)
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
