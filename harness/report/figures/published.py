"""How what others published looks in figures: marks without intervals, and columns of its own in the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from harness.report.figures.style import ORANGE
from harness.report.published import DERIVED, KINDS, WORKS, PublishedNumber, published_note

_MARKS = (("D", "diamond"), ("X", "cross"), ("P", "plus"), ("*", "star"))
MARKS: Mapping[str, tuple[str, str]] = {
    head: _MARKS[at % len(_MARKS)] for at, (head, _citation) in enumerate(WORKS.values())
}
"""By the head of a work, matplotlib's marker and the word for it."""


def published_columns(numbers: Iterable[PublishedNumber]) -> dict[str, Any]:
    """Published accuracies as columns: under the head of each work, in %, and whether direct or derived."""
    columns: dict[str, Any] = {}
    for number in numbers:
        columns |= {number.head: number.value, f"{number.head}_kind": number.kind}
    return columns


def shown_in(row: Mapping[Any, Any]) -> list[tuple[str, float, bool]]:
    """The heads, values and whether derived of a row with :func:`published_columns`."""
    return [
        (head, float(row[head]), row[f"{head}_kind"] != KINDS[0])
        for head in MARKS
        if head in row and pd.notna(row[head])
    ]


def draw_mark(axes: Axes, head: str, x: Any, y: Any, *, is_filled: bool = True, label: str | None = None) -> None:
    """Draws a work's mark at one place or at several."""
    axes.plot(
        x,
        y,
        color=ORANGE,
        linestyle="none",
        marker=MARKS[head][0],
        markerfacecolor=ORANGE if is_filled else "white",
        markeredgecolor="#222222",
        markeredgewidth=0.5,
        zorder=3,
        label=label,
    )


def mark_label(head: str, target: str, *, is_derived: bool) -> str:
    """A work's entry in a legend."""
    return f"{head}, {target}{f' {DERIVED}' if is_derived else ''}"


def marks_note(numbers: Iterable[PublishedNumber]) -> str:
    """The footnote of a figure with marks; empty where there is none."""
    return published_note(numbers, {head: word for head, (_marker, word) in MARKS.items()})
