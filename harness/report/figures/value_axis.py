"""Where the values of a setting stand on an axis: numbers by their size, anything else evenly spaced in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes

from harness.report.figures.ablated import Point

_LOG_RATIO = 10
_CLOSEST = 0.1
_DODGE = 0.12
_CROWDED_CHARACTERS = 34


@dataclass(frozen=True)
class ValueAxis:
    """The places of a setting's values.

    Attributes:
        at: By label.
        is_ordered: Whether the values are numbers, so that a line between two of them means something.
        is_log: Whether the axis is logarithmic.
        is_even: Whether the places are 0, 1, 2 and so on, whatever the values.
    """

    at: Mapping[str, float]
    is_ordered: bool
    is_log: bool = False
    is_even: bool = False

    def places(self, labels: Sequence[str], series: int = 0, num_series: int = 1) -> list[float]:
        """Where the points of a series go; without lines between them, several series stand side by side."""
        aside = 0.0 if self.is_ordered else _DODGE * (series - (num_series - 1) / 2)
        return [self.at[label] + aside for label in labels]

    @property
    def is_crowded(self) -> bool:
        """Whether the labels are too long to stand side by side."""
        return sum(len(label) + 1 for label in self.at) > _CROWDED_CHARACTERS

    @property
    def depth_in(self) -> float:
        """Inches that slanting or upright labels take below the axis."""
        longest = max((len(part) for label in self.at for part in _lines(label)), default=0)
        return (0.06 if self._has_lines else 0.045) * longest if self.is_crowded else 0.0

    @property
    def _has_lines(self) -> bool:
        """Whether a label has several lines, which would run into each other if they were slanting."""
        return any(len(_lines(label)) > 1 for label in self.at)

    def label(self, axes: Axes, name: str) -> None:
        """Puts ticks, labels and the setting's name on the x axis."""
        if self.is_log:
            axes.set_xscale("log")
            axes.minorticks_off()
        elif self.is_even:
            axes.set_xlim(-0.5, len(self.at) - 0.5)
        labels = ["\n".join(_lines(label)) for label in self.at]
        if self.is_crowded and self._has_lines:
            axes.set_xticks(list(self.at.values()), labels, rotation=90, ha="center", ma="right", linespacing=1.0)
        elif self.is_crowded:
            axes.set_xticks(list(self.at.values()), labels, rotation=40, ha="right", rotation_mode="anchor")
        else:
            axes.set_xticks(list(self.at.values()), labels)
        axes.set_xlabel(name)


def value_axis(points: Sequence[Point], *, is_ordered: bool) -> ValueAxis:
    """The axis of an ablation's values.

    Numbers stand by their size, on a logarithmic axis over a decade or more; where some would crowd, evenly spaced.
    """
    labels = [point.label for point in points]
    if is_ordered and len(points) > 1:
        values = [float(point.value) for point in points]
        at = dict(zip(labels, values, strict=True))
        if min(values) > 0 and max(values) / min(values) >= _LOG_RATIO:
            return ValueAxis(at, is_ordered, is_log=True)
        if min(after - before for before, after in pairwise(values)) >= _CLOSEST * (values[-1] - values[0]):
            return ValueAxis(at, is_ordered)
    return ValueAxis({label: float(place) for place, label in enumerate(labels)}, is_ordered, is_even=True)


def _lines(label: str) -> list[str]:
    """A label, what comes along with the value below it."""
    value, _, rest = label.partition(" (")
    return [value, *(part.removesuffix(")") for part in rest.split(", ") if part)]
