"""Which of two sides is ahead, how surely, and what it would take to be sure.

Verdicts are `[num_seeds, num_examples]` per side, all of the same examples. A :data:`Design` says what the two sides'
seeds have to do with each other; the examples are always the same, and resampled together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.report.stats import LEVEL, MIN_SEEDS, Estimate, draw_counts, relative_improvement, verdict_matrix

Design = Literal["paired", "unpaired", "a_fixed", "b_fixed"]
"""The same seeds in the same order; other seeds; or one vector on a side that has no seed (`base`), set against each
seed of the other."""

NUM_RESAMPLES = 4000
_CHUNK = 2000
"""Resamples at a time, so that memory does not grow with their number."""
_TIE = 1e-12
"""Two equal means, summed in another order, differ by less."""


class Comparison(NamedTuple):
    """One side against the other.

    Attributes:
        mean_a: In [0, 1].
        mean_b: In [0, 1].
        difference: Of the means, in [-1, 1].
        relative: ``difference / mean_b``; its mean is None where `mean_b` is 0, and so are its bounds where a resample
            of `b` is.
        p_greater: One-sided p of "a is not above b"; None with fewer than three seeds.
        p_less: Of "a is not below b".
    """

    mean_a: float
    mean_b: float
    difference: Estimate
    relative: Relative
    p_greater: float | None
    p_less: float | None


class Relative(NamedTuple):
    """A relative improvement as a fraction, with its interval."""

    mean: float | None
    low: float | None
    high: float | None


class Spread(NamedTuple):
    """Where the variance of a difference of means comes from.

    Attributes:
        between: Variance between seeds of the per-seed difference on these examples; of unpaired sides the sum.
        particular: The part of it that is one seed's luck with one example.
        shared: Variance that every seed shares because the examples are the same; more seeds do not lower it.
        num_examples: That all of it was measured on.
    """

    between: float
    particular: float
    shared: float
    num_examples: int


class Need(NamedTuple):
    """What would decide: seeds on each side, and test examples where the present ones cannot do (else None)."""

    seeds: int
    examples: int | None


def compare(
    a: Sequence[ArrayLike],
    b: Sequence[ArrayLike],
    rng: np.random.Generator,
    design: Design,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Comparison:
    """The difference of two sides, its percentile interval, and one-sided p values.

    The crossed bootstrap of :func:`harness.report.stats.two_level_bootstrap`, with the same resampled examples on both
    sides and, where paired, the same resampled seeds. A p value is the larger of two, since each alone is too small
    somewhere:

    * of the bootstrap, ``(1 + number of resampled differences <= 0) / (num_resamples + 1)``, which knows both sources
      of chance, but takes few seeds at their word: three that all point one way, one time in four by chance alone,
      would have the least p there is;
    * of a t test over the seeds' means (paired, Welch's, or of one sample), which knows how little few seeds say, but
      not that another set of examples would give another answer.

    Args:
        a: Per seed a vector `[num_examples]` of verdicts, 0 or 1.
        b: The same examples in the same order.
        rng: Drawn from.
        design: How the seeds correspond.
        num_resamples: The least p that the bootstrap can have is 1 over one more than this.
        level: Of the intervals, in (0, 1).

    Returns:
        With fewer than three seeds on a side that has seeds, means alone. Where no verdict varies, an interval without
        width; where the sides are equal, both p values are 1.

    Raises:
        ValueError: Sides that do not fit the design.
    """
    left, right = _sides(a, b, design)
    mean_a, mean_b = float(left.mean()), float(right.mean())
    difference, gain = mean_a - mean_b, relative_improvement(mean_a, mean_b)
    if _num_seeds(left, right, design) < MIN_SEEDS:
        return Comparison(mean_a, mean_b, Estimate(difference, None, None), Relative(gain, None, None), None, None)
    drawn = list(_resampled_means(left, right, rng, design, num_resamples))
    means_a, means_b = (np.concatenate(side) for side in zip(*drawn, strict=True))
    differences = means_a - means_b
    bounds = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(differences, bounds)
    relative = Relative(gain, None, None)
    if gain is not None and (means_b > 0).all():
        relative = Relative(gain, *map(float, np.quantile(differences / means_b, bounds)))
    greater, less = _seed_p(left, right, design)
    return Comparison(
        mean_a,
        mean_b,
        Estimate(difference, float(low), float(high)),
        relative,
        max(float(1 + (differences <= _TIE).sum()) / (num_resamples + 1), greater),
        max(float(1 + (differences >= -_TIE).sum()) / (num_resamples + 1), less),
    )


def spread(a: Sequence[ArrayLike], b: Sequence[ArrayLike], design: Design) -> Spread:
    """The variance components of a difference of means, from the mean squares of seeds x examples.

    With per-seed differences ``d[s, e] = mu + seed_s + example_e + rest_se``, the variance of their mean is
    ``between / n + shared``: `between` estimates ``var(seed) + var(rest) / m`` and `shared` ``var(example) / m`` on
    n seeds and m examples (the two-way random-effects table; Searle, Casella and McCulloch 1992, chapter 4). Unpaired
    sides have the two between-seed variances added.

    Returns:
        `shared` is 0 where its estimate is negative; with a single example nothing is known of `shared` and
        `particular`, which are 0 as well.

    Raises:
        ValueError: Fewer than two seeds on a side that has seeds, or sides that do not fit the design.
    """
    left, right = _sides(a, b, design)
    if _num_seeds(left, right, design) < 2:
        raise ValueError("the spread between seeds needs at least two of them")
    layers = [left, right] if design == "unpaired" else [left - right]
    columns = left.mean(axis=0) - right.mean(axis=0)
    num_examples = len(columns)
    between = sum(float(layer.mean(axis=1).var(ddof=1)) for layer in layers)
    if num_examples == 1:
        return Spread(between, 0.0, 0.0, 1)
    rests = [(_mean_square_rest(layer), len(layer)) for layer in layers]
    shared = float(columns.var(ddof=1)) - sum(rest / count for rest, count in rests)
    particular = sum(rest for rest, _ in rests) / num_examples
    return Spread(between, particular, max(0.0, shared) / num_examples, num_examples)


def need(parts: Spread, difference: float, level: float, num_seeds: int) -> Need | None:
    """The least seeds that decide, if difference and spread stay what they are, by the two rules of :func:`compare`.

    Decided means ``|difference| >= z * sqrt((between + 2 * particular) / n + shared)`` for the bootstrap, whose
    variance counts `particular` three times (Owen 2007, doi 10.1214/07-AOAS122), and ``|difference| >= t *
    sqrt(between / n)`` for the t test over seeds, with z and t (n - 1 degrees of freedom) the quantiles of `level`.

    Where no number of seeds is enough, it takes more examples: so many that half of the variance that decides is theirs
    and half is left for seeds. Counted so, both are orders of magnitude rather than promises.

    Args:
        parts: Of the difference.
        difference: Of the means, in [-1, 1].
        level: One-sided, in (0, 0.5).
        num_seeds: What there is; as long as the examples do, the answer is more than this.

    Returns:
        None where the difference is 0: nothing decides that.
    """
    from scipy.special import ndtri, stdtrit

    if abs(difference) <= _TIE:
        return None
    budget = (difference / float(ndtri(1 - level))) ** 2
    between, particular, examples = parts.between, parts.particular, None
    left = budget - parts.shared
    # Next to nothing left for the seeds would take more of them than anyone trains.
    if left <= 0.02 * budget:
        examples = math.ceil(2 * parts.shared * parts.num_examples / budget)
        between = max(0.0, between - particular * (1 - parts.num_examples / examples))
        particular *= parts.num_examples / examples
        left = budget / 2
    seeds = max(math.ceil((between + 2 * particular) / left), num_seeds + (examples is None), MIN_SEEDS)
    while abs(difference) < float(stdtrit(seeds - 1, 1 - level)) * math.sqrt(between / seeds):
        seeds += 1
    return Need(seeds, examples)


def _sides(
    a: Sequence[ArrayLike], b: Sequence[ArrayLike], design: Design
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = verdict_matrix(a), verdict_matrix(b)
    fits = {
        "paired": len(left) == len(right),
        "unpaired": True,
        "a_fixed": len(left) == 1,
        "b_fixed": len(right) == 1,
    }
    if left.shape[1] != right.shape[1] or not fits[design]:
        raise ValueError(f"verdicts {left.shape} and {right.shape} (seeds, examples) do not fit the design {design}")
    return left, right


def _num_seeds(left: NDArray[np.float64], right: NDArray[np.float64], design: Design) -> int:
    """Of the side that has fewer; a fixed side has none."""
    return min(len(side) for side, fixed in ((left, "a_fixed"), (right, "b_fixed")) if design != fixed)


def _resampled_means(
    left: NDArray[np.float64], right: NDArray[np.float64], rng: np.random.Generator, design: Design, num_resamples: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    num_examples = left.shape[1]
    for start in range(0, num_resamples, _CHUNK):
        size = min(_CHUNK, num_resamples - start)
        # A side of one vector is drawn as often as there are draws: always the same.
        weights_a = draw_counts(rng, size, len(left)) / len(left)
        weights_b = weights_a if design == "paired" else draw_counts(rng, size, len(right)) / len(right)
        drawn = draw_counts(rng, size, num_examples) / num_examples
        yield np.einsum("re,re->r", weights_a @ left, drawn), np.einsum("re,re->r", weights_b @ right, drawn)


def _seed_p(left: NDArray[np.float64], right: NDArray[np.float64], design: Design) -> tuple[float, float]:
    """One-sided p values of a t test over seeds: that the difference is not above, and not below, 0."""
    from scipy.special import stdtr

    layers = [left, right] if design == "unpaired" else [left - right]
    difference = float(left.mean() - right.mean())
    variances = [float(layer.mean(axis=1).var(ddof=1)) / len(layer) for layer in layers]
    variance = sum(variances)
    if variance <= _TIE**2:
        return float(difference <= _TIE), float(difference >= -_TIE)
    freedom = variance**2 / sum(v**2 / (len(layer) - 1) for v, layer in zip(variances, layers, strict=True))
    t = difference / math.sqrt(variance)
    return float(stdtr(freedom, -t)), float(stdtr(freedom, t))


def _mean_square_rest(layer: NDArray[np.float64]) -> float:
    """What is left of verdicts `[n, m]` without the means of seeds and of examples, per degree of freedom."""
    rest = layer - layer.mean(axis=1, keepdims=True) - layer.mean(axis=0) + layer.mean()
    return float((rest**2).sum()) / ((len(layer) - 1) * (layer.shape[1] - 1))
