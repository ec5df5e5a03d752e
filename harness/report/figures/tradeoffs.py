"""What accuracy goes along with: how far a policy moved from its reference, and how long its run took."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness.report.curves import WINDOW, running_mean
from harness.report.figures.data import SweepData, missing_note, seeds_note
from harness.report.figures.drawn import Drawn, whiskers
from harness.report.figures.groups import Group, line_styles, trained_groups
from harness.report.figures.style import (
    MARKERS,
    METHOD_COLORS,
    PANEL_WIDTH_IN,
    Row,
    legend_columns,
    legend_height_in,
    panels,
    style,
)

COLUMNS = (
    *("source", "method", "settings", "seed", "x", "x_quantity", "x_unit", "mean", "ci_low", "ci_high", "unit"),
    *("num_seeds", "num_examples", "run_ids"),
)
_LOG_RATIO = 10.0


class _Against(NamedTuple):
    """What stands on the x axis.

    Attributes:
        name: Of the figure.
        quantity: In the numbers.
        unit: Of it.
        label: Of the axis.
        note: How it is measured.
        of_run: A run's value; None where it has none.
    """

    name: str
    quantity: str
    unit: str
    label: str
    note: str
    of_run: Callable[[SweepData, str], float | None]


def _final_kl(data: SweepData, run_id: str) -> float | None:
    table = data.curves.get("train/kl")
    if table is None or run_id not in table.columns:
        return None
    means = running_mean(table[run_id].to_numpy(), WINDOW)
    known = means[np.isfinite(means)]
    return float(known[-1]) if len(known) else None


_KL = _Against(
    "accuracy_kl",
    "KL to the reference",
    "nats per token",
    "KL, nats per token",
    f"KL: mean of the last {WINDOW} training steps, on sampled completions.",
    _final_kl,
)
_COST = _Against(
    "accuracy_cost",
    "time of the worker",
    "s",
    "seconds per run",
    "Time: all attempts of a run, with loading and evaluation, on its own machine.",
    lambda data, run_id: data.worker_s.get(run_id),
)


def kl_figure(data: SweepData) -> Drawn | None:
    """Accuracy on the task trained on against the KL at the end; None unless a method of the sweep measures it."""
    return _figure(data, _KL)


def cost_figure(data: SweepData) -> Drawn | None:
    """Accuracy on the task trained on against the time a run took; None unless it is on record."""
    return _figure(data, _COST)


def tradeoff_numbers(data: SweepData, groups: Sequence[Group], against: _Against) -> pd.DataFrame:
    """A row per run, and one per group with the means of both axes; of groups that miss no run and no value of x.

    Columns: source, method, settings (as JSON), seed (of a run's row; none of a group's and of `base`), x, x_quantity,
    x_unit, mean, ci_low, ci_high (accuracy on the source in %, a group's with the interval of the tables), unit,
    num_seeds, num_examples, run_ids. `base` has no x.
    """
    seeds = {cell.run_id: cell.seed for cell in data.asked.cells}
    rows = {row.run_ids: row for row in data.rows if row.table == "same_task" and row.ablation is None}
    records = []
    for group in groups:
        values = [against.of_run(data, run_id) for run_id in group.run_ids]
        row = rows.get(group.run_ids)
        if row is None or row.mean is None or None in values or row.missing_run_ids:
            continue
        about = {
            "source": group.source,
            "method": group.method,
            "settings": json.dumps(dict(group.settings), default=str),
            "x_quantity": against.quantity,
            "x_unit": against.unit,
            "unit": "%",
            "num_examples": row.num_examples,
        }
        for run_id, value, found in zip(group.run_ids, values, data.found(group.run_ids, row.target), strict=True):
            own = {"seed": seeds[run_id], "x": value, "mean": 100 * float(found.correct.mean())}
            records.append(about | own | {"num_seeds": 1, "run_ids": run_id})
        mean = float(np.mean([value for value in values if value is not None]))
        bounds = {key: None if end is None else 100 * end for key, end in _bounds(row.ci_low, row.ci_high)}
        of_group = {"x": mean, "mean": 100 * row.mean, "num_seeds": row.num_seeds, "run_ids": " ".join(row.run_ids)}
        records.append(about | of_group | bounds)
    for source in dict.fromkeys(str(record["source"]) for record in records):
        records += _base(data, source)
    return pd.DataFrame(records, columns=list(COLUMNS)).astype({"x": float, "mean": float, "seed": "Int64"})


def _bounds(low: float | None, high: float | None) -> tuple[tuple[str, float | None], ...]:
    return ("ci_low", low), ("ci_high", high)


def _base(data: SweepData, source: str) -> list[dict[str, object]]:
    """The untouched policy on a task, where the sweep asks for one alone."""
    of_base = [
        row
        for row in data.rows
        if (row.source, row.table, row.target, row.ablation) == (None, "same_task", source, None)
    ]
    if len(of_base) != 1 or of_base[0].mean is None:
        return []
    row = of_base[0]
    assert row.mean is not None
    own = {"source": source, "method": row.method, "settings": "{}", "mean": 100 * row.mean, "unit": "%"}
    bounds = {key: None if end is None else 100 * end for key, end in _bounds(row.ci_low, row.ci_high)}
    counts = {"num_seeds": row.num_seeds, "num_examples": row.num_examples, "run_ids": " ".join(row.run_ids)}
    return [own | bounds | counts]


@style()
def _figure(data: SweepData, against: _Against) -> Drawn | None:
    groups = trained_groups(data)
    numbers = tradeoff_numbers(data, groups, against)
    trained = numbers[numbers["x"].notna()]
    if trained.empty:
        return None
    drawn = [group for group in groups if (trained["run_ids"] == " ".join(group.run_ids)).any()]
    sources = list(dict.fromkeys(group.source for group in drawn))
    labels = {group.label for group in drawn}
    # Of all groups, so that a method has one marker in both figures.
    markers = {label: MARKERS[at % len(MARKERS)] for at, label in enumerate(line_styles(groups))}
    styles = {label: color for label, (color, _) in line_styles(groups).items() if label in labels}
    is_log = trained["x"].min() > 0 and trained["x"].max() > _LOG_RATIO * trained["x"].min()
    has_base = bool(numbers["x"].isna().any())
    names = [*styles, *(["base"] if has_base else [])]
    width_in = len(sources) * PANEL_WIDTH_IN
    layout = [Row("points", 1.9, 0.75 + legend_height_in(names, width_in=width_in))]
    figure, grid = panels(layout, len(sources), _note(data, groups, drawn, trained, against))
    for axes, source in zip(grid[0], sources, strict=True):
        own = numbers[numbers["source"] == source]
        for group in (group for group in drawn if group.source == source):
            _draw(axes, own, group, styles[group.label], markers[group.label])
        for _, row in own[own["x"].isna()].iterrows():
            axes.axhline(row["mean"], color=METHOD_COLORS["base"], linestyle="--", linewidth=1.0)
        if is_log:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_title(f"trained on {source}")
        axes.set_xlabel(against.label)
        axes.grid(axis="x", visible=True)
        axes.margins(0.08)
    grid[0][0].set_ylabel("accuracy, %")
    entries = [
        Line2D([], [], color=color, marker=markers[label], linestyle="none", label=label)
        for label, color in styles.items()
    ]
    if has_base:
        entries.append(Line2D([], [], color=METHOD_COLORS["base"], linestyle="--", linewidth=1.0, label="base"))
    figure.legend(handles=entries, loc="outside upper center", ncols=legend_columns(names, width_in))
    return Drawn(against.name, figure, numbers)


def _draw(axes: Axes, own: pd.DataFrame, group: Group, color: str, marker: str) -> None:
    """A group's runs small and pale, their mean over them with its interval."""
    runs = own[own["run_ids"].isin(group.run_ids) & own["seed"].notna()]
    axes.plot(runs["x"], runs["mean"], linestyle="none", marker=marker, color=color, alpha=0.35, markersize=3)
    mean = own[(own["run_ids"] == " ".join(group.run_ids)) & own["seed"].isna()]
    axes.errorbar(
        mean["x"],
        mean["mean"],
        yerr=whiskers(mean),
        linestyle="none",
        marker=marker,
        color=color,
        markeredgecolor="#222222",
        markeredgewidth=0.5,
        markersize=5.5,
        elinewidth=1.0,
        zorder=3,
    )


def _note(
    data: SweepData, groups: Sequence[Group], drawn: Sequence[Group], trained: pd.DataFrame, against: _Against
) -> str:
    counts = [int(count) for count in trained.loc[trained["seed"].isna(), "num_seeds"]]
    few = ", none below 3 seeds" if min(counts) < 3 else ""
    note = (
        f"Pale: a run. Full: mean over {seeds_note(counts)}, {data.examples} of the task trained on each; lines: 95 % "
        f"bootstrap interval of the accuracy over seeds and examples{few}. {against.note}"
    )
    complete = [group for group in groups if not data.missing(group.run_ids)]
    without = list(dict.fromkeys(group.label for group in complete if group not in drawn))
    lacking = f"No {against.quantity} on record: {', '.join(without)}." if without else ""
    left_out = [f"{group.label} on {group.source}" for group in groups if data.missing(group.run_ids)]
    missing = missing_note(data, [run_id for group in groups for run_id in group.run_ids], left_out)
    return "\n".join(line for line in (note, lacking, missing) if line)
