"""What tells two runs, or two sweeps, apart: their settings, their accuracies, and the examples they disagree on.

Both come down to lines: runs that differ in their seed alone. A run is a line of its own; the lines of two sweeps stand
side by side as :func:`harness.report.lines.matched` has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import DataError, UserError
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.state import SUMMARY_KEYS, read_summary
from harness.report.collect import asked_by
from harness.report.effects import compare
from harness.report.lines import Line, answered, line_of_run, lines_of_sweep, matched, seed_of
from harness.report.one_run import Differing, differing, find_run, worker_s
from harness.report.stats import Estimate, interval_rng, two_level_bootstrap
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

Row = Mapping[str, Any]
"""An answer: a row of an evaluation's file."""


@dataclass(frozen=True)
class Side:
    """What one side holds on one target.

    Attributes:
        mean: Accuracy in [0, 1] over its runs and the examples that both sides answered.
        num_runs: Behind it.
        protocol: The evaluation rule; None where not on record.
    """

    mean: float
    num_runs: int
    protocol: str | None


@dataclass(frozen=True)
class Answers:
    """How one side answered one example.

    Attributes:
        right_frac: Share of its runs that are right, in [0, 1].
        extracted: What was read out of the completions, the most frequent first, with counts; None for nothing.
        completion: Of its first run; None where not on record.
    """

    right_frac: float
    extracted: tuple[tuple[str | None, int], ...]
    completion: str | None


@dataclass(frozen=True)
class Disagreement:
    """An example that most runs of one side answered rightly, and of the other not.

    Attributes:
        id: The example's.
        question: None where not on record.
        solution: The right answer; None where not on record.
        a: The first side's.
        b: The second's.
    """

    id: str
    question: str | None
    solution: str | None
    a: Answers
    b: Answers


@dataclass(frozen=True)
class TargetPair:
    """Two lines on one target.

    Attributes:
        target: The task.
        split: Of its examples.
        num_examples: That both sides answered.
        a: The first side.
        b: The second.
        difference: First side minus second, in [-1, 1]. Its interval is over examples for two single runs, else over
            seeds and examples; none with fewer than three seeds on a side.
        disagreements: Those furthest apart first.
    """

    target: str
    split: Split
    num_examples: int
    a: Side
    b: Side
    difference: Estimate
    disagreements: tuple[Disagreement, ...]


@dataclass(frozen=True)
class LinePair:
    """Two lines.

    Attributes:
        a: The first.
        b: The second.
        settings: On which they differ; seeds too, where both are one run.
        metrics: The last values in training by key, and `worker_s`: the mean over each side's runs, None where one of
            them lacks it.
        targets: Those that both sides were evaluated on.
    """

    a: Line
    b: Line
    settings: tuple[Differing, ...]
    metrics: Mapping[str, tuple[float | None, float | None]]
    targets: tuple[TargetPair, ...]

    @property
    def is_shared(self) -> bool:
        """Whether both sides are the same runs."""
        return self.a.run_ids == self.b.run_ids


@dataclass(frozen=True)
class Compared:
    """Two runs or two sweeps.

    Attributes:
        name_a: As the first side calls itself.
        name_b: The second.
        asked: What two sweeps ask differently of all their runs.
        pairs: Their lines; of two runs, one pair.
        only_a: Lines of the first side without a partner.
        only_b: Of the second.
    """

    name_a: str
    name_b: str
    asked: tuple[Differing, ...]
    pairs: tuple[LinePair, ...]
    only_a: tuple[Line, ...] = ()
    only_b: tuple[Line, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "a": self.name_a,
            "b": self.name_b,
            "asked": [asdict(one) for one in self.asked],
            "pairs": [_pair_json(pair) for pair in self.pairs],
            "only_a": [line.as_json() for line in self.only_a],
            "only_b": [line.as_json() for line in self.only_b],
        }


def compare_runs(results: str | Path, a: str, b: str) -> Compared:
    """Two runs, on the test split where both answered it, else on validation examples.

    Args:
        results: The results folder.
        a: As :func:`harness.report.one_run.find_run` takes it.
        b: Likewise.

    Raises:
        UserError: There is no such run, or it was never started.
        DataError: A file that is read is not what it should be, or the examples are not the same.
    """
    left, right = (line_of_run(find_run(results, name)) for name in (a, b))
    pairs = [_pair(results, left, right, split) for split in SUMMARY_KEYS]
    pair = next((one for one in pairs if one.targets), pairs[0])
    return Compared(left.run_ids[0], right.run_ids[0], (), (pair,))


def compare_sweeps(results: str | Path, a: str | Path | Sweep, b: str | Path | Sweep) -> Compared:
    """Two sweeps.

    Args:
        results: The results folder.
        a: The name of a sweep on record, the path of a sweep file, or a loaded sweep.
        b: Likewise.

    Raises:
        UserError: There is no such sweep, or the tables of one are about another split than those of the other.
        DataError: A file that is read is not what it should be, or the examples are not the same.
    """
    left, right = asked_by(results, a), asked_by(results, b)
    split, other = left.evaluation.table_split, right.evaluation.table_split
    if split != other:
        raise UserError(f"{left.name} is about {split} examples and {right.name} about {other} examples")
    lines_a, lines_b = lines_of_sweep(results, left), lines_of_sweep(results, right)
    pairs, only_a, only_b = matched(lines_a, lines_b)
    return Compared(
        left.name,
        right.name,
        _asked(lines_a, lines_b, left.evaluation, right.evaluation),
        tuple(_pair(results, one, two, split) for one, two in pairs),
        tuple(only_a),
        tuple(only_b),
    )


def _asked(
    lines_a: Sequence[Line], lines_b: Sequence[Line], evaluation_a: Evaluation, evaluation_b: Evaluation
) -> tuple[Differing, ...]:
    left, right = (
        {
            "targets": list(dict.fromkeys(target for line in lines for target in line.targets)),
            "seeds": max((len(line.run_ids) for line in lines), default=0),
        }
        | {f"evaluation.{key}": value for key, value in evaluation.model_dump(mode="json").items()}
        for lines, evaluation in ((lines_a, evaluation_a), (lines_b, evaluation_b))
    )
    return tuple(Differing(key, value, right[key]) for key, value in left.items() if value != right[key])


def _pair(results: str | Path, a: Line, b: Line, split: Split) -> LinePair:
    are_runs = a.evaluation is None
    targets = []
    for target in (name for name in a.targets if name in b.targets):
        rows = answered(results, a, target, split), answered(results, b, target, split)
        if all(rows):
            targets.append(_target_pair(results, target, split, *rows, are_runs=are_runs))
    left, right = _metrics(results, a), _metrics(results, b)
    metrics = {key: (left.get(key), right.get(key)) for key in dict.fromkeys([*left, *right])}
    settings = differing(a.spec, b.spec, without=() if are_runs else ("seed",))
    return LinePair(a, b, settings, metrics, tuple(targets))


def _metrics(results: str | Path, line: Line) -> dict[str, float | None]:
    """The mean over a line's runs of their last metrics in training, and of what they took."""
    of_runs: list[dict[str, Any]] = []
    for run_id in line.run_ids:
        folder = RunFolder(results, run_id)
        last = dict((read_summary(folder) or {}).get("train", {}))
        spent = worker_s(read_json(folder.run_json)) if folder.run_json.is_file() else None
        of_runs.append(last | ({} if spent is None else {"worker_s": spent}))
    keys = dict.fromkeys(key for own in of_runs for key in own)
    values = {key: [own.get(key) for own in of_runs] for key in keys}
    return {key: None if None in own else float(np.mean(own)) for key, own in values.items()}  # type: ignore[arg-type]


def _target_pair(
    results: str | Path,
    target: str,
    split: Split,
    rows_a: Mapping[str, Sequence[Row]],
    rows_b: Mapping[str, Sequence[Row]],
    *,
    are_runs: bool,
) -> TargetPair:
    num = min(len(rows) for rows in (*rows_a.values(), *rows_b.values()))
    _same_examples(target, [rows[:num] for rows in (*rows_a.values(), *rows_b.values())])
    a, b = ([[bool(row["correct"]) for row in rows[:num]] for rows in side.values()] for side in (rows_a, rows_b))
    rng = interval_rng("compare", target, split, *rows_a, "with", *rows_b)
    if len(a) == len(b) == 1:
        # Per example -1, 0 or 1; resampled as verdicts are.
        difference = two_level_bootstrap([np.subtract(a[0], b[0], dtype=float)], rng, over_seeds=False)
    else:
        seeds = [[seed_of(results, run_id) for run_id in side] for side in (rows_a, rows_b)]
        difference = compare(a, b, rng, "paired" if seeds[0] == seeds[1] else "unpaired").difference
    right_a, right_b = np.mean(a, axis=0), np.mean(b, axis=0)
    apart: list[int] = np.flatnonzero((right_a > 0.5) != (right_b > 0.5)).tolist()
    apart.sort(key=lambda at: -abs(right_a[at] - right_b[at]))
    disagreements = [
        _disagreement(target, split, at, [rows[at] for rows in rows_a.values()], [rows[at] for rows in rows_b.values()])
        for at in apart
    ]
    sides = [
        Side(float(right.mean()), len(rows), next(iter(rows.values()))[0].get("protocol"))
        for right, rows in ((right_a, rows_a), (right_b, rows_b))
    ]
    return TargetPair(target, split, num, sides[0], sides[1], difference, tuple(disagreements))


def _same_examples(target: str, of_runs: Sequence[Sequence[Row]]) -> None:
    """Raises `DataError` where the runs did not answer the same examples in the same order."""
    for rows in zip(*of_runs, strict=True):
        for key in ("index", "id", "question"):
            said = {row[key] for row in rows if key in row}
            if len(said) > 1:
                raise DataError(
                    f"{target}: the runs did not answer the same examples; {key} {' and '.join(map(repr, said))} stand "
                    "at one place"
                )


def _disagreement(target: str, split: Split, at: int, rows_a: Sequence[Row], rows_b: Sequence[Row]) -> Disagreement:
    known: dict[str, Any] = {key: value for row in (*rows_a, *rows_b) for key, value in row.items()}
    return Disagreement(
        id=known.get("id", f"{target}/{split}/{at}"),
        question=known.get("question"),
        solution=known.get("solution"),
        a=_answers(rows_a),
        b=_answers(rows_b),
    )


def _answers(rows: Sequence[Row]) -> Answers:
    extracted = Counter(row["extracted"] for row in rows if "extracted" in row)
    return Answers(
        right_frac=float(np.mean([bool(row["correct"]) for row in rows])),
        extracted=tuple(extracted.most_common()),
        completion=rows[0].get("completion"),
    )


def _pair_json(pair: LinePair) -> dict[str, Any]:
    return {
        "a": pair.a.as_json(),
        "b": pair.b.as_json(),
        "settings": [asdict(one) for one in pair.settings],
        "metrics": {key: {"a": a, "b": b} for key, (a, b) in pair.metrics.items()},
        "targets": [asdict(one) | {"difference": one.difference._asdict()} for one in pair.targets],
    }
