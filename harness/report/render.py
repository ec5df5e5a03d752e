"""Tables as text, markdown, LaTeX, CSV and JSON.

Text, markdown and LaTeX share one grid: a line per method and settings, a group of columns per source -> target. CSV
and JSON hold one record per accuracy and nothing rounded. Nothing depends on a terminal, so a pipe sees every letter.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

from harness.errors import UserError, nearest
from harness.report.stats import LEVEL, MIN_SEEDS, NUM_RESAMPLES
from harness.report.tables import BASELINES, TABLES, Table, TableRow, baseline_of, improvement_over

Format = Literal["text", "markdown", "csv", "latex", "json"]
FORMATS: tuple[Format, ...] = ("text", "markdown", "csv", "latex", "json")

DASH = "-"
WIDTH = 110
"""Columns of a text table; pairs that do not fit side by side go below each other."""

TITLES: Mapping[Table, str] = {
    "same_task": "Same task: evaluated on the task it was trained on",
    "cross_task": "Cross task: evaluated on another task than it was trained on",
}

Pair = tuple[str | None, str]


@dataclass(frozen=True)
class Grid:
    """One table, ready to be drawn.

    Attributes:
        title: What it shows.
        stub_heads: Heads of the leading columns: the method, then the settings that vary.
        stubs: Per line, the leading columns' text.
        heads: Heads of every pair's columns.
        pairs: Each pair's title, such as ``"counting -> geometry"``.
        cells: ``[line][pair][column]``.
    """

    title: str
    stub_heads: list[str]
    stubs: list[list[str]]
    heads: list[str]
    pairs: list[str]
    cells: list[list[list[str]]]


def render_tables(rows: Sequence[TableRow], form: str = "text", *, width: int = WIDTH) -> str:
    """The tables in one of :data:`FORMATS`, without a line break at the end.

    Args:
        rows: From :func:`harness.report.tables.build_tables`.
        form: ``"text"``, ``"markdown"``, ``"csv"``, ``"latex"`` or ``"json"``.
        width: Columns of text.

    Raises:
        UserError: There is no such format.
    """
    match form:
        case "json":
            return json.dumps([row.as_json() for row in rows], indent=2)
        case "csv":
            return _csv(rows)
        case "text":
            drawn = [_text(grid, width) for grid in grids(rows)]
            return "\n\n".join([*drawn, "\n".join(_wrapped(notes(rows), width))])
        case "markdown":
            return "\n\n".join([*(_markdown(grid) for grid in grids(rows)), *notes(rows)])
        case "latex":
            return "\n\n".join(_latex(grid, notes(rows)) for grid in grids(rows))
    raise UserError(f"unknown table format '{form}': {nearest(form, FORMATS)}")


def grids(rows: Sequence[TableRow]) -> list[Grid]:
    """The tables that have something to compare; a cross-task table of `base` alone has not."""
    drawn = [_grid(table, rows) for table in TABLES if any(r.table == table and r.source is not None for r in rows)]
    return drawn or ([_grid("same_task", rows)] if rows else [])


def notes(rows: Sequence[TableRow]) -> list[str]:
    """What a reader must know of the numbers: examples, interval, comparison, protocols."""
    if not rows:
        return ["The sweep asks for no accuracy."]
    num_examples = rows[0].num_examples
    protocols = dict.fromkeys((row.target for row in rows), "none on record")
    protocols |= {row.target: row.protocol for row in rows if row.protocol is not None}
    baselines = " and ".join(_comparable(rows))
    lines = [
        f"Accuracy in % of the first {num_examples} {rows[0].split} examples of each target, mean over n seeds. In "
        f"brackets the {100 * LEVEL:g} % bootstrap interval over seeds and examples ({NUM_RESAMPLES} resamples; all "
        f"seeds share the examples); none with fewer than {MIN_SEEDS} seeds. base has no seed: its interval is over "
        "examples."
    ]
    if baselines:
        lines.append(f"Relative improvement of the mean over {baselines}: same source, same target.")
    lines.append("A dash stands for what is missing or has nothing to be compared with.")
    if any(row.missing_run_ids for row in rows):
        lines[-1] += " An n such as 2/3: 2 of 3 runs are complete."
    lines.append("Protocols: " + ", ".join(f"{name} for {target}" for target, name in protocols.items()) + ".")
    lines.append("The run ids behind each number: --format json.")
    return lines


def _grid(table: Table, all_rows: Sequence[TableRow]) -> Grid:
    rows = [row for row in all_rows if row.table == table]
    trained: list[Pair] = list(dict.fromkeys((row.source, row.target) for row in rows if row.source is not None))
    pairs = trained or list(dict.fromkeys((None, row.target) for row in rows))
    axes = list(dict.fromkeys(key for row in rows for key in row.settings))
    baselines = _comparable(rows)
    lines: dict[str, list[TableRow]] = {}
    for row in rows:
        lines.setdefault(json.dumps([row.method, dict(row.settings)], sort_keys=True, default=str), []).append(row)
    stubs, cells = [], []
    for of_line in lines.values():
        settings = of_line[0].settings
        stubs.append([of_line[0].method, *(_value(settings[axis]) if axis in settings else "" for axis in axes)])
        cells.append([_cells(_at(pair, of_line), baselines, rows) for pair in pairs])
    return Grid(
        title=TITLES[table],
        stub_heads=["method", *_short(axes)],
        stubs=stubs,
        heads=["accuracy", "n", *(f"vs {name}" for name in baselines)],
        pairs=[target if source is None else f"{source} -> {target}" for source, target in pairs],
        cells=cells,
    )


def _comparable(rows: Sequence[TableRow]) -> list[str]:
    """The baselines that some row can be compared with; several rows of one baseline are nobody's baseline."""
    return [name for name in BASELINES if any(baseline_of(row, name, rows) is not None for row in rows)]


def _at(pair: Pair, rows: Iterable[TableRow]) -> TableRow | None:
    """The line's row for a pair; `base` answers for every source."""
    source, target = pair
    return next((row for row in rows if row.target == target and row.source in (None, source)), None)


def _cells(row: TableRow | None, baselines: Sequence[str], rows: Sequence[TableRow]) -> list[str]:
    if row is None:
        return ["", "", *("" for _ in baselines)]
    asked = row.num_seeds + len(row.missing_run_ids)
    count = f"{row.num_seeds}" if asked == row.num_seeds else f"{row.num_seeds}/{asked}"
    gains = (improvement_over(row, name, rows) for name in baselines)
    return [_accuracy(row), count, *(DASH if gain is None else f"{100 * gain:+.1f} %" for gain in gains)]


def _accuracy(row: TableRow) -> str:
    if row.mean is None:
        return DASH
    mean = f"{100 * row.mean:.1f}"
    if row.ci_low is None or row.ci_high is None:
        return mean
    return f"{mean} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"


def _short(axes: Sequence[str]) -> list[str]:
    """Axis keys by their last part, where that tells them apart."""
    last = [axis.rpartition(".")[2] for axis in axes]
    return [short if last.count(short) == 1 else axis for short, axis in zip(last, axes, strict=True)]


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key}={_value(item)}" for key, item in value.items() if key != "type")
        return f"{value.get('type', '')}({rest})" if rest else str(value.get("type", ""))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)


def _aligned(texts: Sequence[str], column: int) -> list[str]:
    """One column's texts padded to one width: accuracies by their decimal point, the rest to the right."""
    if column == 0:
        head, *body = texts
        point = max((text.find(".") if "." in text else len(text) for text in body), default=0)
        body = [" " * (point - (text.find(".") if "." in text else len(text))) + text for text in body]
        texts = [head, *body]
    width = max(len(text) for text in texts)
    return [text.ljust(width) if column == 0 else text.rjust(width) for text in texts]


def _text(grid: Grid, width: int) -> str:
    stub = _stub_block(grid)
    blocks = [_pair_block(grid, index) for index in range(len(grid.pairs))]
    stacks: list[list[list[str]]] = []
    used = width + 1
    for block in blocks:
        if used + 3 + len(block[0]) > width:
            stacks.append([stub])
            used = len(stub[0])
        stacks[-1].append(block)
        used += 3 + len(block[0])
    drawn = ["\n".join("   ".join(parts).rstrip() for parts in zip(*stack, strict=True)) for stack in stacks]
    return "\n\n".join([grid.title, *drawn])


def _stub_block(grid: Grid) -> list[str]:
    columns = [[head, *texts] for head, texts in zip(grid.stub_heads, zip(*grid.stubs, strict=True), strict=True)]
    padded = [[text.ljust(max(map(len, column))) for text in column] for column in columns]
    head, *body = ("  ".join(parts) for parts in zip(*padded, strict=True))
    return [" " * len(head), head, "-" * len(head), *body]


def _pair_block(grid: Grid, index: int) -> list[str]:
    columns = [
        _aligned([head, *(line[index][column] for line in grid.cells)], column)
        for column, head in enumerate(grid.heads)
    ]
    lines = ["  ".join(parts) for parts in zip(*columns, strict=True)]
    width = max(len(lines[0]), len(grid.pairs[index]))
    head, *body = (line.ljust(width) for line in lines)
    return [grid.pairs[index].ljust(width), head, "-" * width, *body]


def _wrapped(lines: Iterable[str], width: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, width, subsequent_indent="  ")]


def _markdown(grid: Grid) -> str:
    of_pairs = [part for pair in grid.pairs for part in (f"{pair}: {grid.heads[0]}", *grid.heads[1:])]
    rule = ["---"] * len(grid.stub_heads) + ["---:"] * len(of_pairs)
    head, *body = (
        [part.replace("|", "\\|") for part in line] for line in ([*grid.stub_heads, *of_pairs], *_lines(grid))
    )
    return "\n".join([f"**{grid.title}**", "", *("| " + " | ".join(line) + " |" for line in (head, rule, *body))])


def _lines(grid: Grid) -> list[list[str]]:
    """Every line's texts, leading columns first."""
    return [[*stub, *chain.from_iterable(cells)] for stub, cells in zip(grid.stubs, grid.cells, strict=True)]


_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
})  # fmt: skip


def _latex_text(text: str) -> str:
    # Two hyphens in a row would be set as one long dash.
    return text.translate(_LATEX).replace("->", r"$\to$").replace("--", "-{}-")


def _latex_cell(text: str) -> str:
    """A dash as a long one, and a sign as mathematics sets it."""
    if text == DASH:
        return "--"
    return f"${text[0]}${_latex_text(text[1:])}" if text[:1] in ("+", "-") else _latex_text(text)


def _latex(grid: Grid, lines: Sequence[str]) -> str:
    stub, span = len(grid.stub_heads), len(grid.heads)
    starts = [stub + 1 + index * span for index in range(len(grid.pairs))]
    pairs = " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{_latex_text(pair)}}}" for pair in grid.pairs)
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + span - 1}}}" for start in starts)
    heads = [*grid.stub_heads, *(grid.heads * len(grid.pairs))]
    return "\n".join(
        [
            "% needs the booktabs package",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_latex_text(grid.title)}.}}",
            rf"\begin{{tabular}}{{{'l' * stub}{'r' * (span * len(grid.pairs))}}}",
            r"\toprule",
            " & " * stub + pairs + r" \\",
            rules,
            " & ".join(map(_latex_text, heads)) + r" \\",
            r"\midrule",
            *(" & ".join(map(_latex_cell, line)) + r" \\" for line in _lines(grid)),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize " + _latex_text(" ".join(lines)),
            r"\end{table}",
        ]
    )


def _csv(rows: Sequence[TableRow]) -> str:
    """One line per accuracy; settings as JSON, run ids separated by blanks, a missing number as nothing."""
    stream = io.StringIO()
    heads = ["table", "method", "source", "target", "settings", "mean", "ci_low", "ci_high", "num_seeds", "num_missing"]
    heads += ["num_examples", "split", *(f"improvement_over_{name}" for name in BASELINES), "protocol", "run_ids"]
    writer = csv.DictWriter(stream, heads, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        record = row.as_json() | {"num_missing": len(row.missing_run_ids), "protocol": row.protocol}
        record |= {f"improvement_over_{name}": improvement_over(row, name, rows) for name in BASELINES}
        record["settings"] = json.dumps(record["settings"], default=str)
        record["run_ids"] = " ".join(row.run_ids)
        writer.writerow(record)
    return stream.getvalue().rstrip("\n")
