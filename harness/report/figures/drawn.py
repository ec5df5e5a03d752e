"""A figure with its name and its numbers, and how bands, points and axes are drawn alike in all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


@dataclass(frozen=True)
class Drawn:
    """What is written to disk under one name.

    Attributes:
        name: Of the files, without suffix.
        figure: Not yet written.
        numbers: Exactly what is plotted, in the units of the axes.
    """

    name: str
    figure: Figure
    numbers: pd.DataFrame


def draw_curve(axes: Axes, curve: pd.DataFrame, *, color: str, label: str, dash: Any = "-", marker: str = "") -> None:
    """A mean over steps with its band where there is one.

    Args:
        axes: Drawn on.
        curve: Columns step, mean, ci_low, ci_high.
        color: Of line and band.
        label: For the legend.
        dash: The line's style.
        marker: At each step; empty for none.
    """
    axes.plot(curve["step"], curve["mean"], color=color, linestyle=dash, marker=marker, markersize=3, label=label)
    if curve["ci_low"].notna().any():
        low, high = curve["ci_low"].astype(float), curve["ci_high"].astype(float)
        axes.fill_between(curve["step"], low, high, color=color, alpha=0.18, linewidth=0)


def whiskers(points: pd.DataFrame) -> list[list[float]] | None:
    """The lengths below and above each mean, as `errorbar` takes them; NaN for none, None where no point has any."""
    if not points["ci_low"].notna().any():
        return None
    mean = points["mean"].astype(float)
    # A bound may pass the mean by a rounding error.
    below = (mean - points["ci_low"].astype(float)).clip(lower=0)
    above = (points["ci_high"].astype(float) - mean).clip(lower=0)
    return [below.tolist(), above.tolist()]


def over_steps(axes: Axes, *, label: bool) -> None:
    """The axis of steps, whole numbers."""
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if label:
        axes.set_xlabel("step")


def nothing_here(axes: Axes, text: str) -> None:
    """A panel that has nothing to show says so."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color="#555555")
