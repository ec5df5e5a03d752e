"""The numbers of an ablation's figure: accuracy, accuracy by format, reward and KL over steps, for each value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.report.collect import Measurement
from harness.report.curves import mean_curve
from harness.report.figures.ablated import Ablation, Point, base_run
from harness.report.figures.by_format import Share, share_among
from harness.report.figures.data import SweepData
from harness.report.stats import Estimate, interval_rng, two_level_bootstrap

CURVES: Mapping[str, tuple[str, str]] = {
    "reward": ("rollout/reward", "reward"),
    "kl": ("train/kl", "nats per token"),
}
"""Panels over steps: metric and unit."""

PUBLISHED = "published: "
"""Begins the quantity of what was printed elsewhere, followed by the work and whether it is direct or derived."""

COLUMNS = (
    *("panel", "quantity", "setting", "value", "method", "source", "fixed", "target", "step", "mean", "ci_low"),
    *("ci_high", "unit", "num_seeds", "num_examples", "num_hits", "num_of", "run_ids"),
)
_COUNTS = dict.fromkeys(("step", "num_seeds", "num_examples", "num_hits", "num_of"), "Int64")


def ablation_numbers(data: SweepData, columns: Sequence[Ablation], *, window: int) -> pd.DataFrame:
    """Every number of an ablation's figure, in the units of its axes.

    Columns: panel (`accuracy`, `by_format`, `reward`, `kl`), quantity, setting, value (as labelled), method, source,
    fixed (the other settings, as JSON), target, step, mean, ci_low, ci_high, unit, num_seeds, num_examples (of each
    run), num_hits and num_of (the counts of a share, over seeds), run_ids. What does not apply is missing.

    A value with missing runs has no rows. Accuracy among completions in the right format (and among the others) has
    none where there is no such completion.

    Args:
        data: The sweep's.
        columns: The ablations of one setting.
        window: Steps of the running mean of reward and KL.
    """
    rows = []
    for ablation in columns:
        about = {
            "setting": ablation.setting,
            "method": ablation.method,
            "source": ablation.source,
            "fixed": json.dumps(dict(ablation.fixed), sort_keys=True, default=str),
        }
        for point in complete_points(data, ablation):
            at = about | {"value": point.label}
            made = (
                _accuracies(data, ablation, point),
                _published(data, ablation, point),
                _by_format(data, ablation, point),
                _over_steps(data, point, window),
            )
            rows += [at | row for part in made for row in part]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(_COUNTS)


def complete_points(data: SweepData, ablation: Ablation) -> list[Point]:
    """The values none of whose runs is missing."""
    return [point for point in ablation.points if not data.missing(point.run_ids)]


def _accuracies(data: SweepData, ablation: Ablation, point: Point) -> Iterator[dict[str, Any]]:
    base = base_run(data.asked, point.settings)
    for target in ablation.targets:
        row = {"panel": "accuracy", "target": target, "unit": "%"}
        name = "accuracy" if target == ablation.source else "cross-task accuracy"
        yield row | {"quantity": name} | _measured(data.found(point.run_ids, target), point.run_ids, target)
        found = data.found([base], target) if base is not None and (base, target) in data.measured else []
        if found and base is not None:
            yield row | {"quantity": "base"} | _measured(found, [base], target, over_seeds=False)


def _published(data: SweepData, ablation: Ablation, point: Point) -> Iterator[dict[str, Any]]:
    for target in ablation.targets:
        for number in data.published.get((point.run_ids[0], target), ()):
            quantity = f"{PUBLISHED}{number.head}, {number.kind}"
            yield {"panel": "accuracy", "quantity": quantity, "target": target, "unit": "%", "mean": number.value}


def _measured(
    found: Sequence[Measurement], run_ids: Sequence[str], target: str, *, over_seeds: bool = True
) -> dict[str, Any]:
    # The generator of the tables, so that a figure and a table show one interval.
    rng = interval_rng(target, *run_ids)
    estimate = two_level_bootstrap([item.correct for item in found], rng, over_seeds=over_seeds)
    return _in_percent(estimate) | {
        "num_seeds": len(found),
        "num_examples": len(found[0].correct),
        "num_hits": sum(int(item.correct.sum()) for item in found),
        "num_of": sum(len(item.correct) for item in found),
        "run_ids": " ".join(run_ids),
    }


def _by_format(data: SweepData, ablation: Ablation, point: Point) -> Iterator[dict[str, Any]]:
    """Of the task trained on: how many completions are in the right format, and how many of each kind are right."""
    found = data.found(point.run_ids, ablation.source) if ablation.source in ablation.targets else []
    formats = [item.formats for item in found if item.formats is not None]
    if not found or len(formats) < len(found):
        return
    correct, inside = np.stack([item.correct for item in found]), np.stack(formats)
    parts = {
        "right format": (inside, np.ones_like(inside)),
        "accuracy in the right format": (correct, inside),
        "accuracy in another format": (correct, ~inside),
    }
    for name, (hits, among) in parts.items():
        share = share_among(list(hits), list(among), interval_rng(name, ablation.source, *point.run_ids))
        if share.share is not None:
            yield {
                "panel": "by_format",
                "quantity": name,
                "target": ablation.source,
                "unit": "%",
                "num_seeds": len(found),
                "num_examples": correct.shape[1],
                "num_hits": share.num_hits,
                "num_of": share.num_of,
                "run_ids": " ".join(point.run_ids),
            } | _in_percent(share)


def _over_steps(data: SweepData, point: Point, window: int) -> Iterator[dict[str, Any]]:
    for panel, (metric, unit) in CURVES.items():
        curve = mean_curve(data.curves.get(metric), point.run_ids, window=window)
        for row in curve.to_dict("records"):
            yield {"panel": panel, "quantity": metric, "unit": unit, "run_ids": " ".join(point.run_ids)} | {
                str(key): value for key, value in row.items()
            }


def _in_percent(estimate: Estimate | Share) -> dict[str, float | None]:
    mean = estimate.share if isinstance(estimate, Share) else estimate.mean
    parts = {"mean": mean, "ci_low": estimate.low, "ci_high": estimate.high}
    return {key: None if value is None else 100 * value for key, value in parts.items()}
