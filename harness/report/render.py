"""Tables as text, markdown, LaTeX, CSV and JSON.

Text, markdown and LaTeX share the grids of :mod:`harness.report.grids`. CSV and JSON hold one record per accuracy and
nothing rounded. Nothing depends on a terminal, so a pipe sees every letter.
"""

from __future__ import annotations

import csv
import io
import json
import textwrap
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Literal

from harness.errors import UserError, nearest
from harness.report.flat import COLUMNS, flat_records
from harness.report.grids import DASH, Grid, grids, notes
from harness.report.tables import TableRow

Format = Literal["text", "markdown", "csv", "latex", "json"]
FORMATS: tuple[Format, ...] = ("text", "markdown", "csv", "latex", "json")

WIDTH = 110
"""Columns of a text table; pairs that do not fit side by side go below each other."""


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


def _aligned(texts: Sequence[str], *, by_point: bool) -> list[str]:
    """One column's texts padded to one width: accuracies by their decimal point, the rest to the right."""
    if by_point:
        head, *body = texts
        point = max((text.find(".") if "." in text else len(text) for text in body), default=0)
        body = [" " * (point - (text.find(".") if "." in text else len(text))) + text for text in body]
        texts = [head, *body]
    width = max(len(text) for text in texts)
    return [text.ljust(width) if by_point else text.rjust(width) for text in texts]


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
    cells = [_marked(cells[index], best[index], "{} *") for cells, best in zip(grid.cells, grid.best, strict=True)]
    columns = [
        _aligned([head, *(line[column] for line in cells)], by_point=head != "n")
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
    lines = [
        [*stub, *chain.from_iterable(_marked(cells, best, "**{}**") for cells, best in zip(*of_line, strict=True))]
        for stub, *of_line in zip(grid.stubs, grid.cells, grid.best, strict=True)
    ]
    head, *body = ([part.replace("|", "\\|") for part in line] for line in ([*grid.stub_heads, *of_pairs], *lines))
    return "\n".join([f"**{grid.title}**", "", *("| " + " | ".join(line) + " |" for line in (head, rule, *body))])


def _marked(cells: Sequence[str], is_best: bool, mark: str) -> list[str]:
    """A pair's cells; the first one, an accuracy, in `mark` where it is the best."""
    return [mark.format(cells[0]), *cells[1:]] if is_best else list(cells)


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


def _latex_pair(cells: Sequence[str], is_best: bool) -> list[str]:
    first, *rest = map(_latex_cell, cells)
    return [rf"\textbf{{{first}}}" if is_best else first, *rest]


def _latex(grid: Grid, footnote: Sequence[str]) -> str:
    stub, span = len(grid.stub_heads), len(grid.heads)
    starts = [stub + 1 + index * span for index in range(len(grid.pairs))]
    pairs = " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{_latex_text(pair)}}}" for pair in grid.pairs)
    rules = " ".join(rf"\cmidrule(lr){{{start}-{start + span - 1}}}" for start in starts)
    heads = [*grid.stub_heads, *(grid.heads * len(grid.pairs))]
    lines = [
        [*map(_latex_cell, stub), *chain.from_iterable(_latex_pair(*of_pair) for of_pair in zip(*of_line, strict=True))]
        for stub, *of_line in zip(grid.stubs, grid.cells, grid.best, strict=True)
    ]
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
            *(" & ".join(line) + r" \\" for line in lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip\footnotesize " + _latex_text(" ".join(footnote)),
            r"\end{table}",
        ]
    )


def _csv(rows: Sequence[TableRow]) -> str:
    """One line per accuracy, nothing for None."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat_records(rows))
    return stream.getvalue().rstrip("\n")
