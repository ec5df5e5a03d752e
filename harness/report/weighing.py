"""What the runs say about a claim at one source and target, before the whole family of claims is looked at.

A claim of two sides asks one question. An interior maximum over values ``v_1 < ... < v_k`` asks whether some value
between the ends beats both of them:

* a given value beats both ends only if it beats each, so its p is the larger of the two (intersection-union; Berger
  1982), and the least of the ``k - 2`` such p values counts ``k - 2`` times (Bonferroni over the values);
* the claim is contradicted where one end beats every value between: the largest p over those values, the smaller of
  the two ends counting twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from harness.report.effects import NUM_RESAMPLES, Comparison, Design, Spread, compare, spread
from harness.report.stats import MIN_SEEDS, interval_rng
from harness.spec.contests import Contest, Side

Scores = Callable[[str, str], "NDArray[np.bool_] | None"]
"""The verdicts `[num_examples]` of a run id on a target; None where the run is not complete."""


@dataclass(frozen=True)
class Seen:
    """What was measured on one side, in the order of its seeds.

    Attributes:
        side: As asked for.
        run_ids: The runs that count.
        verdicts: A vector for each of them.
    """

    side: Side
    run_ids: tuple[str, ...]
    verdicts: tuple[NDArray[np.bool_], ...]

    @property
    def accuracies(self) -> list[float]:
        """One per run, in [0, 1]."""
        return [float(vector.mean()) for vector in self.verdicts]

    @property
    def mean(self) -> float | None:
        """Over runs and examples, in [0, 1]; None where no run is complete."""
        return float(np.mean(self.accuracies)) if self.verdicts else None


@dataclass(frozen=True)
class Evidence:
    """A claim's numbers at one place.

    Attributes:
        better: The side that should be ahead; of an interior maximum the best value between the ends.
        than: The other side; of an interior maximum the better end.
        design: How their seeds correspond.
        comparison: Of those two; None where one of them has no complete run. It does not know that an interior
            maximum's two were chosen by their means; the p values below do.
        parts: Of that difference's variance; None with fewer than three seeds.
        p_supported: One-sided, before the correction for the family; None with fewer than three seeds.
        p_contradicted: The same of the opposite.
        times_supported: How often the least p counts within this place.
        times_contradicted: The same of the opposite.
        values: Of an interior maximum what was measured under each value, ascending; else empty.
        missing_run_ids: What the claim asks for and is not complete.
    """

    better: Seen
    than: Seen
    design: Design
    comparison: Comparison | None
    parts: Spread | None
    p_supported: float | None
    p_contradicted: float | None
    times_supported: int
    times_contradicted: int
    values: tuple[Seen, ...]
    missing_run_ids: tuple[str, ...]

    @property
    def num_seeds(self) -> int:
        """Of the side that has fewer; `base` has none."""
        return min(
            len(s.run_ids) for s, fixed in ((self.better, "a_fixed"), (self.than, "b_fixed")) if self.design != fixed
        )


def weigh(contest: Contest, scores: Scores, *, num_places: int, name: str = "") -> Evidence:
    """The evidence at one place.

    Args:
        contest: What is compared.
        scores: Looks up verdicts.
        num_places: Of the family, so that the bootstrap's least p can pass the family's correction.
        name: Of the metric; together with the run ids it fixes the random stream.
    """
    seen = [_seen(side, contest.target, scores) for side in contest.sides]
    asked = [run_id for side in contest.sides for run_id in side.runs.values()]
    found = {run_id for one in seen for run_id in one.run_ids}
    missing = tuple(run_id for run_id in dict.fromkeys(asked) if run_id not in found)
    is_interior = len(seen) > 2
    inside, ends = (seen[1:-1], [seen[0], seen[-1]]) if is_interior else (seen[:1], seen[1:])
    num_resamples = max(NUM_RESAMPLES, 100 * num_places * max(len(inside), len(ends)))
    pairs = [[_compared(value, end, contest.target, name, num_resamples) for end in ends] for value in inside]
    better, than, design, comparison = pairs[_highest(inside)][_highest(ends)]
    is_known = comparison is not None and comparison.p_greater is not None
    return Evidence(
        better=better,
        than=than,
        design=design,
        comparison=comparison,
        parts=spread(better.verdicts, than.verdicts, design) if is_known else None,
        p_supported=_least_of_largest([[pair.p_greater for pair in row] for row in pairs]),
        p_contradicted=_least_of_largest([[row[n].p_less for row in pairs] for n in range(len(ends))]),
        times_supported=len(inside),
        times_contradicted=len(ends),
        values=tuple(seen) if is_interior else (),
        missing_run_ids=missing,
    )


class _Pair(NamedTuple):
    a: Seen
    b: Seen
    design: Design
    comparison: Comparison | None

    @property
    def p_greater(self) -> float | None:
        return None if self.comparison is None else self.comparison.p_greater

    @property
    def p_less(self) -> float | None:
        return None if self.comparison is None else self.comparison.p_less


def _compared(a: Seen, b: Seen, target: str, name: str, num_resamples: int) -> _Pair:
    a, b, design = matched(a, b)
    if not a.verdicts or not b.verdicts:
        return _Pair(a, b, design, None)
    rng = interval_rng(name, target, *a.run_ids, "over", *b.run_ids)
    return _Pair(a, b, design, compare(a.verdicts, b.verdicts, rng, design, num_resamples=num_resamples))


def _highest(seen: Sequence[Seen]) -> int:
    """Which has the highest mean; the first of equals."""
    return max(range(len(seen)), key=lambda n: -1.0 if seen[n].mean is None else float(seen[n].mean or 0.0))


def matched(a: Seen, b: Seen) -> tuple[Seen, Seen, Design]:
    """The runs of both sides that are compared, and how.

    Seeds that both sides have are paired, and others left out, where there are three such seeds or where one side has
    no more; else every run counts and nothing is paired. `base` is set against each run of the other side.
    """
    if not a.side.has_seeds or not b.side.has_seeds:
        return a, b, "b_fixed" if a.side.has_seeds else "a_fixed"
    ours, theirs = _by_seed(a), _by_seed(b)
    common = [seed for seed in ours if seed in theirs]
    if not common or len(common) < min(MIN_SEEDS, len(ours), len(theirs)):
        return a, b, "unpaired"
    return _only(a, [ours[seed] for seed in common]), _only(b, [theirs[seed] for seed in common]), "paired"


def _seen(side: Side, target: str, scores: Scores) -> Seen:
    found = [(run_id, scores(run_id, target)) for run_id in side.runs.values()]
    complete = [(run_id, verdicts) for run_id, verdicts in found if verdicts is not None]
    return Seen(side, tuple(run_id for run_id, _ in complete), tuple(verdicts for _, verdicts in complete))


def _by_seed(seen: Seen) -> dict[int | None, int]:
    """Where the run of each seed stands."""
    return {seed: seen.run_ids.index(run_id) for seed, run_id in seen.side.runs.items() if run_id in seen.run_ids}


def _only(seen: Seen, wanted: Sequence[int]) -> Seen:
    return Seen(seen.side, tuple(seen.run_ids[n] for n in wanted), tuple(seen.verdicts[n] for n in wanted))


def _least_of_largest(p_values: Sequence[Sequence[float | None]]) -> float | None:
    """The least of the rows' largest p, as often as there are rows; None where one is not known."""
    rows = [[p for p in row if p is not None] for row in p_values]
    if any(len(row) < len(given) for row, given in zip(rows, p_values, strict=True)):
        return None
    return min(1.0, len(rows) * min(max(row) for row in rows))
