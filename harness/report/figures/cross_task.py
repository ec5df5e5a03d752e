"""What training on one task does to all of them: per method, source by target, as a difference to `base`.

The diagonal is the same task. Without `base` on every target, the cells hold accuracies.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from harness.report.collect import Measurement
from harness.report.figures.ablated import base_run
from harness.report.figures.data import SweepData, missing_note, seeds_note, shown_settings
from harness.report.figures.drawn import Drawn
from harness.report.figures.groups import Group, trained_groups
from harness.report.figures.published import published_columns, shown_in
from harness.report.figures.style import SMALL_PT, TEXT_PT, Row, panels, style
from harness.report.published import DERIVED, published_note
from harness.report.stats import Estimate, interval_rng, paired_difference, two_level_bootstrap

COLUMNS = (
    *("method", "settings", "source", "target", "quantity", "mean", "ci_low", "ci_high", "unit", "accuracy"),
    *("base_accuracy", "num_seeds", "num_examples", "run_ids", "base_run_id"),
)
_MAX_COLUMNS = 3
_TITLE_CHARACTERS = 34


def cross_task_numbers(data: SweepData, groups: Sequence[Group]) -> pd.DataFrame:
    """What the cells hold, for every group without missing runs.

    Columns: method, settings (as JSON), source, target, quantity (`difference to base` or `accuracy`), mean, ci_low,
    ci_high and unit of that quantity, accuracy and base_accuracy in %, num_seeds, num_examples, run_ids, base_run_id;
    then what others published, where there is any. A difference keeps the examples paired; its interval is over seeds
    and examples.

    Args:
        data: The sweep's.
        groups: From :func:`harness.report.figures.groups.trained_groups`.
    """
    targets = {cell.run_id: cell.targets for cell in data.asked.cells}
    complete = [group for group in groups if not data.missing(group.run_ids)]
    bases = [_base(data, group) for group in complete]
    differences = bool(complete) and None not in bases
    rows = []
    for group, base in zip(complete, bases, strict=True):
        for target in targets[group.run_ids[0]]:
            found = data.found(group.run_ids, target)
            untouched = data.found([base], target)[0] if base is not None else None
            compared = untouched if differences else None
            estimate = _estimate(found, compared, group, target)
            rows.append(
                {
                    "method": group.method,
                    "settings": json.dumps(dict(group.settings), default=str),
                    "source": group.source,
                    "target": target,
                    "quantity": "difference to base" if differences else "accuracy",
                    "mean": 100 * estimate.mean,
                    "ci_low": None if estimate.low is None else 100 * estimate.low,
                    "ci_high": None if estimate.high is None else 100 * estimate.high,
                    "unit": "points" if differences else "%",
                    "accuracy": 100 * float(np.mean([item.correct for item in found])),
                    "base_accuracy": None if untouched is None else 100 * float(untouched.correct.mean()),
                    "num_seeds": len(found),
                    "num_examples": len(found[0].correct),
                    "run_ids": " ".join(group.run_ids),
                    "base_run_id": base,
                }
                | published_columns(data.published.get((group.run_ids[0], target), ()))
            )
    return pd.DataFrame(rows, columns=list(dict.fromkeys([*COLUMNS, *(key for row in rows for key in row)])))


def _base(data: SweepData, group: Group) -> str | None:
    """The group's `base`, where it is measured on every target."""
    run_id = base_run(data.asked, group.settings)
    return None if run_id is None or data.missing([run_id]) else run_id


def _estimate(found: Sequence[Measurement], base: Measurement | None, group: Group, target: str) -> Estimate:
    vectors = [item.correct for item in found]
    rng = interval_rng(target, *group.run_ids)
    if base is None:
        return two_level_bootstrap(vectors, rng)
    return paired_difference(vectors, [base.correct] * len(vectors), rng)


@style()
def cross_task_figure(data: SweepData) -> Drawn | None:
    """The figure; None unless the sweep evaluates on another task than it trained on."""
    groups = trained_groups(data)
    numbers = cross_task_numbers(data, groups)
    if not (numbers["source"] != numbers["target"]).any():
        return None
    drawn = list(dict.fromkeys(zip(numbers["method"], numbers["settings"], strict=True)))
    sources, targets = (list(dict.fromkeys(numbers[key])) for key in ("source", "target"))
    is_difference = numbers["quantity"].iloc[0] == "difference to base"
    most = float(numbers["mean"].abs().max())
    bounds = (-max(most, 1.0), max(most, 1.0)) if is_difference else (0.0, max(most, 1.0))
    shades = ScalarMappable(Normalize(*bounds), "PuOr" if is_difference else "cividis")
    num_columns = min(len(drawn), _MAX_COLUMNS)
    num_rows = -(-len(drawn) // num_columns)
    cell_in = 0.6 if any(shown_in(cell) for cell in numbers.to_dict("records")) else 0.45
    row = Row("heat", cell_in * max(len(sources), 2), 0.8 + 0.3 * any(settings != "{}" for _, settings in drawn))
    figure, grid = panels([row] * num_rows, num_columns, _note(data, groups, numbers))
    every = [axes for of_row in grid for axes in of_row]
    for axes, (method, settings) in zip(every, drawn, strict=False):
        own = numbers[(numbers["method"] == method) & (numbers["settings"] == settings)]
        _draw(axes, own, sources, targets, shades)
        rest = "\n".join(textwrap.wrap(shown_settings(json.loads(settings)), _TITLE_CHARACTERS))
        axes.set_title(f"{method}\n{rest}" if rest else method)
    for first, *_ in grid:
        first.set_ylabel("trained on")
    for axes in every[len(drawn) :]:
        axes.set_axis_off()
    bar = figure.colorbar(shades, ax=every, pad=0.02, fraction=0.04, aspect=15 * num_rows)
    bar.set_label("difference to\nbase, points" if is_difference else "accuracy, %")
    bar.outline.set_visible(False)
    return Drawn("cross_task", figure, numbers)


def _draw(axes: Axes, own: pd.DataFrame, sources: list[str], targets: list[str], shades: ScalarMappable) -> None:
    cells = np.full((len(sources), len(targets)), np.nan)
    for _, cell in own.iterrows():
        cells[sources.index(cell["source"]), targets.index(cell["target"])] = cell["mean"]
    low, high = shades.get_clim()
    axes.imshow(cells, cmap=shades.get_cmap(), vmin=low, vmax=high, aspect="auto")
    for _, cell in own.iterrows():
        row, column = sources.index(cell["source"]), targets.index(cell["target"])
        red, green, blue, _alpha = shades.to_rgba(cell["mean"])
        # Rec. 709 luma: dark text on light cells.
        color = "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"
        is_difference = cell["quantity"] != "accuracy"
        beyond = is_difference and pd.notna(cell["ci_low"]) and (cell["ci_low"] > 0 or cell["ci_high"] < 0)
        text = f"{cell['mean']:+.1f}" if is_difference else f"{cell['mean']:.1f}"
        beside = [
            f"{head} {value:.2f}{f' {DERIVED}' if derived else ''}" for head, value, derived in shown_in(cell.to_dict())
        ]
        lift = (-0.14 if is_difference else 0) - (0.1 if beside else 0)
        weight = "bold" if beyond else "normal"
        axes.text(column, row + lift, text, ha="center", va="center", color=color, fontsize=TEXT_PT, fontweight=weight)
        under = [(0.36 if not beside else 0.3, f"({cell['accuracy']:.1f} %)")] if is_difference else []
        under += [(0.32 - lift, ", ".join(beside))] if beside else []
        for below, text in under:
            axes.text(column, row + lift + below, text, ha="center", va="center", color=color, fontsize=SMALL_PT)
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(sources)), sources)
    axes.set_xlabel("evaluated on")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[["left", "bottom"]].set_visible(False)


def _note(data: SweepData, groups: Sequence[Group], numbers: pd.DataFrame) -> str:
    counts = [int(count) for count in numbers["num_seeds"]]
    note = f"Mean over {seeds_note(counts)}, {data.examples} each."
    if (numbers["quantity"] == "difference to base").any():
        note += " In brackets the accuracy. Bold: the 95 % bootstrap interval over seeds and examples leaves out 0."
    else:
        note += " No difference to base: the sweep lacks it."
    left_out = [f"{group.label} on {group.source}" for group in groups if data.missing(group.run_ids)]
    missing = missing_note(data, [run_id for group in groups for run_id in group.run_ids], left_out)
    drawn = {group.run_ids[0] for group in groups if not data.missing(group.run_ids)}
    beside = published_note(
        number for (run_id, _), found in data.published.items() if run_id in drawn for number in found
    )
    return "\n".join(line for line in (note, beside, missing) if line)
