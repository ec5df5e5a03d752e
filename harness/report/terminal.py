"""Columns and curves in plain letters, the same on a terminal and in a pipe."""

from __future__ import annotations

import math
from collections.abc import Sequence

_BLANK = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Unicode's braille patterns: the bit of each dot, four rows of two."""


def columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = (), indent: str = "  ") -> list[str]:
    """Rows as lines with aligned columns, two blanks apart.

    Args:
        rows: All of one length, heads included.
        right: The columns that are set to the right.
        indent: Before each line.
    """
    if not rows:
        return []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = zip(range(len(row)), row, widths, strict=True)
        lines.append(
            indent + "  ".join(text.rjust(w) if n in right else text.ljust(w) for n, text, w in cells).rstrip()
        )
    return lines


def braille(values: Sequence[float], *, width: int, height: int) -> list[str]:
    """A curve of braille letters, each two dots wide and four high.

    A column of dots shows the mean of its values, or one of fewer values again, and is joined to the one before. Steps
    without a finite value leave a gap; a curve that does not vary lies in the middle.

    Args:
        values: One per step, in order.
        width: Letters of each line.
        height: Lines.

    Returns:
        `height` lines from top to bottom; blank where no value is finite.
    """
    binned = _binned(values, 2 * width)
    finite = [value for value in binned if math.isfinite(value)]
    letters = [[_BLANK] * width for _ in range(height)]
    if finite:
        low, high = min(finite), max(finite)
        last = 4 * height - 1
        before: int | None = None
        for x, value in enumerate(binned):
            if not math.isfinite(value):
                before = None
                continue
            level = last // 2 if high == low else round((value - low) / (high - low) * last)
            # From the neighbour's level on, so that a steep curve is not a cloud of dots.
            start = level if before is None else before + (level > before) - (level < before)
            for y in range(min(start, level), max(start, level) + 1):
                row, dot = divmod(last - y, 4)
                letters[row][x // 2] |= _DOTS[dot][x % 2]
            before = level
    return ["".join(map(chr, line)) for line in letters]


def _binned(values: Sequence[float], size: int) -> list[float]:
    """The means of `size` stretches of the values, each at least one value long."""
    means = []
    for place in range(size):
        start = place * len(values) // size
        part = values[start : max((place + 1) * len(values) // size, start + 1)]
        finite = [value for value in part if math.isfinite(value)]
        means.append(sum(finite) / len(finite) if finite else math.nan)
    return means
