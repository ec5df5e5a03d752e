"""Which parameters a search's objective hangs on: PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), by Optuna."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import pandas as pd

from harness.report.figures.drawn import Drawn
from harness.report.figures.study_look import rows_of
from harness.report.figures.study_trials import Search, StudyTrials, objective_label, run_ids, trials_note
from harness.report.figures.style import BLUE, SMALL_PT, Row, panels, style

COLUMNS = ("study", "combination", "objective", "parameter", "importance", "num_trials", "run_ids")

MIN_TRIALS = 10
"""Complete ones: of fewer, the best tenth is not even one trial."""

MIN_PARAMETERS = 2


def weighable(search: Search) -> list[str]:
    """The parameters that an importance can be given: every complete trial has them, over one range of several values.

    Returns:
        Full names; empty for fewer than :data:`MIN_PARAMETERS` of them or :data:`MIN_TRIALS` trials.
    """
    first, *others = search.complete
    found = [
        key
        for key, distribution in first.distributions.items()
        if not distribution.single() and all(trial.distributions.get(key) == distribution for trial in others)
    ]
    return found if len(found) >= MIN_PARAMETERS and len(search.complete) >= MIN_TRIALS else []


def importances(search: Search, objective: int) -> dict[str, float]:
    """The share of each parameter in what tells the best tenth of the complete trials from all of them.

    Returns:
        By full name, in [0, 1], 1 together; empty where there is nothing to weigh, or all trials are equal.
    """
    import optuna

    keys = weighable(search)
    if not keys or len({trial.values[objective] for trial in search.complete}) == 1:
        return {}
    with warnings.catch_warnings():
        # It reminds that low is good where a target is named: hence the minus.
        warnings.simplefilter("ignore")
        return optuna.importance.get_param_importances(
            search.study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            params=keys,
            target=lambda trial: -trial.values[objective],
        )


def importance_numbers(data: StudyTrials) -> pd.DataFrame:
    """The importances of every search that has them, the parameters in the study's order.

    Columns: study, combination, objective, parameter (its full name), importance, num_trials (complete ones), run_ids.
    """
    rows = []
    for search in data.searches:
        for at, objective in enumerate(data.objectives):
            found = importances(search, at)
            rows += [
                {
                    "study": search.study.study_name,
                    "combination": search.label,
                    "objective": objective,
                    "parameter": parameter.key,
                    "importance": found[parameter.key],
                    "num_trials": len(search.complete),
                    "run_ids": run_ids(*search.complete),
                }
                for parameter in data.space
                if parameter.key in found
            ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@style()
def importances_figure(data: StudyTrials) -> Drawn | None:
    """The figure; None unless a search has two parameters and ten complete trials."""
    numbers = importance_numbers(data)
    if numbers.empty:
        return None
    searches = [search for search in data.searches if (numbers["study"] == search.study.study_name).any()]
    rows = [
        [(search, objective) for search in side_by_side]
        for side_by_side in rows_of(searches)
        for objective in data.objectives
    ]
    # The same order in every panel, the most important on top.
    mean = numbers.groupby("parameter")["importance"].mean()
    order = sorted(mean.index, key=lambda key: -mean[key])
    row = Row("bars", 0.17 * len(order) + 0.1, 0.55 + 0.2 * (len(searches) > 1))
    figure, grid = panels([row] * len(rows), max(map(len, rows)), _note(data, searches, order))
    for of_row, wanted in zip(grid, rows, strict=True):
        for axes in of_row[len(wanted) :]:
            axes.set_axis_off()
        for axes, (search, objective) in zip(of_row, wanted, strict=False):
            own = numbers[(numbers["study"] == search.study.study_name) & (numbers["objective"] == objective)]
            share = dict(zip(own["parameter"], own["importance"], strict=True))
            places = [place for place, key in enumerate(order) if key in share]
            axes.barh(places, [share[order[place]] for place in places], color=BLUE, height=0.7, alpha=0.85)
            for place in places:
                value = share[order[place]]
                axes.annotate(
                    f"{value:.2f}", (value, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL_PT
                )
            axes.set_yticks(range(len(order)), [data.names[key] for key in order])
            axes.set_ylim(len(order) - 0.4, -0.6)
            axes.set_xlim(0, 1.12)
            axes.set_xticks([0, 0.5, 1])
            axes.grid(axis="y", visible=False)
            axes.grid(axis="x", visible=True)
            axes.set_xlabel(f"importance for {objective_label(objective).replace(chr(10), ' ').removesuffix(', %')}")
            if len(data.searches) > 1:
                axes.set_title(search.label, loc="left")
    return Drawn("study_importances", figure, numbers)


def _note(data: StudyTrials, searches: Sequence[Search], weighed: Sequence[str]) -> str:
    lines = [
        "PED-ANOVA over complete trials: what tells the best tenth of them from all; the bars of a panel add up to 1.",
        trials_note(data, searches),
    ]
    missing = [data.names[parameter.key] for parameter in data.space if parameter.key not in weighed]
    if missing:
        lines.append(f"Left out, as some complete trials lack them or they have one value: {', '.join(missing)}.")
    few = [search.label for search in data.searches if search not in searches]
    if few:
        lines.append(f"Left out, with too few trials or all of them equal: {'; '.join(few)}.")
    return "\n".join(lines)
