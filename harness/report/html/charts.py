"""The curves and schedules of a sweep as lines that a page draws: the same numbers as its figures, and each seed's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from harness.report.curves import WINDOW
from harness.report.figures.curves import curve_numbers
from harness.report.figures.data import SweepData, shown_settings
from harness.report.figures.groups import Group, line_styles, trained_groups
from harness.report.figures.schedules import schedule_numbers
from harness.report.figures.style import DASHES, value_colors
from harness.report.html.pack import rounded

PANEL_TITLES: Mapping[str, str] = {
    "reward": "Reward",
    "accuracy": "Accuracy of sampled completions",
    "format": "Sampled completions in the right format",
    "validation": "Accuracy on validation examples",
    "kl": "KL to the reference",
    "beta": "beta",
    "length": "Length of completions",
    "grad_norm": "Gradient norm",
}
"""By the panels of :mod:`harness.report.figures.curves`; another one keeps its name."""


def curve_chart(data: SweepData, *, window: int = WINDOW) -> dict[str, Any] | None:
    """Training curves: the mean over seeds with its band, and every seed that is complete.

    Args:
        data: The sweep's.
        window: Steps of the running mean.

    Returns:
        `panels` (name, title, unit), `sources` and `lines`; a line has panel, source, label, method, seed (None for a
        mean), color, dash, steps, values, low and high. None where no run has metrics.
    """
    if not data.curves:
        return None
    groups = trained_groups(data)
    seeds = {cell.run_id: cell.seed for cell in data.asked.cells}
    alone = [Group(group.method, group.source, group.settings, (run,)) for group in groups for run in group.run_ids]
    styles = line_styles(groups)
    lines: list[dict[str, Any]] = []
    units: dict[str, str] = {}
    for of_lines, is_mean in ((groups, True), (alone, False)):
        numbers = curve_numbers(data, of_lines, window=window)
        units |= dict(zip(numbers["panel"], numbers["unit"], strict=True))
        for (panel, source, run_ids), rows in _grouped(numbers, ("panel", "source", "run_ids")):
            group = next(one for one in of_lines if " ".join(one.run_ids) == run_ids)
            color, dash = styles[group.label]
            seed = None if is_mean else seeds[run_ids]
            about = {"panel": panel, "source": source, "label": group.label, "method": group.method, "seed": seed}
            lines.append(about | {"color": color, "dash": _dash(dash)} | _points(rows, has_band=is_mean))
    return _chart(lines, units) if lines else None


def schedule_chart(data: SweepData) -> dict[str, Any] | None:
    """Beta by its formula (an adaptive one as measured) for every schedule; as :func:`curve_chart`."""
    numbers = schedule_numbers(data)
    if numbers.empty:
        return None
    methods = {cell.run_id: cell.method for cell in data.asked.cells}
    lines = []
    for source, own in numbers.groupby("source", sort=False):
        of_source = list(_grouped(own, ("schedule", "settings", "run_ids")))
        colors = value_colors([kind for (kind, _, _), _ in of_source], ordered=False)
        for ((kind, settings, run_ids), rows), color in zip(of_source, colors, strict=True):
            of = ", ".join(dict.fromkeys(methods[run_id] for run_id in run_ids.split()))
            label = f"{of}: {kind} ({shown_settings(json.loads(settings))})"
            about = {"panel": "beta", "source": source, "label": label, "method": of, "seed": None}
            lines.append(about | {"color": color, "dash": []} | _points(rows, has_band=True))
    return _chart(lines, {"beta": ""})


def _grouped(numbers: pd.DataFrame, keys: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], pd.DataFrame]]:
    for values, rows in numbers.groupby(list(keys), sort=False):
        yield tuple(map(str, values)), rows


def _points(rows: pd.DataFrame, *, has_band: bool) -> dict[str, Any]:
    points: dict[str, Any] = {"steps": [int(step) for step in rows["step"]], "values": rounded(rows["mean"])}
    if has_band and rows["ci_low"].notna().any():
        points |= {"low": rounded(rows["ci_low"]), "high": rounded(rows["ci_high"])}
    return points


def _dash(dash: Any) -> list[float]:
    """A line's dashes in pixels; matplotlib's are in line widths."""
    return [] if dash == DASHES[0] else [1.6 * length for length in dash[1]]


def _chart(lines: list[dict[str, Any]], units: Mapping[str, str]) -> dict[str, Any]:
    panels = [
        {"name": name, "title": PANEL_TITLES.get(name, name), "unit": units.get(name, "")}
        for name in dict.fromkeys(str(line["panel"]) for line in lines)
    ]
    return {"panels": panels, "sources": list(dict.fromkeys(line["source"] for line in lines)), "lines": lines}
