"""The tables of a sweep as grids of text: a line per method and settings, a group of columns per source -> target.

Accuracies come first, then relative improvements, then accuracy by format. With more than two tasks, what would be a
group of columns for every source and target is a matrix: a line per source, a group of columns per target.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.effects import Relative
from harness.report.figures.by_format import Share
from harness.report.published import WORKS, published_note
from harness.report.rivals import BASELINES
from harness.report.stats import LEVEL, MIN_SEEDS, NUM_RESAMPLES
from harness.report.tables import TABLES, Table, TableRow

DASH = "-"

TITLES: Mapping[Table, str] = {
    "same_task": "Same task: evaluated on the task it was trained on",
    "cross_task": "Cross task: evaluated on another task than it was trained on",
}
_MAX_PAIRS = 3
"""Of a cross-task table side by side; two tasks make two."""

Pair = tuple[str | None, str]


@dataclass(frozen=True)
class Grid:
    """One table, ready to be drawn.

    Attributes:
        title: What it shows.
        stub_heads: Heads of the leading columns: the method, then the settings that vary.
        stubs: Per line, the leading columns' text.
        heads: Heads of every pair's columns.
        pairs: Each pair's title, such as ``"counting -> counting"``.
        cells: ``[line][pair][column]``.
        best: ``[line][pair]``, whether the first column holds the best of its pair, beyond chance.
    """

    title: str
    stub_heads: list[str]
    stubs: list[list[str]]
    heads: list[str]
    pairs: list[str]
    cells: list[list[list[str]]]
    best: list[list[bool]]


@dataclass(frozen=True)
class _Columns:
    """What stands in the columns of every pair."""

    heads: list[str]
    of_row: Callable[[TableRow], list[str]]
    marks_best: bool = False


@dataclass(frozen=True)
class _Part:
    """The rows of one accuracy table; `name` is short for other tables of the same rows."""

    name: str
    title: str
    rows: Sequence[TableRow]
    is_matrix: bool = False


def grids(rows: Sequence[TableRow]) -> list[Grid]:
    """The tables that have something to compare: a cross-task table of `base` alone has not."""
    if not rows:
        return []
    parts = _parts(rows)
    drawn = [_grid(part, _accuracies(part.rows)) for part in parts]
    for part in parts:
        compared = [row for row in part.rows if row.improvements]
        if compared:
            title = f"{part.name}: relative improvement"
            drawn.append(_grid(replace(part, title=title, rows=compared), _gains(compared)))
    for part in parts:
        formed = [row for row in part.rows if row.by_format is not None and row.ablation is None]
        if formed and len(formed) == sum(row.mean is not None for row in part.rows):
            drawn.append(_grid(replace(part, title=f"{part.name}: accuracy by format", rows=formed), _FORMATS))
    return drawn


def _parts(rows: Sequence[TableRow]) -> list[_Part]:
    """The main tables, then the ablations'."""
    main = [row for row in rows if row.ablation is None]
    by_table = {table: [row for row in main if row.table == table] for table in TABLES}
    cross = {(row.source, row.target) for row in by_table["cross_task"] if row.source is not None}
    parts = []
    if len(cross) > _MAX_PAIRS:
        # `base` stands in both tables with the same numbers.
        whole = [*by_table["same_task"], *(row for row in by_table["cross_task"] if row.source is not None)]
        parts.append(_Part("All tasks", "All tasks: trained on the line's, evaluated on the column's", whole, True))
    else:
        for table, of in by_table.items():
            if any(row.source is not None for row in of):
                parts.append(_Part(TITLES[table].partition(":")[0], TITLES[table], of))
    for name in dict.fromkeys(row.ablation for row in rows if row.ablation is not None):
        own = [row for row in rows if row.ablation == name]
        base = [row for row in by_table["same_task"] if row.source is None and row.target in {r.target for r in own}]
        parts.append(_Part(f"Ablation of {name}", f"Ablation of {name}", [*base, *own]))
    return parts or [_Part("Same task", TITLES["same_task"], by_table["same_task"])]


def _grid(part: _Part, columns: _Columns) -> Grid:
    rows = part.rows
    lines: dict[str, list[TableRow]] = {}
    for row in rows:
        key = [row.method, dict(row.settings), row.source if part.is_matrix else None]
        lines.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(row)
    pairs: list[Pair] = list(dict.fromkeys((row.source, row.target) for row in rows if row.source is not None))
    if part.is_matrix or not pairs:
        pairs = list(dict.fromkeys((None, row.target) for row in rows))
    axes = list(dict.fromkeys(key for row in rows for key in row.settings))
    found = [[_at(pair, of_line) for pair in pairs] for of_line in lines.values()]
    empty = ["" for _ in columns.heads]
    grid = Grid(
        title=part.title,
        stub_heads=["method", *_short(axes)],
        stubs=[[of[0].method, *_settings(of[0].settings, axes)] for of in lines.values()],
        heads=columns.heads,
        pairs=[target if source is None else f"{source} -> {target}" for source, target in pairs],
        cells=[[empty if row is None else columns.of_row(row) for row in line] for line in found],
        best=[[columns.marks_best and row is not None and row.is_best for row in line] for line in found],
    )
    if not part.is_matrix:
        return grid
    stubs = [[*stub, of[0].source or ""] for stub, of in zip(grid.stubs, lines.values(), strict=True)]
    return replace(grid, stub_heads=[*grid.stub_heads, "trained on"], stubs=stubs)


def _at(pair: Pair, rows: Iterable[TableRow]) -> TableRow | None:
    """The line's row for a pair; `base` answers for every source, and a line of a matrix has one."""
    source, target = pair
    return next(
        (row for row in rows if row.target == target and (source is None or row.source in (None, source))), None
    )


def _accuracies(rows: Sequence[TableRow]) -> _Columns:
    works = [work for work in WORKS if any(number.work == work for row in rows for number in row.published or ())]

    def of_row(row: TableRow) -> list[str]:
        asked = row.num_seeds + len(row.missing_run_ids)
        count = f"{row.num_seeds}" if asked == row.num_seeds else f"{row.num_seeds}/{asked}"
        return [_percent(row.mean, row.ci_low, row.ci_high), count, *(_published(row, work) for work in works)]

    return _Columns(["accuracy", "n", *(WORKS[work][0] for work in works)], of_row, marks_best=True)


def _gains(rows: Sequence[TableRow]) -> _Columns:
    names = [name for name in BASELINES if any(name in row.improvements for row in rows)]
    nothing = Relative(None, None, None)

    def of_row(row: TableRow) -> list[str]:
        return [_gain(row.improvements.get(name, nothing)) for name in names]

    return _Columns([f"vs {name}" for name in names], of_row)


def _by_format(row: TableRow) -> list[str]:
    if row.by_format is None:
        return [DASH, DASH, DASH]
    in_format, right, otherwise = row.by_format
    return [_percent(in_format), _share(right), _share(otherwise)]


_FORMATS = _Columns(["in format", "right of those", "right of others"], _by_format)


def _share(share: Share) -> str:
    return _percent(share.share, share.low, share.high)


def _percent(mean: float | None, low: float | None = None, high: float | None = None) -> str:
    if mean is None:
        return DASH
    text = f"{100 * mean:.1f}"
    return text if low is None or high is None else f"{text} [{100 * low:.1f}, {100 * high:.1f}]"


def _gain(gain: Relative) -> str:
    if gain.mean is None:
        return DASH
    text = f"{100 * gain.mean:+.1f} %"
    return text if gain.low is None or gain.high is None else f"{text} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"


def _published(row: TableRow, work: str) -> str:
    """What a work has for a row."""
    found = next((number for number in row.published or () if number.work == work), None)
    return DASH if found is None else found.shown


def _short(axes: Sequence[str]) -> list[str]:
    """Axis keys by their last part, where that tells them apart."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return [short if last.count(short) == 1 else axis for short, axis in zip(last, axes, strict=True)]


def _settings(settings: Mapping[str, Any], axes: Sequence[str]) -> list[str]:
    return [_value(settings[axis]) if axis in settings else "" for axis in axes]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={_value(item)}" for key, item in value.items() if key != "type")
        return f"{value.get('type', '')}({rest})" if rest else str(value.get("type", ""))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def notes(rows: Sequence[TableRow]) -> list[str]:
    """What a reader must know of the numbers: examples, interval, comparison, protocols."""
    if not rows:
        return ["The sweep asks for no accuracy."]
    counts = {row.target: row.num_examples for row in rows if row.mean is not None} or {"": rows[0].num_examples}
    what = f"first {max(counts.values())} {rows[0].split} examples of each target"
    if len(set(counts.values())) > 1:
        sizes = ", ".join(f"{count} for {target}" for target, count in counts.items())
        what = f"first {rows[0].split} examples of each target ({sizes})"
    protocols = dict.fromkeys((row.target for row in rows), "none on record")
    protocols |= {row.target: row.protocol for row in rows if row.protocol is not None}
    lines = [
        f"Accuracy in % of the {what}, mean over n seeds. In brackets the {100 * LEVEL:g} % bootstrap interval over "
        f"seeds and examples ({NUM_RESAMPLES} resamples; all seeds share the examples); none with fewer than "
        f"{MIN_SEEDS} seeds. base has no seed: its interval is over examples."
    ]
    if any(row.is_best for row in rows):
        lines.append(
            "Marked as the best: above every other of its column, each difference with its "
            f"{100 * LEVEL:g} % interval above 0 and as sure by a t test over seeds."
        )
    baselines = [name for name in BASELINES if any(name in row.improvements for row in rows)]
    if baselines:
        lines.append(f"Relative improvement of the mean over {_listed(baselines)}: same source, same target.")
    if any(row.by_format is not None for row in rows):
        lines.append(
            "By format: share of completions in the right format, and of right answers among those and others."
        )
    if any(row.ablation is not None for row in rows):
        lines.append("An ablation is over its own seeds, and is compared with nothing outside of its table.")
    lines.append("A dash stands for what is missing or has nothing to be compared with.")
    if any(row.missing_run_ids for row in rows):
        lines[-1] += " An n such as 2/3: 2 of 3 runs are complete."
    lines.append("Protocols: " + ", ".join(f"{name} for {target}" for target, name in protocols.items()) + ".")
    lines += _published_notes(rows)
    lines.append("The runs behind a number: --explain METHOD/SOURCE/TARGET; behind each: --format json.")
    return lines


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _published_notes(rows: Sequence[TableRow]) -> list[str]:
    if any(row.published is None for row in rows):
        return ["Published numbers are no part of this installation; a clone of the repository has them."]
    note = published_note(number for row in rows for number in row.published or ())
    return [note] if note else []
