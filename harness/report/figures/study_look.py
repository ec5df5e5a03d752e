"""How the panels of a study's figures are laid out and how trials are coloured: by number, from dark to light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.figures.study_trials import StudyTrials
from harness.report.figures.style import shades
from harness.spec.keys import Value
from harness.spec.study import Parameter

MAX_COLUMNS = 3
"""Panels side by side."""

_FEW = 7

_Item = TypeVar("_Item")


def rows_of(items: Sequence[_Item], num_columns: int = MAX_COLUMNS) -> list[Sequence[_Item]]:
    """Items in rows of at most `num_columns`, none of them nearly empty: four make two and two."""
    num_rows = -(-len(items) // num_columns)
    length = -(-len(items) // num_rows)
    return [items[start : start + length] for start in range(0, len(items), length)]


def choices_of(parameter: Parameter) -> list[Value]:
    """A parameter's choices in the order of an axis: numbers by their size, anything else as the sweep has them."""
    is_ordered = all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in parameter.choices)
    return sorted(parameter.choices) if is_ordered else list(parameter.choices)


def few_values(parameter: Parameter) -> list[float]:
    """The values of a range in steps, where each can be written at its place on an axis; else none."""
    is_few = not parameter.choices and not parameter.log and parameter.num_values <= _FEW
    return [float(value) for value in parameter.values()] if is_few else []


def shade_map() -> Colormap:
    """The colours of ordered values as a map, dark to light."""
    return LinearSegmentedColormap.from_list("shades", shades(64))


def by_number(data: StudyTrials) -> ScalarMappable:
    """The colours of trials."""
    return ScalarMappable(Normalize(0, max(data.latest, 1)), shade_map())


def number_bar(figure: Figure, colors: ScalarMappable, grid: Sequence[Sequence[Axes]]) -> None:
    """The key to :func:`by_number`, to the right of all panels."""
    every = [axes for of_row in grid for axes in of_row]
    bar = figure.colorbar(colors, ax=every, pad=0.02, fraction=0.04, aspect=15 * len(grid))
    bar.locator = MaxNLocator(5, integer=True)
    bar.update_ticks()
    bar.set_label("trial")
    bar.outline.set_visible(False)
