"""What happened during training: the metrics of a sweep's runs over steps, and their mean over seeds.

A curve is smoothed within each run first and averaged over seeds after, so that the band shows how seeds differ and not
how steps do. Only steps that every seed has are part of a mean: its seeds never change along the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.record.atomic import read_jsonl
from harness.record.folder import RunFolder
from harness.report.collect import asked_by
from harness.report.stats import LEVEL, MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep

WINDOW = 5
"""Steps of a running mean, unless asked otherwise."""


class Band(NamedTuple):
    """A mean over seeds and its interval at each step, `[T]` each; the bounds are NaN with fewer than three seeds."""

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def load_curves(results_dir: str | Path, sweep: str | Path | Sweep) -> pd.DataFrame:
    """One tidy row per run, step and metric of a sweep's runs, also of those that are not completed.

    Columns: run_id, method, source (None for `base`), seed, the sweep's other axes by their keys, step (from 0), metric
    (as in `metrics.jsonl`), value (NaN where a number was not finite). A metric that a run does not measure, such as
    `train/kl` without a reference, has no row.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep.
        DataError: A `metrics.jsonl` that is none.
    """
    import pandas as pd

    asked = asked_by(results_dir, sweep)
    # Cells that share a run share its rows; the first one's settings stand.
    cells = {cell.run_id: cell for cell in reversed(asked.cells)}
    columns: dict[str, list[Any]] = {key: [] for key in ("run_id", "step", "metric", "value")}
    for run_id in dict.fromkeys(cell.run_id for cell in asked.cells):
        path = RunFolder(results_dir, run_id).metrics
        for row in read_jsonl(path) if path.is_file() else ():
            for metric, value in row.items():
                if metric != "step":
                    columns["run_id"].append(run_id)
                    columns["step"].append(row["step"])
                    columns["metric"].append(metric)
                    columns["value"].append(np.nan if value is None else float(value))
    settings = list(dict.fromkeys(key for cell in asked.cells for key in cell.settings))
    of_cell: dict[str, list[Any]] = {
        "method": [cells[run_id].method for run_id in columns["run_id"]],
        "source": [cells[run_id].source for run_id in columns["run_id"]],
        "seed": [cells[run_id].seed for run_id in columns["run_id"]],
        **{key: [cells[run_id].settings.get(key) for run_id in columns["run_id"]] for key in settings},
    }
    frame = pd.DataFrame(
        {
            "run_id": columns["run_id"],
            # pandas' own string type would turn the None of `base` into NaN.
            **{key: pd.Series(values, dtype=object) for key, values in of_cell.items()},
            "step": pd.Series(columns["step"], dtype="int64"),
            "metric": columns["metric"],
            "value": pd.Series(columns["value"], dtype="float64"),
        }
    )
    return frame.astype({"seed": "int64"})


def running_mean(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """The mean of each value and those before it, `window` in all; of fewer at the start.

    Args:
        values: `[T]`; NaN where a step has no value.
        window: At least 1, which changes nothing.

    Returns:
        `[T]`. A missing value stays missing, and counts in no other mean.

    Raises:
        ValueError: The window is below 1, or the values are not a vector.
    """
    array = np.asarray(values, dtype=np.float64)
    if window < 1 or array.ndim != 1:
        raise ValueError(f"a running mean takes a vector and a window of at least 1, not {array.ndim} axes, {window}")
    if not len(array):
        return array
    padded = np.concatenate([np.full(window - 1, np.nan), array])
    windows = np.lib.stride_tricks.sliding_window_view(padded, window)
    known = np.isfinite(windows)
    means = np.where(known, windows, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    return np.where(np.isfinite(array), means, np.nan)


def mean_over_seeds(values: ArrayLike, *, level: float = LEVEL) -> Band:
    """The mean over seeds with Student's t-interval of that mean, at each step by itself.

    With n seeds, sample standard deviation s and the t-quantile of n - 1 degrees of freedom, the bounds are
    mean -/+ t * s / sqrt(n). It takes seeds as draws from a normal distribution; the bounds may leave the range of the
    metric. Seeds that agree exactly give bounds equal to the mean.

    Args:
        values: `[num_seeds, T]`.
        level: Of the interval, in (0, 1).

    Raises:
        ValueError: No seed, or not a matrix.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise ValueError(f"a mean over seeds takes values [num_seeds, T] of at least one seed, not {array.shape}")
    num_seeds = len(array)
    mean = array.mean(axis=0)
    if num_seeds < MIN_SEEDS:
        return Band(mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan))
    from scipy.stats import t

    half = t.ppf((1 + level) / 2, num_seeds - 1) * array.std(axis=0, ddof=1) / np.sqrt(num_seeds)
    return Band(mean, mean - half, mean + half)


def by_metric(curves: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """A table per metric, of steps by runs, which :func:`mean_curve` averages.

    Args:
        curves: From :func:`load_curves`.

    Returns:
        By metric, values with a row for every step between its first and its last (so that a window counts steps, not
        rows) and a column per run id; NaN where a run has no value.
    """
    tables = {}
    for metric, rows in curves.groupby("metric", sort=False):
        table = rows.pivot(index="step", columns="run_id", values="value")
        tables[str(metric)] = table.reindex(range(int(table.index.min()), int(table.index.max()) + 1))
    return tables


def mean_curve(table: pd.DataFrame | None, run_ids: Sequence[str], *, window: int = 1) -> pd.DataFrame:
    """The mean curve of a metric over runs that differ in their seed.

    Args:
        table: The metric's, from :func:`by_metric`; None for a metric that no run measured.
        run_ids: The runs, all of which the curve is about.
        window: Steps of the running mean within each run; 1 for none.

    Returns:
        Columns step, mean, ci_low and ci_high (NaN with fewer than three runs), num_seeds; a row for each step that
        every run has a value for. No rows where a run never measured the metric.
    """
    import pandas as pd

    if table is None or not all(run_id in table.columns for run_id in run_ids):
        table = pd.DataFrame(columns=list(run_ids), dtype=float)
    steps = table.index.to_numpy(dtype=np.int64)
    values = np.array([running_mean(table[run_id].to_numpy(), window) for run_id in run_ids])
    everywhere = np.isfinite(values).all(axis=0)
    band = mean_over_seeds(values[:, everywhere])
    return pd.DataFrame(
        {
            "step": steps[everywhere],
            "mean": band.mean,
            "ci_low": band.low,
            "ci_high": band.high,
            "num_seeds": len(run_ids),
        }
    )
