"""How training went: rewards, KL, beta, length and gradient norm over steps, per method and source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from harness.report.curves import mean_curve
from harness.report.figures.data import SweepData, missing_note, seeds_note
from harness.report.figures.drawn import Drawn, draw_curve, over_steps
from harness.report.figures.groups import Group, line_styles, trained_groups
from harness.report.figures.style import PANEL_WIDTH_IN, Row, legend_columns, legend_height_in, panels, style

COLUMNS = (
    *("panel", "metric", "method", "source", "settings", "step", "mean", "ci_low", "ci_high", "unit", "num_seeds"),
    *("run_ids",),
)
MAX_BANDS = 8
"""With more lines their bands would be one blur: none is drawn."""


class _Panel(NamedTuple):
    """One row: a metric of `metrics.jsonl` (`{source}` is the task trained on), its label and factor."""

    name: str
    metric: str
    label: str
    unit: str
    factor: float = 1.0
    is_smoothed: bool = True
    marker: str = ""
    is_norm: bool = False


_PANELS = (
    _Panel("reward", "rollout/reward", "reward", "reward"),
    _Panel("accuracy", "rollout/accuracy", "rollout\naccuracy, %", "%", 100),
    _Panel("format", "rollout/format", "rollouts in\nformat, %", "%", 100),
    _Panel("validation", "eval/{source}/accuracy", "validation\naccuracy, %", "%", 100, is_smoothed=False, marker="o"),
    _Panel("kl", "train/kl", "KL, nats per token", "nats per token"),
    # A setting rather than a measurement: smoothing would hide the turn of a schedule.
    _Panel("beta", "train/beta", "beta", "beta", is_smoothed=False),
    _Panel("length", "rollout/length", "length, tokens", "tokens"),
    _Panel("grad_norm", "train/grad_norm", "gradient norm", "L2 norm", is_norm=True),
)


def curve_numbers(data: SweepData, groups: Sequence[Group], *, window: int) -> pd.DataFrame:
    """The mean curves of every group without missing runs, in the units of the axes.

    Columns: panel, metric, method, source, settings (as JSON), step, mean, ci_low, ci_high, unit, num_seeds, run_ids.

    Args:
        data: The sweep's.
        groups: From :func:`harness.report.figures.groups.trained_groups`.
        window: Steps of the running mean; beta and validation accuracy are as measured.
    """
    rows = []
    for panel in _PANELS:
        for group in _complete(data, groups):
            metric = panel.metric.format(source=group.source)
            curve = mean_curve(data.curves.get(metric), group.run_ids, window=window if panel.is_smoothed else 1)
            curve[["mean", "ci_low", "ci_high"]] *= panel.factor
            about = {
                "panel": panel.name,
                "metric": metric,
                "method": group.method,
                "source": group.source,
                "settings": json.dumps(dict(group.settings), default=str),
                "unit": panel.unit,
                "run_ids": " ".join(group.run_ids),
            }
            rows += [about | {str(key): value for key, value in row.items()} for row in curve.to_dict("records")]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@style()
def curves_figure(data: SweepData, *, window: int) -> Drawn | None:
    """The figure; None unless any run of the sweep has metrics."""
    groups = trained_groups(data)
    numbers = curve_numbers(data, groups, window=window)
    if numbers.empty:
        return None
    sources = [
        source for source in dict.fromkeys(group.source for group in groups) if (numbers["source"] == source).any()
    ]
    rows = [panel for panel in _PANELS if (numbers["panel"] == panel.name).any()]
    labels = {group.label for group in _complete(data, groups)}
    styles = {key: look for key, look in line_styles(groups).items() if key in labels}
    if len(styles) > MAX_BANDS:
        numbers[["ci_low", "ci_high"]] = np.nan
    layout = [Row(panel.name, 1.05, 0.75 if panel in (rows[0], rows[-1]) else 0.4) for panel in rows]
    layout[0] = layout[0]._replace(
        around_in=0.6 + legend_height_in(list(styles), width_in=len(sources) * PANEL_WIDTH_IN)
    )
    figure, grid = panels(
        layout, len(sources), _note(data, groups, numbers, window, has_bands=len(styles) <= MAX_BANDS)
    )
    last = int(numbers["step"].max())
    for at, source in enumerate(sources):
        grid[0][at].set_title(f"trained on {source}")
        for row, panel in zip(grid, rows, strict=True):
            own = numbers[(numbers["panel"] == panel.name) & (numbers["source"] == source)]
            _draw(row[at], own, panel, [group for group in groups if group.source == source], styles)
            over_steps(row[at], label=panel is rows[-1])
            row[at].set_xlim(-0.03 * last, 1.03 * last)
            if at == 0:
                smoothed = f"\n(mean of {window} steps)" if panel.is_smoothed and window > 1 else ""
                row[at].set_ylabel(panel.label + smoothed)
    lines = [Line2D([], [], color=color, linestyle=dash, label=label) for label, (color, dash) in styles.items()]
    columns = legend_columns(list(styles), len(sources) * PANEL_WIDTH_IN)
    figure.legend(handles=lines, loc="outside upper center", ncols=columns)
    figure.align_ylabels([row[0] for row in grid])
    return Drawn("curves", figure, numbers)


def _draw(
    axes: Axes, own: pd.DataFrame, panel: _Panel, groups: Sequence[Group], styles: Mapping[str, tuple[str, Any]]
) -> None:
    for group in groups:
        curve = own[own["run_ids"] == " ".join(group.run_ids)]
        if not curve.empty:
            color, dash = styles[group.label]
            draw_curve(axes, curve, color=color, label=group.label, dash=dash, marker=panel.marker)
    # Of methods far apart, only a logarithm shows them all; a band that reaches 0 has no lower end there.
    if panel.is_norm and not own.empty and own["mean"].min() > 0 and own["mean"].max() > 10 * own["mean"].min():
        axes.set_yscale("log")
        axes.set_ylim(bottom=own["mean"].min() / 2)


def _complete(data: SweepData, groups: Sequence[Group]) -> list[Group]:
    return [group for group in groups if not data.missing(group.run_ids)]


def _note(data: SweepData, groups: Sequence[Group], numbers: pd.DataFrame, window: int, *, has_bands: bool) -> str:
    counts = [int(count) for count in numbers["num_seeds"]]
    smoothed = f"Mean of {window} steps: running mean over the last {window}. " if window > 1 else ""
    bands = "bands: 95 % t-interval of that mean" + ("" if min(counts) >= 3 else ", none below 3 seeds")
    bands = bands if has_bands else "no bands, being too many"
    examples = data.asked.evaluation.num_validation
    lines = [f"{smoothed}Lines: mean over {seeds_note(counts)}; {bands}."]
    if (numbers["panel"] == "validation").any():
        lines.append(f"Validation: {examples} examples of the task trained on.")
    lines.append(
        missing_note(
            data,
            [run_id for group in groups for run_id in group.run_ids],
            [f"{group.label} on {group.source}" for group in groups if data.missing(group.run_ids)],
        )
    )
    return "\n".join(line for line in lines if line)
