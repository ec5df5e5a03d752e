"""Figures of a study: what its searches tried, what mattered, and what the objectives cost each other.

Objectives are accuracies on validation examples, which the best of many trials flatters; accuracies of chosen settings
are those of the sweep that `harness tune` writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.report.figures.drawn import Drawn
from harness.report.figures.study_front import front_figure
from harness.report.figures.study_importances import importances_figure
from harness.report.figures.study_parallel import parallel_figure
from harness.report.figures.study_slices import slices_figures
from harness.report.figures.study_trials import read_trials
from harness.spec.sweep import Sweep


def study_figures(results: str | Path, sweep: Sweep, storage: str | None = None) -> Iterator[Drawn]:
    """The figures of a sweep's study, one after the other.

    Names: `study_slices` (or `study_slices_<combination>` of each search, where one figure would be too tall),
    `study_importances`, `study_parallel` and `study_front`. A figure that the study has nothing for is left out:
    without a study, before the first complete trial, and where it has too few parameters, trials or objectives.

    Args:
        results: The results folder.
        sweep: With or without a study.
        storage: A URL as Optuna takes it; by default the study's SQLite file.

    Raises:
        UserError: The storage cannot be opened.
    """
    data = read_trials(results, sweep, storage)
    if data is None:
        return
    yield from slices_figures(data)
    of_all = (importances_figure(data), parallel_figure(data), front_figure(data))
    yield from (drawn for drawn in of_all if drawn is not None)
