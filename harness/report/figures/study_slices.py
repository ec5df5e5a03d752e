"""The objectives of a study's trials over each parameter, whatever the other parameters were."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from harness.report.figures.data import shown
from harness.report.figures.drawn import Drawn, nothing_here
from harness.report.figures.study_look import by_number, choices_of, few_values, number_bar, rows_of
from harness.report.figures.study_trials import (
    UNIT,
    Search,
    StudyTrials,
    accuracy,
    objective_label,
    run_ids,
    trials_note,
)
from harness.report.figures.style import BLACK, PANEL_WIDTH_IN, Row, legend_height_in, panels, shades, style
from harness.spec.study import Parameter

COLUMNS = (
    *("study", "combination", "trial", "state", "parameter", "value", "objective", "accuracy", "unit", "is_best"),
    "run_ids",
)

MAX_ROWS = 8
"""Of one figure: a study with more is drawn as one per search."""

_CROWDED_CHARACTERS = 34
_DECADES = 99.0
"""Of a range that is marked at powers of ten alone."""


class _Panel(NamedTuple):
    search: Search
    parameter: Parameter
    objective: int


def slice_numbers(data: StudyTrials) -> pd.DataFrame:
    """The trials, once for each parameter that they have and each objective.

    Columns: study, combination, trial (its number), state (`complete` or `pruned`), parameter (its full name), value,
    objective, accuracy (of a pruned trial: what it showed last), unit, is_best (of its search in this objective),
    run_ids.
    """
    rows = [
        search.about(trial)
        | {
            "parameter": parameter.key,
            "value": trial.params[parameter.key],
            "objective": name,
            "accuracy": accuracy(trial, at),
            "unit": UNIT,
            "is_best": trial.number == search.best(at).number,
            "run_ids": run_ids(trial),
        }
        for search in data.searches
        for parameter in data.space
        for at, name in enumerate(data.objectives)
        for trial in search.measured
        if parameter.key in trial.params
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def slices_figures(data: StudyTrials) -> Iterator[Drawn]:
    """`study_slices`, or `study_slices_<combination>` for each search where one figure would be too tall."""
    if len(_rows(data)) <= MAX_ROWS or len(data.searches) == 1:
        yield _figure(data, "study_slices")
        return
    for search in data.searches:
        name = f"study_slices_{re.sub(r'[^A-Za-z0-9.]+', '_', search.label)}"
        yield _figure(replace(data, searches=(search,)), name)


def _rows(data: StudyTrials) -> list[list[_Panel]]:
    """The panels: a column per parameter and a row per search; of a single parameter a column per search."""
    objectives = range(len(data.objectives))
    if len(data.space) == 1:
        [parameter] = data.space
        return [
            [_Panel(search, parameter, at) for search in side_by_side]
            for side_by_side in rows_of(data.searches)
            for at in objectives
        ]
    return [
        [_Panel(search, parameter, at) for parameter in side_by_side]
        for search in data.searches
        for side_by_side in rows_of(data.space)
        for at in objectives
    ]


@style()
def _figure(data: StudyTrials, name: str) -> Drawn:
    numbers = slice_numbers(data)
    rows = _rows(data)
    num_columns = max(map(len, rows))
    kinds = _kinds(numbers)
    layout = [Row("slices", 1.15, 0.62 + _depth_in(row)) for row in rows]
    legend_in = legend_height_in([str(kind.get_label()) for kind in kinds], width_in=num_columns * PANEL_WIDTH_IN)
    layout[0] = layout[0]._replace(around_in=layout[0].around_in + legend_in)
    pruned = "Pruned trials stand at what they showed last. " if (numbers["state"] == "pruned").any() else ""
    figure, grid = panels(layout, num_columns, pruned + trials_note(data, data.searches))
    colors = by_number(data)
    for of_row, row in zip(grid, rows, strict=True):
        for axes in of_row[len(row) :]:
            axes.set_axis_off()
        for axes, panel in zip(of_row, row, strict=False):
            own = numbers[
                (numbers["study"] == panel.search.study.study_name)
                & (numbers["parameter"] == panel.parameter.key)
                & (numbers["objective"] == data.objectives[panel.objective])
            ]
            if own.empty:
                nothing_here(axes, f"no trial has\n{data.names[panel.parameter.key]}")
            else:
                _draw(axes, own, panel.parameter, colors)
                axes.set_xlabel(data.names[panel.parameter.key])
            if axes is of_row[0]:
                axes.set_ylabel(objective_label(data.objectives[panel.objective]))
            if len(data.searches) > 1 and (axes is of_row[0] or len(data.space) == 1):
                axes.set_title(panel.search.label, loc="left")
    _share_heights(rows, grid)
    number_bar(figure, colors, grid)
    figure.legend(handles=kinds, loc="outside upper center", ncols=len(kinds))
    figure.align_ylabels([of_row[0] for of_row in grid])
    return Drawn(name, figure, numbers)


def _share_heights(rows: Sequence[Sequence[_Panel]], grid: Sequence[Sequence[Axes]]) -> None:
    """Gives the panels of a search's objective one range."""
    alike: dict[tuple[str, int], list[Axes]] = {}
    for row, of_row in zip(rows, grid, strict=True):
        for panel, axes in zip(row, of_row, strict=False):
            if axes.has_data():
                alike.setdefault((panel.search.label, panel.objective), []).append(axes)
    for every in alike.values():
        low = min(axes.dataLim.ymin for axes in every)
        high = max(axes.dataLim.ymax for axes in every)
        margin = 0.12 * (high - low) or 1.0
        for axes in every:
            axes.set_ylim(low - margin, high + margin)


def _kinds(numbers: pd.DataFrame) -> list[Line2D]:
    """The legend's entries."""
    look: dict[str, Any] = {"linestyle": "", "color": shades(3)[1], "markersize": 4}
    kinds = [Line2D([], [], marker="o", label="complete", **look)]
    if (numbers["state"] == "pruned").any():
        kinds.append(Line2D([], [], marker="x", label="pruned", **look))
    look |= {"color": BLACK, "markersize": 8, "markerfacecolor": "none"}
    return [*kinds, Line2D([], [], marker="o", label="best", **look)]


def _draw(axes: Axes, own: pd.DataFrame, parameter: Parameter, colors: ScalarMappable) -> None:
    places = _places(own, parameter)
    for state, marker, size in (("complete", "o", 14), ("pruned", "x", 11)):
        chosen = (own["state"] == state).to_numpy()
        shade = colors.to_rgba(own["trial"][chosen].to_numpy())
        at = [place for place, is_chosen in zip(places, chosen, strict=True) if is_chosen]
        axes.scatter(at, own["accuracy"][chosen], s=size, c=shade, marker=marker, linewidths=0.9, zorder=3)
    for place, (_, best) in zip(places, own.iterrows(), strict=True):
        if best["is_best"]:
            axes.scatter([place], [best["accuracy"]], s=62, facecolors="none", edgecolors=BLACK, linewidths=1, zorder=4)
    _value_axis(axes, parameter)


def _places(own: pd.DataFrame, parameter: Parameter) -> list[float]:
    """Where trials stand: at their value; those of one category side by side in the order of their numbers."""
    if not parameter.choices:
        return [float(value) for value in own["value"]]
    choices = choices_of(parameter)
    same: dict[int, list[int]] = {}
    for row, value in enumerate(own["value"]):
        same.setdefault(choices.index(value), []).append(row)
    apart = min(0.08, 0.7 / max(map(len, same.values())))
    places = [0.0] * len(own)
    for choice, rows in same.items():
        for rank, row in enumerate(rows):
            places[row] = choice + apart * (rank - (len(rows) - 1) / 2)
    return places


def _value_axis(axes: Axes, parameter: Parameter) -> None:
    if parameter.choices:
        labels = [shown(choice) for choice in choices_of(parameter)]
        slanted: dict[str, Any] = (
            {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if _is_crowded(parameter) else {}
        )
        axes.set_xticks(range(len(labels)), labels, **slanted)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif parameter.log:
        ratio = parameter.high / parameter.low
        axes.set_xscale("log")
        axes.set_xlim(parameter.low / ratio**0.04, parameter.high * ratio**0.04)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if ratio < _DECADES else (1,)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(float(value))))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        margin = 0.04 * (parameter.high - parameter.low)
        axes.set_xlim(parameter.low - margin, parameter.high + margin)
        if few := few_values(parameter):
            axes.set_xticks(few, [shown(value) for value in few])
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=parameter.is_whole))


def _is_crowded(parameter: Parameter) -> bool:
    return sum(len(shown(choice)) + 1 for choice in parameter.choices) > _CROWDED_CHARACTERS


def _depth_in(row: Sequence[_Panel]) -> float:
    """Inches that slanting labels take below a row."""
    crowded = [panel.parameter for panel in row if _is_crowded(panel.parameter)]
    return 0.045 * max((len(shown(choice)) for parameter in crowded for choice in parameter.choices), default=0)
