"""Rows of text for people: aligned lines that cut nothing off and fold nothing, with colours on a terminal.

Ten thousand rows are printed in the time of a few; a library that lays them out takes the better part of a minute.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from harness.errors import printable

STATUS_STYLE = {"completed": "green", "running": "cyan", "failed": "red", "pending": "dim", "pruned": "yellow"}
"""One colour per status of a run."""

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def print_table(out: IO[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows: left-aligned columns, two spaces apart, without trailing spaces.

    Args:
        out: Where to. On a terminal the head is bold, and cells that are the name of a status have its colour.
        columns: The head.
        rows: A cell per column; a column that is empty is left out.
    """
    by_column = zip(*rows, strict=True) if rows else [()] * len(columns)
    columns_of_text = [
        _column(head, cells, is_coloured=_is_coloured(out))
        for head, cells in zip(columns, by_column, strict=True)
        if any(cells) or not rows
    ]
    out.write("".join("  ".join(line).rstrip() + "\n" for line in zip(*columns_of_text, strict=True)))


def print_line(out: IO[str], text: str, style: str | None = None) -> None:
    """Prints text on one line as it stands, on a terminal in a style, such as ``"bold green"``."""
    text = printable(text)
    out.write((_styled(text, style) if _is_coloured(out) else text) + "\n")


def counted(statuses: Sequence[str]) -> str:
    """How many runs have each status, such as ``"3 completed, 1 failed"``; statuses that nobody has are left out."""
    return ", ".join(f"{statuses.count(status)} {status}" for status in STATUS_STYLE if status in statuses)


def _column(head: str, cells: Sequence[str], *, is_coloured: bool) -> list[str]:
    """A column's texts, all of one width."""
    if not "".join(cells).isprintable():
        cells = [printable(cell) for cell in cells]
    width = max(map(len, (head, *cells)))
    texts = [cell.ljust(width) for cell in (head, *cells)]
    if not is_coloured:
        return texts
    styles = ("bold", *(STATUS_STYLE.get(cell) for cell in cells))
    return [_styled(text, style) for text, style in zip(texts, styles, strict=True)]


def _is_coloured(out: IO[str]) -> bool:
    """On a terminal that knows colours, unless its user wants none (https://no-color.org)."""
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _styled(text: str, style: str | None) -> str:
    """As ECMA-48 has it (select graphic rendition)."""
    if style is None:
        return text
    codes = ";".join(_CODES[word] for word in style.split())
    return f"\x1b[{codes}m{text}\x1b[0m"
