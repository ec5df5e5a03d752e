"""How the rows of a table compare: what each improves on, which one is the best, and how surely."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from harness.report.collect import Measurement
from harness.report.effects import Comparison, Design, Relative, compare
from harness.report.stats import LEVEL, NUM_RESAMPLES, interval_rng

if TYPE_CHECKING:
    from harness.report.tables import TableRow

BASELINES = ("base", "sft", "grpo")
"""The methods that relative improvements are stated over."""

BEST_P = (1 - LEVEL) / 2
"""One-sided, against every rival: half the error, because the row is chosen after looking (Gutmann and Maymin 1987, "Is
the selected population the best?", Annals of Statistics 15)."""

Measured = Mapping[tuple[str, str], Measurement | None]


def baseline_of(row: TableRow, baseline: str, rows: Iterable[TableRow]) -> TableRow | None:
    """The row of another method that a row is compared with: the same source and target, in the same ablation if any.

    `base` has no source, and is the same for all of them. Where a baseline has settings of its own, the one that agrees
    on every setting that both have is meant.

    Args:
        row: Any row.
        baseline: A method's type.
        rows: The rows of both tables.

    Returns:
        None for the baseline itself, for `base`, and where no baseline or several would fit.
    """
    if row.method == baseline or row.source is None:
        return None
    place = (row.table, row.ablation, row.target)
    fitting = [
        other
        for other in rows
        if other.method == baseline
        and (other.table, other.ablation, other.target) == place
        and other.source in (None, row.source)
        and all(other.settings[key] == value for key, value in row.settings.items() if key in other.settings)
    ]
    return fitting[0] if len(fitting) == 1 else None


def weighed(rows: Sequence[TableRow], measured: Measured) -> list[TableRow]:
    """The rows with their improvements over :data:`BASELINES` and the mark of the best.

    Args:
        rows: Of all tables of a sweep.
        measured: What their runs scored.
    """
    return [
        dataclasses.replace(row, improvements=_improvements(row, rows, measured), is_best=_is_best(row, rows, measured))
        for row in rows
    ]


def _improvements(row: TableRow, rows: Sequence[TableRow], measured: Measured) -> dict[str, Relative]:
    """By baseline that a row has; without numbers where either accuracy is missing or the baseline's is 0."""
    found = {}
    for name in BASELINES:
        other = baseline_of(row, name, rows)
        if other is not None:
            compared = _compared(row, other, measured)
            found[name] = Relative(None, None, None) if compared is None else compared.relative
    return found


def _is_best(row: TableRow, rows: Sequence[TableRow], measured: Measured) -> bool:
    """Whether a row is above every other of its place, each difference beyond chance."""
    place = (row.table, row.ablation, row.target)
    sources = {row.source} if row.source is not None else {other.source for other in rows}
    rivals = [
        other
        for other in rows
        if other is not row
        and (other.table, other.ablation, other.target) == place
        and (other.source is None or other.source in sources)
    ]
    means = [other.mean for other in rivals]
    if row.mean is None or not rivals or any(mean is None or mean >= row.mean for mean in means):
        return False
    # The nearest rival first: most rows fail there.
    rivals.sort(key=lambda other: -(other.mean or 0.0))
    compared = (_compared(row, other, measured) for other in rivals)
    return all(one is not None and one.p_greater is not None and one.p_greater <= BEST_P for one in compared)


def _compared(row: TableRow, other: TableRow, measured: Measured) -> Comparison | None:
    """Both rows on the examples of their target; None where either has no run."""
    sides = [[measured[run_id, one.target] for run_id in one.run_ids] for one in (row, other)]
    a, b = ([found.correct for found in side if found is not None] for side in sides)
    if not a or not b:
        return None
    design: Design = "paired" if row.seeds == other.seeds else "unpaired"
    if other.source is None:
        design = "b_fixed"
    elif row.source is None:
        design = "a_fixed"
    rng = interval_rng("rows", row.target, *row.run_ids, "over", *other.run_ids)
    return compare(a, b, rng, design, num_resamples=NUM_RESAMPLES)
