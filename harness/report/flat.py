"""The rows of tables as flat records, one per accuracy: for CSV and for a DataFrame."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.report.effects import Relative
from harness.report.rivals import BASELINES
from harness.report.tables import TableRow, build_tables

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep

COLUMNS = (
    *("table", "ablation", "method", "source", "target", "settings", "mean", "ci_low", "ci_high", "is_best"),
    *("num_seeds", "num_missing", "num_examples", "split"),
    *(f"improvement_over_{name}{end}" for name in BASELINES for end in ("", "_low", "_high")),
    "in_format",
    *(f"accuracy_{among}{end}" for among in ("in_format", "otherwise") for end in ("", "_low", "_high")),
    *("protocol", "published", "run_ids"),
)

_NUMBERS = ("mean", "ci_low", "ci_high", "in_format")


def flat_records(rows: Sequence[TableRow]) -> list[dict[str, Any]]:
    """A record per row with all of :data:`COLUMNS`; what is missing is None.

    Accuracies and shares are in [0, 1], improvements are fractions. Settings and what was published are JSON, run ids
    separated by blanks.
    """
    return [_record(row) for row in rows]


def tables_frame(results_dir: str | Path, sweep: str | Path | Sweep) -> pd.DataFrame:
    """What `harness tables` prints, as a frame of :func:`flat_records`.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    import pandas as pd

    records = flat_records(build_tables(results_dir, sweep))
    frame = pd.DataFrame(records, columns=list(COLUMNS))
    numbers = [name for name in COLUMNS if name in _NUMBERS or name.startswith(("improvement_", "accuracy_"))]
    frame = frame.astype(dict.fromkeys(numbers, float))
    # pandas' own string type would turn the None of `base` into NaN.
    for column in ("source", "ablation"):
        frame[column] = pd.Series([record[column] for record in records], dtype=object, index=frame.index)
    return frame


def _record(row: TableRow) -> dict[str, Any]:
    whole = row.as_json()
    record: dict[str, Any] = dict.fromkeys(COLUMNS) | {key: whole[key] for key in COLUMNS if key in whole}
    record |= {
        "settings": json.dumps(whole["settings"], default=str),
        "num_missing": len(row.missing_run_ids),
        "protocol": row.protocol,
        "published": json.dumps(whole["published"]) if row.published else None,
        "run_ids": " ".join(row.run_ids),
    }
    for name in BASELINES:
        record |= _with_ends(f"improvement_over_{name}", *row.improvements.get(name, Relative(None, None, None)))
    if row.by_format is not None:
        in_format, right, otherwise = row.by_format
        record |= {"in_format": in_format}
        record |= _with_ends("accuracy_in_format", right.share, right.low, right.high)
        record |= _with_ends("accuracy_otherwise", otherwise.share, otherwise.low, otherwise.high)
    return record


def _with_ends(name: str, mean: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
