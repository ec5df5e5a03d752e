"""The lines of figures about a whole sweep: one per method, source and settings that the sweep varies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report.figures.data import SweepData, shown_settings
from harness.report.figures.style import DASHES, method_color, tints


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seed alone.

    Attributes:
        method: The method's type.
        source: The task trained on.
        settings: What the sweep varies within the method.
        run_ids: One per seed.
    """

    method: str
    source: str
    settings: Mapping[str, Any]
    run_ids: tuple[str, ...]

    @property
    def label(self) -> str:
        """The method, with its settings where they vary."""
        return label_of(self.method, self.settings)


def label_of(method: str, settings: Mapping[str, Any]) -> str:
    """A method with its settings, such as ``"grpo (beta=0.01)"``."""
    return f"{method} ({shown_settings(settings)})" if settings else method


def trained_groups(data: SweepData) -> list[Group]:
    """The groups that the tables have rows for, without `base` and ablations; in their order."""
    found: dict[tuple[str, str], Group] = {}
    for row in data.rows:
        if row.source is not None and row.ablation is None:
            key = (json.dumps([row.method, dict(row.settings)], sort_keys=True, default=str), row.source)
            run_ids = (*row.run_ids, *row.missing_run_ids)
            found.setdefault(key, Group(row.method, row.source, row.settings, run_ids))
    return list(found.values())


def line_styles(groups: Sequence[Group]) -> dict[str, tuple[str, Any]]:
    """By label, colour and dash: a method's colour, from full to light over its settings."""
    labels: dict[str, dict[str, None]] = {}
    for group in groups:
        labels.setdefault(group.method, {})[group.label] = None
    styles = {}
    for method, of_method in labels.items():
        for at, (label, color) in enumerate(zip(of_method, tints(method_color(method), len(of_method)), strict=True)):
            styles[label] = (color, DASHES[at % len(DASHES)])
    return styles
