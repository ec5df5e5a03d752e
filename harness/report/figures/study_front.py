"""What two objectives cost each other: the trials of a search, and those that no other one beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable

from harness.report.figures.drawn import Drawn
from harness.report.figures.study_look import by_number, number_bar, rows_of
from harness.report.figures.study_trials import (
    UNIT,
    Search,
    StudyTrials,
    accuracy,
    objective_label,
    run_ids,
    trials_note,
)
from harness.report.figures.style import SMALL_PT, VERMILLION, Row, panels, style

COLUMNS = (
    *("study", "combination", "trial", "state", "objective_x", "accuracy_x", "objective_y", "accuracy_y", "unit"),
    *("on_front", "run_ids"),
)
_CLOSE = 0.1
"""Of what the points span: numbers of neighbours on the front that are nearer than this would overlap."""


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Which points no other one beats: as great in both coordinates and greater in one.

    Equal points are all on the front, or none of them is.
    """
    return [not any(x <= u and y <= v and (x, y) != (u, v) for u, v in points) for x, y in points]


def front_numbers(data: StudyTrials) -> pd.DataFrame:
    """The complete trials, once for every pair of objectives.

    Columns: study, combination, trial (its number), state, objective_x, accuracy_x, objective_y, accuracy_y, unit,
    on_front (of that pair), run_ids.
    """
    rows = []
    for search in data.searches:
        for x, y in combinations(range(len(data.objectives)), 2):
            points = [(accuracy(trial, x), accuracy(trial, y)) for trial in search.complete]
            rows += [
                search.about(trial)
                | {
                    "objective_x": data.objectives[x],
                    "accuracy_x": point[0],
                    "objective_y": data.objectives[y],
                    "accuracy_y": point[1],
                    "unit": UNIT,
                    "on_front": on_front,
                    "run_ids": run_ids(trial),
                }
                for trial, point, on_front in zip(search.complete, points, pareto_front(points), strict=True)
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@style()
def front_figure(data: StudyTrials) -> Drawn | None:
    """The figure; None for a single objective."""
    if len(data.objectives) < 2:
        return None
    numbers = front_numbers(data)
    pairs = list(combinations(data.objectives, 2))
    wanted: list[tuple[Search, tuple[str, str]]] = [(search, pair) for search in data.searches for pair in pairs]
    rows = rows_of(wanted)
    row = Row("front", 1.7, 0.5 + 0.2 * (len(data.searches) > 1))
    note = f"Line and numbers of trials: the Pareto front. {trials_note(data, data.searches)}"
    figure, grid = panels([row] * len(rows), len(rows[0]), note)
    every = [axes for of_row in grid for axes in of_row]
    colors = by_number(data)
    for axes, (search, (x, y)) in zip(every, wanted, strict=False):
        of_pair = (numbers["objective_x"] == x) & (numbers["objective_y"] == y)
        _draw(axes, numbers[of_pair & (numbers["study"] == search.study.study_name)], colors)
        axes.set_xlabel(objective_label(x).replace("\n", " "))
        axes.set_ylabel(objective_label(y).replace("\n", " "))
        if len(data.searches) > 1:
            axes.set_title(search.label, loc="left")
    for axes in every[len(wanted) :]:
        axes.set_axis_off()
    number_bar(figure, colors, grid)
    return Drawn("study_front", figure, numbers)


def _draw(axes: Axes, own: pd.DataFrame, colors: ScalarMappable) -> None:
    axes.scatter(own["accuracy_x"], own["accuracy_y"], s=14, c=colors.to_rgba(own["trial"].to_numpy()), zorder=3)
    front = own[own["on_front"]].sort_values("accuracy_x")
    # What lies below and to the left of the line is beaten.
    axes.step(front["accuracy_x"], front["accuracy_y"], where="pre", color=VERMILLION, linewidth=1.0, zorder=2)
    axes.scatter(
        front["accuracy_x"], front["accuracy_y"], s=46, facecolors="none", edgecolors=VERMILLION, linewidths=1, zorder=4
    )
    places = [(float(x), float(y)) for x, y in front[["accuracy_x", "accuracy_y"]].drop_duplicates().to_numpy()]
    width, height = (own[key].max() - own[key].min() for key in ("accuracy_x", "accuracy_y"))
    for at, (x, y) in enumerate(places):
        here = front[(front["accuracy_x"] == x) & (front["accuracy_y"] == y)]
        # Above the line is nothing but the neighbours' numbers.
        is_close = any(u - x < _CLOSE * width and y - v < _CLOSE * height for u, v in places[at + 1 : at + 2])
        has_room = all(x - u > 2 * _CLOSE * width or v - y > _CLOSE * height for u, v in places[max(at - 1, 0) : at])
        left = is_close and has_room
        axes.annotate(
            ", ".join(str(number) for number in here["trial"]),
            (x, y),
            (-3, 4) if left else (4, 4),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom",
            fontsize=SMALL_PT,
            zorder=5,
        )
    axes.margins(0.12)
    axes.grid(axis="x", visible=True)
