"""How figures look: one colour per method everywhere, sizes for print, the footnote, and files equal to the byte.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which people with colour-blindness tell apart.
Values with an order take shades of one map, from dark to light. Nothing here touches pyplot and its global state.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from harness.errors import UserError, nearest
from harness.spec.methods import METHOD_MODELS

FORMATS = ("png", "svg", "pdf")

PANEL_WIDTH_IN = 3.3
"""Inches of a panel's column: one column of a two-column paper."""

TEXT_PT = 8.0
SMALL_PT = 7.0
"""The smallest text of a figure, in points at its own size."""

_DPI = 200
_LINE_IN = 0.13
_CHARACTERS_PER_IN = 18.5
"""Of text at 7 points, with some room."""

_KEY_IN, _CHARACTER_IN, _LEGEND_LINE_IN = 0.43, 0.056, 0.155
"""Of a legend at 7 points: line with margins, a character, an entry's height."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
GREY = "#6e6e6e"
"""Of the untouched policy: black would hide the interval in a bar."""

METHOD_COLORS: Mapping[str, str] = {"base": GREY, "sft": GREEN, "grpo": BLUE, "grpo_d": VERMILLION}
_SPARE = (PURPLE, ORANGE, SKY, BLACK)

SCHEDULE_COLORS: Mapping[str, str] = {
    "constant": BLUE,
    "othink": VERMILLION,
    "linear": SKY,
    "cosine": PURPLE,
    "adaptive": ORANGE,
}
"""By a schedule's type: the constant one is plain GRPO and has its colour, the paper's has that of GRPO-D."""

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P")

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": TEXT_PT,
    "axes.titlesize": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "xtick.labelsize": SMALL_PT,
    "ytick.labelsize": SMALL_PT,
    "legend.fontsize": SMALL_PT,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.0,
    "errorbar.capsize": 2.0,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "figure.constrained_layout.h_pad": 0.05,
    "svg.hashsalt": "grpo-d-harness",
    "pdf.fonttype": 42,
}


@contextmanager
def style() -> Iterator[None]:
    """The settings that figures are made and written under; also a decorator."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def method_color(method: str) -> str:
    """A method's colour; one that has none here takes a spare by its place in the registry."""
    if method in METHOD_COLORS:
        return METHOD_COLORS[method]
    others = [name for name in METHOD_MODELS if name not in METHOD_COLORS]
    return _SPARE[others.index(method) % len(_SPARE)] if method in others else _SPARE[-1]


def shades(count: int) -> list[str]:
    """Colours for ordered values, `count` of them, dark to light; the lightest still stands out on white."""
    return [to_hex(color) for color in mpl.colormaps["viridis"](np.linspace(0.0, 0.85, count))]


def tints(color: str, count: int) -> list[str]:
    """`count` colours from a colour towards white."""
    rgb = np.array(to_rgb(color))
    return [to_hex(tuple(rgb + (1 - rgb) * mix)) for mix in np.linspace(0, 0.6, count)] if count > 1 else [color]


def value_colors(values: Sequence[Any], *, ordered: bool) -> list[str]:
    """A colour per value of a setting.

    Args:
        values: In order; schedules' types may repeat, where they differ in other settings.
        ordered: Whether the order means something; then the colours are shades of one map.
    """
    if ordered:
        return shades(len(values))
    if not all(isinstance(value, str) and value in SCHEDULE_COLORS for value in values):
        cycle = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK, YELLOW)
        return [cycle[index % len(cycle)] for index in range(len(values))]
    left = {value: iter(tints(SCHEDULE_COLORS[value], list(values).count(value))) for value in values}
    return [next(left[value]) for value in values]


class Row(NamedTuple):
    """A row of panels.

    Attributes:
        name: Of the row.
        height_in: Inches between the axes' upper and lower ends; a row of legends has no axes to be seen.
        around_in: Inches for its ticks, labels and headings.
    """

    name: str
    height_in: float
    around_in: float


def panels(rows: Sequence[Row], num_columns: int, note: str) -> tuple[Figure, list[list[Axes]]]:
    """A figure with `[num_rows][num_columns]` panels and a footnote below them.

    Args:
        rows: From top to bottom; a name that ends in `_legend` makes a row without axes.
        num_columns: Of panels, each :data:`PANEL_WIDTH_IN` wide.
        note: Broken into lines here; each of its own lines begins a new one.
    """
    width = PANEL_WIDTH_IN * num_columns
    characters = int(width * _CHARACTERS_PER_IN)
    lines = [part for line in note.splitlines() for part in textwrap.wrap(line, characters)]
    note_in = _LINE_IN * len(lines) + 0.08
    height = sum(row.height_in + row.around_in for row in rows) + note_in
    figure = Figure(figsize=(width, height), dpi=_DPI)
    figure.set_layout_engine("constrained", rect=(0, note_in / height, 1, 1 - note_in / height))
    figure.text(0.06 / width, 0.04 / height, "\n".join(lines), va="bottom", fontsize=SMALL_PT, linespacing=1.15)
    heights = [row.height_in for row in rows]
    grid = figure.subplots(len(rows), num_columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, of_row in zip(rows, grid, strict=True):
        if row.name.endswith("_legend"):
            for axes in of_row:
                axes.set_axis_off()
    return figure, [list(of_row) for of_row in grid]


def legend_columns(labels: Sequence[str], width_in: float = PANEL_WIDTH_IN) -> int:
    """How many of a legend's entries fit side by side."""
    longest = max(map(len, labels), default=0)
    return max(1, min(len(labels), int(width_in / (_KEY_IN + _CHARACTER_IN * longest))))


def legend_height_in(labels: Sequence[str], *, width_in: float = PANEL_WIDTH_IN, has_title: bool = False) -> float:
    """Inches that a legend takes."""
    num_lines = -(-len(labels) // legend_columns(labels, width_in)) + has_title
    return _LEGEND_LINE_IN * num_lines + 0.06


def checked_formats(text: str) -> tuple[str, ...]:
    """The file formats of an option such as ``"png,svg"``.

    Raises:
        UserError: One of them is not among :data:`FORMATS`, or there is none.
    """
    names = tuple(dict.fromkeys(name for name in (part.strip() for part in text.split(",")) if name))
    for name in names:
        if name not in FORMATS:
            raise UserError(f"--formats: unknown format '{name}': {nearest(name, FORMATS)}")
    if not names:
        raise UserError(f"--formats: name at least one of {', '.join(FORMATS)}")
    return names


@style()
def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format of the path's suffix; the same figure gives the same bytes, on any day."""
    nameless: dict[str, dict[str, Any]] = {
        ".png": {"Software": None},
        ".svg": {"Date": None, "Creator": None},
        ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    }
    _settle(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format=path.suffix[1:], metadata=nameless[path.suffix])
    path.write_bytes(stream.getvalue())


def _settle(figure: Figure) -> None:
    """Fixes the layout, rounded: the last digits of the solver's answer differ from one call to the next."""
    if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for axes in figure.axes:
            left, bottom, width, height = (round(part, 5) for part in axes.get_position().bounds)
            axes.set_position((left, bottom, width, height))
