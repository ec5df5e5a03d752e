"""Whole points of a study beside what they gave: a line per trial through its parameters to its objectives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from harness.report.figures.data import shown
from harness.report.figures.drawn import Drawn
from harness.report.figures.study_look import choices_of, few_values, rows_of, shade_map
from harness.report.figures.study_trials import (
    UNIT,
    Search,
    StudyTrials,
    accuracy,
    objective_label,
    run_ids,
    trials_note,
)
from harness.report.figures.style import SMALL_PT, Row, panels, style
from harness.spec.keys import Value
from harness.spec.study import Parameter

COLUMNS = (
    *("study", "combination", "trial", "state", "parameter", "value", "objective", "accuracy", "unit", "run_ids"),
)

MIN_PARAMETERS = 2

_ABSENT = -0.2
"""Where a line passes an axis that its trial has no value on; values stand between 0 and 1."""

_MAX_AXES = 4
"""In a panel's width; a search with more takes twice that."""


@dataclass(frozen=True)
class _Scale:
    """A vertical axis: categories evenly spaced, or a range with its ends written, or each of its few values."""

    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    few: tuple[float, ...] = ()
    log: bool = False

    def at(self, value: Any) -> float:
        """The height of a value in [0, 1]; the middle where there is only one."""
        if self.choices:
            return self.choices.index(value) / (len(self.choices) - 1) if len(self.choices) > 1 else 0.5
        low, high, place = (math.log(part) if self.log else part for part in (self.low, self.high, value))
        return (place - low) / (high - low) if low < high else 0.5

    @property
    def marks(self) -> dict[float, str]:
        """By height, what is written."""
        if self.choices:
            return {self.at(choice): shown(choice) for choice in self.choices}
        return {self.at(end): f"{end:.3g}" for end in self.few or (self.low, self.high)}


def parallel_numbers(data: StudyTrials) -> pd.DataFrame:
    """The complete trials, once for each parameter and objective.

    Columns: study, combination, trial (its number), state, parameter (its full name), value (empty where the trial has
    no such parameter), objective, accuracy, unit, run_ids.
    """
    rows = [
        search.about(trial)
        | {
            "parameter": parameter.key,
            "value": trial.params.get(parameter.key),
            "objective": name,
            "accuracy": accuracy(trial, at),
            "unit": UNIT,
            "run_ids": run_ids(trial),
        }
        for search in data.searches
        for trial in search.complete
        for parameter in data.space
        for at, name in enumerate(data.objectives)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@style()
def parallel_figure(data: StudyTrials) -> Drawn | None:
    """The figure; None for fewer than two parameters."""
    if len(data.space) < MIN_PARAMETERS:
        return None
    is_wide = len(data.space) + len(data.objectives) > _MAX_AXES
    rows = rows_of(data.searches, 1) if is_wide else rows_of(data.searches)
    row = Row("parallel", 1.5, 0.55 + 0.2 * (len(data.searches) > 1))
    figure, grid = panels([row] * len(rows), 2 if is_wide else len(rows[0]), _note(data))
    for place, (of_row, searches) in enumerate(zip(grid, rows, strict=True)):
        if is_wide:
            whole = of_row[0].get_subplotspec()
            assert whole is not None
            of_row[0].set_subplotspec(whole.get_gridspec()[place, :])
        for axes in of_row[len(searches) :]:
            axes.remove() if is_wide else axes.set_axis_off()
        for axes, search in zip(of_row, searches, strict=False):
            _draw(axes, data, search)
            if len(data.searches) > 1:
                axes.set_title(search.label, loc="left")
    return Drawn("study_parallel", figure, parallel_numbers(data))


def _draw(axes: Axes, data: StudyTrials, search: Search) -> None:
    values = [[accuracy(trial, at) for trial in search.complete] for at in range(len(data.objectives))]
    scales = [_scale(parameter) for parameter in data.space]
    scales += [_Scale(low=min(of_one), high=max(of_one)) for of_one in values]
    first = scales[len(data.space)]
    colors = shade_map().reversed()
    # The best on top of the others.
    for at in sorted(range(len(search.complete)), key=lambda at: values[0][at]):
        params = search.complete[at].params
        heights = [
            scale.at(params[parameter.key]) if parameter.key in params else _ABSENT
            for parameter, scale in zip(data.space, scales, strict=False)
        ]
        heights += [scale.at(of_one[at]) for scale, of_one in zip(scales[len(data.space) :], values, strict=True)]
        axes.plot(range(len(heights)), heights, color=colors(first.at(values[0][at])), linewidth=0.9, alpha=0.9)
    for place, scale in enumerate(scales):
        axes.plot([place, place], [0, 1], color="#444444", linewidth=0.8, zorder=3)
        marks = scale.marks
        if place < len(data.space) and _is_lacking(search, data.space[place]):
            marks = {**marks, _ABSENT: "none"}
        for height, text in marks.items():
            last = place == len(scales) - 1
            axes.annotate(
                text,
                (place, height),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=SMALL_PT,
                zorder=4,
                annotation_clip=False,
                bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.75},
                in_layout=last,
            )
    names = [f"{data.names[parameter.key]}{' (log)' * parameter.log}" for parameter in data.space]
    axes.set_xticks(range(len(scales)), [*names, *map(objective_label, data.objectives)])
    axes.tick_params(length=0)
    axes.set_yticks([])
    axes.set_xlim(-0.1, len(scales) - 0.9)
    axes.set_ylim(_ABSENT - 0.08 if any(_is_lacking(search, one) for one in data.space) else -0.08, 1.08)
    axes.grid(visible=False)
    axes.spines[["left", "bottom"]].set_visible(False)


def _scale(parameter: Parameter) -> _Scale:
    return _Scale(
        tuple(choices_of(parameter)), parameter.low, parameter.high, tuple(few_values(parameter)), parameter.log
    )


def _is_lacking(search: Search, parameter: Parameter) -> bool:
    return any(parameter.key not in trial.params for trial in search.complete)


def _note(data: StudyTrials) -> str:
    first = "the first objective" if len(data.objectives) > 1 else "the objective"
    note = f"A line per complete trial, the darker the higher {first}."
    if any(_is_lacking(search, parameter) for search in data.searches for parameter in data.space):
        note += " None: a parameter that the trial did not have."
    return f"{note}\n{trials_note(data, data.searches)}"
