"""Rows of text for people: coloured columns on a terminal, plain aligned lines that cut nothing off anywhere else."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

STATUS_STYLE = {"completed": "green", "running": "cyan", "failed": "red", "pending": "dim", "pruned": "yellow"}
"""One colour per status of a run."""


def plain_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Left-aligned columns, two spaces apart, without trailing spaces; a column that is empty is left out."""
    kept = [at for at in range(len(columns)) if not rows or any(row[at] for row in rows)]
    lines = [[columns[at] for at in kept], *([row[at] for at in kept] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(kept))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows to a console; cells that are the name of a status are coloured on a terminal."""
    if not console.is_terminal:
        # Thousands of lines that nothing is to be done with: rich would take them apart and put them together again.
        console.file.write(plain_table(columns, rows) + "\n")
        return
    kept = [at for at in range(len(columns)) if not rows or any(row[at] for row in rows)]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for at in kept:
        table.add_column(columns[at], overflow="fold")
    for row in rows:
        table.add_row(*(_styled(row[at]) for at in kept))
    console.print(table)


def print_line(console: Console, text: str, style: str | None = None) -> None:
    """Prints text as it stands: no markup, no wrapping, nothing cut off."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _styled(cell: str) -> str:
    escaped = cell.replace("[", r"\[")
    style = STATUS_STYLE.get(cell)
    return escaped if style is None else f"[{style}]{escaped}[/]"


def counted(statuses: Sequence[str]) -> str:
    """How many runs have each status, such as ``"3 completed, 1 failed"``; statuses that nobody has are left out."""
    return ", ".join(f"{statuses.count(status)} {status}" for status in STATUS_STYLE if status in statuses)
