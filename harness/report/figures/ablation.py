"""One figure per setting that a sweep varies: accuracy, accuracy by format, reward and KL over steps.

A column per method, source and combination of the other settings; a row per question. Where nothing was sampled (SFT),
the rows over steps say so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from harness.report.figures.ablated import GRPO_LABEL, Ablation, ablations, file_stem
from harness.report.figures.ablation_numbers import PUBLISHED, ablation_numbers, complete_points
from harness.report.figures.data import SweepData, missing_note, seeds_note, short_name, shown_settings
from harness.report.figures.drawn import Drawn, draw_curve, nothing_here, over_steps, whiskers
from harness.report.figures.published import draw_mark, mark_label, marks_note
from harness.report.figures.style import (
    BLACK,
    MARKERS,
    PANEL_WIDTH_IN,
    PURPLE,
    SKY,
    Row,
    legend_columns,
    legend_height_in,
    method_color,
    panels,
    style,
    value_colors,
)
from harness.report.figures.value_axis import ValueAxis, value_axis
from harness.report.published import KINDS

_LEGEND_WIDTH_IN = PANEL_WIDTH_IN - 0.1
"""Inches from a panel's right end to the left end of its column."""

MAX_COLUMNS = 4
"""More go to further files."""

_PANELS = ("accuracy", "by_format", "reward", "kl")
_OVER_STEPS = ("reward", "kl")
_BY_FORMAT = {
    "right format": (BLACK, "o", "in the right format"),
    "accuracy in the right format": (SKY, "s", "accuracy if so"),
    "accuracy in another format": (PURPLE, "^", "accuracy if not"),
}


def ablation_figures(data: SweepData, *, window: int) -> Iterator[Drawn]:
    """The figure of every setting that the sweep varies within a method and has results for.

    Args:
        data: The sweep's.
        window: Steps of the running mean of reward and KL.
    """
    of_setting = ablations(data.asked, data.specs)
    for setting, every in of_setting.items():
        columns = [one for one in every if complete_points(data, one)]
        for start in range(0, len(columns), MAX_COLUMNS):
            part = columns[start : start + MAX_COLUMNS]
            number = f"_{start // MAX_COLUMNS + 1}" if len(columns) > MAX_COLUMNS else ""
            numbers = ablation_numbers(data, part, window=window)
            name = f"{file_stem(setting, of_setting)}{number}"
            # Columns without any result are told of once, in the first file.
            untold = [one for one in every if one not in columns] if start == 0 else []
            yield _drawn(name, data, part, [*part, *untold], numbers, window)


@style()
def _drawn(
    name: str, data: SweepData, columns: list[Ablation], asked: list[Ablation], numbers: pd.DataFrame, window: int
) -> Drawn:
    drawn = [panel for panel in _PANELS if (numbers["panel"] == panel).any()]
    scales = [value_axis(complete_points(data, one), is_ordered=one.ordered) for one in columns]
    colors = _colors(data, columns)
    rows = _rows(numbers, columns, scales, list(colors))
    figure, grid = panels(rows, len(columns), _note(data, asked, numbers, drawn))
    for at, (ablation, scale) in enumerate(zip(columns, scales, strict=True)):
        fixed = json.dumps(dict(ablation.fixed), sort_keys=True, default=str)
        own = numbers[
            (numbers["method"] == ablation.method)
            & (numbers["source"] == ablation.source)
            & (numbers["fixed"] == fixed)
        ]
        heading = f"{ablation.method} on {ablation.source}"
        grid[0][at].set_title(f"{heading}\n{shown_settings(ablation.fixed)}" if ablation.fixed else heading)
        below = {row.name: axes[at] for row, axes in zip(rows, grid, strict=True)}
        for panel in drawn:
            axes, of_panel = below[panel], own[own["panel"] == panel]
            if panel == "accuracy":
                _draw_accuracy(axes, of_panel, ablation, scale)
                _legend(below["accuracy_legend"], axes)
            elif panel == "by_format":
                _draw_by_format(axes, of_panel, ablation, scale)
                _legend(below["by_format_legend"], axes)
            else:
                _draw_over_steps(axes, of_panel, panel, colors, window)
        if "values_legend" in below:
            values, title = own[own["panel"].isin(_OVER_STEPS)]["value"], short_name(ablation.setting)
            _value_legend(below["values_legend"], {v: colors[v] for v in dict.fromkeys(values)}, title)
    first = {row.name: axes[0] for row, axes in zip(rows, grid, strict=True)}
    for panel, letter in zip(drawn, "abcd", strict=False):
        first[panel].set_title(f"({letter})", loc="left", fontweight="bold")
    return Drawn(name, figure, numbers)


def _rows(
    numbers: pd.DataFrame, columns: Sequence[Ablation], scales: Sequence[ValueAxis], values: Sequence[str]
) -> list[Row]:
    """The rows of panels, and those of their legends below them."""
    drawn = [panel for panel in _PANELS if (numbers["panel"] == panel).any()]
    longest = max((target for ablation in columns for target in ablation.targets), key=len)
    quantities = set(numbers["quantity"])
    num_targets = max(len(ablation.targets) for ablation in columns)
    labels = {
        "accuracy": [f"{longest}, trained on"] * num_targets * (2 if "base" in quantities else 1),
        "by_format": [label for _, _, label in _BY_FORMAT.values()],
    }
    printed = _printed(numbers)
    for quantity, target in printed[["quantity", "target"]].drop_duplicates().itertuples(index=False):
        head, is_derived = _work(quantity)
        labels["accuracy"].append(mark_label(head, target, is_derived=is_derived))
    deep = max(scale.depth_in for scale in scales)
    heading = 0.3 if any(ablation.fixed for ablation in columns) else 0.15
    rows: list[Row] = []
    for panel in drawn:
        on_values = panel not in _OVER_STEPS
        around = 0.55 + (deep if on_values else 0.0) + (heading if panel == drawn[0] else 0.0)
        rows.append(Row(panel, 1.45, around))
        if on_values:
            rows.append(Row(f"{panel}_legend", legend_height_in(labels[panel], width_in=_LEGEND_WIDTH_IN), 0.0))
    if drawn[-1] in _OVER_STEPS:
        rows.append(Row("values_legend", legend_height_in(values, width_in=_LEGEND_WIDTH_IN, has_title=True), 0.0))
    return rows


def _draw_accuracy(axes: Axes, numbers: pd.DataFrame, ablation: Ablation, scale: ValueAxis) -> None:
    color = method_color(ablation.method)
    for at, target in enumerate(ablation.targets):
        of_target = numbers[numbers["target"] == target]
        same = target == ablation.source
        ours = of_target[of_target["quantity"].isin(("accuracy", "cross-task accuracy"))]
        axes.errorbar(
            scale.places(list(ours["value"]), at, len(ablation.targets)),
            ours["mean"],
            yerr=whiskers(ours),
            color=color,
            linestyle=("-" if same else ":") if scale.is_ordered else "none",
            marker=MARKERS[at % len(MARKERS)],
            markerfacecolor=color if same else "white",
            elinewidth=0.8,
            label=f"{target}, {'trained on' if same else 'cross task'}",
        )
        base = of_target[of_target["quantity"] == "base"]
        line: dict[str, Any] = {"color": method_color("base"), "linestyle": "--" if same else ":", "linewidth": 1.0}
        if base["run_ids"].nunique() == 1:
            axes.axhline(base["mean"].iloc[0], label=f"base, {target}", **line)
        elif not base.empty:
            axes.plot(scale.places(list(base["value"])), base["mean"], label=f"base, {target}", **line)
    axes.set_ylabel("accuracy, %")
    scale.label(axes, short_name(ablation.setting))
    _draw_published(axes, _printed(numbers), ablation, scale)


def _draw_published(axes: Axes, printed: pd.DataFrame, ablation: Ablation, scale: ValueAxis) -> None:
    """Marks without a line: the values between them were not printed."""
    for (quantity, target), part in printed.groupby(["quantity", "target"], sort=False):
        head, is_derived = _work(str(quantity))
        label = mark_label(head, str(target), is_derived=is_derived)
        same = target == ablation.source
        draw_mark(axes, head, scale.places(list(part["value"])), part["mean"], is_filled=same, label=label)


def _draw_by_format(axes: Axes, numbers: pd.DataFrame, ablation: Ablation, scale: ValueAxis) -> None:
    if numbers.empty:
        nothing_here(axes, "no format on record")
        return
    for at, (quantity, (color, marker, label)) in enumerate(_BY_FORMAT.items()):
        part = numbers[numbers["quantity"] == quantity]
        if part.empty:
            continue
        axes.errorbar(
            scale.places(list(part["value"]), at, len(_BY_FORMAT)),
            part["mean"],
            yerr=whiskers(part),
            color=color,
            marker=marker,
            linestyle="-" if scale.is_ordered else "none",
            elinewidth=0.8,
            label=label,
        )
    axes.set_ylabel(f"of {ablation.source}\ncompletions, %")
    axes.set_ylim(-4, 104)
    scale.label(axes, short_name(ablation.setting))


def _draw_over_steps(axes: Axes, numbers: pd.DataFrame, panel: str, colors: Mapping[str, str], window: int) -> None:
    if numbers.empty:
        nothing_here(axes, "nothing sampled in training" if panel == "reward" else "no KL measured")
        return
    for value in dict.fromkeys(numbers["value"]):
        draw_curve(axes, numbers[numbers["value"] == value], color=colors[value], label=value)
    over_steps(axes, label=True)
    what = "reward" if panel == "reward" else "KL, nats per token"
    axes.set_ylabel(f"{what}\n(running mean, {window} steps)" if window > 1 else what)


def _legend(below: Axes, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    texts = [str(label) for label in labels]
    _place(below, handles, texts)


def _value_legend(below: Axes, colors: Mapping[str, str], title: str) -> None:
    """Colours hold for reward and KL alike, so one legend stands below both."""
    handles = [below.plot([], [], color=color)[0] for color in colors.values()]
    _place(below, handles, list(colors), title=title)


def _place(below: Axes, handles: list[Any], labels: list[str], *, title: str | None = None) -> None:
    if not labels:
        return
    # Right-aligned and not part of the layout, so that a wide legend takes the room under the axis' labels.
    columns = legend_columns(labels, _LEGEND_WIDTH_IN)
    legend = below.legend(handles, labels, title=title, loc="center right", bbox_to_anchor=(1.0, 0.5), ncols=columns)
    legend.set_in_layout(False)


def _printed(numbers: pd.DataFrame) -> pd.DataFrame:
    """What was published elsewhere."""
    return numbers[numbers["quantity"].str.startswith(PUBLISHED)]


def _work(quantity: str) -> tuple[str, bool]:
    """The work that a published quantity is of, and whether it is derived."""
    head, _, kind = quantity.removeprefix(PUBLISHED).rpartition(", ")
    return head, kind != KINDS[0]


def _colors(data: SweepData, columns: Sequence[Ablation]) -> dict[str, str]:
    """One colour per value in all columns of a figure."""
    points = {point.label: point for ablation in columns for point in complete_points(data, ablation)}
    ordered = all(ablation.ordered for ablation in columns)
    found = sorted(points.values(), key=lambda point: point.value) if ordered else list(points.values())
    colors = value_colors([point.value for point in found], ordered=ordered)
    return dict(zip((point.label for point in found), colors, strict=True))


def _note(data: SweepData, asked: Sequence[Ablation], numbers: pd.DataFrame, drawn: Sequence[str]) -> str:
    name = short_name(asked[0].setting)
    ours = numbers[(numbers["panel"] == "accuracy") & numbers["num_seeds"].notna() & (numbers["quantity"] != "base")]
    counts = [int(count) for count in ours["num_seeds"]]
    few = ", none below 3 seeds" if min(counts) < 3 else ""
    lines = [
        f"Points: mean over {seeds_note(counts)}, {data.examples} each; bars: 95 % bootstrap "
        f"interval over seeds and examples{few}."
    ]
    if any(panel in _OVER_STEPS for panel in drawn):
        lines.append(f"Lines over steps: mean over seeds; bands: 95 % t-interval of that mean{few}.")
    if "reward" in drawn and name == "format_weight":
        lines.append("Reward is accuracy + format_weight x format, so its height differs by what is varied.")
    beside = [
        number
        for one in asked
        for point in complete_points(data, one)
        for target in one.targets
        for number in data.published.get((point.run_ids[0], target), ())
    ]
    lines.append(marks_note(beside))
    measured = set(numbers[numbers["panel"] == "kl"]["value"])
    without = [
        value for value in dict.fromkeys(numbers[numbers["panel"] == "reward"]["value"]) if value not in measured
    ]
    if "kl" in drawn and without:
        lines.append(f"No KL measured, there being no reference: {name} {', '.join(without)}.")
    if any(point.label == GRPO_LABEL for ablation in asked for point in ablation.points):
        lines.append(f"{GRPO_LABEL}: plain GRPO, which may differ in other settings that its method has.")
    every = [(ablation, point) for ablation in asked for point in ablation.points]
    left_out = [
        f"{name}={point.label} of {shown_settings({'method': one.method, 'source': one.source, **one.fixed})}"
        for one, point in every
        if data.missing(point.run_ids)
    ]
    lines.append(missing_note(data, [run_id for _, point in every for run_id in point.run_ids], left_out))
    return "\n".join(line for line in lines if line)
