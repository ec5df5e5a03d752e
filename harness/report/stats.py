"""How sure a mean accuracy is: bootstrap intervals over seeds and test examples, and what sums up several runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SEEDS = 3
"""Below this many seeds nothing can be said of the spread between seeds, so no interval is given."""

NUM_RESAMPLES = 2000
LEVEL = 0.95
_ENTROPY = 250316081


class Estimate(NamedTuple):
    """A mean with its interval; the bounds are None where there is none."""

    mean: float
    low: float | None
    high: float | None


def interval_rng(*names: str) -> np.random.Generator:
    """The generator of an interval: fixed by what the interval is of, so that a table can be made again.

    Args:
        names: Run ids and whatever else tells two intervals apart.
    """
    digest = hashlib.sha256("\n".join(names).encode()).digest()
    words = np.frombuffer(digest, dtype="<u4").tolist()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([_ENTROPY, *words])))


def two_level_bootstrap(
    correct: Sequence[ArrayLike],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    over_seeds: bool = True,
) -> Estimate:
    """The mean accuracy with a percentile interval over seeds and examples.

    Every seed answers the same test examples, so the design is crossed: a resample draws seeds and, independently,
    one set of examples that all drawn seeds share (the pigeonhole bootstrap; Owen 2007, doi 10.1214/07-AOAS122).
    Drawing examples anew for each seed would treat a hard example as bad luck of one seed, and the interval would be
    too narrow. Where all verdicts are equal, both bounds equal the mean.

    Simulated with 200 examples whose difficulties vary by 1.5 logits, a nominal 0.95 covers 0.93 to 0.98 with five
    seeds or more. Three seeds that differ by 0.5 logits give 0.88: so few cannot show all of the spread between seeds.

    Args:
        correct: Per seed a vector `[num_examples]` of verdicts, 0 or 1, in the same order of examples.
        rng: Drawn from.
        num_resamples: Resamples of seeds and examples.
        level: Share of the resampled means inside the interval, in (0, 1).
        over_seeds: False for what has no training randomness (`base`): the interval is over examples only, and one
            vector is enough.

    Returns:
        Mean and bounds in [0, 1]. The bounds are None with fewer than three seeds, unless `over_seeds` is False.

    Raises:
        ValueError: No vector, an empty one, or vectors of different lengths.
    """
    return _bootstrap([verdict_matrix(correct)], rng, num_resamples, level, over_seeds)


def bootstrap_of_sum(
    parts: Sequence[Sequence[ArrayLike]],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
    over_seeds: bool = True,
) -> Estimate:
    """The sum of several targets' means, with a percentile interval over seeds and each target's examples.

    A target is no draw from a population: a resample draws seeds once, for all targets, and examples within each.

    Args:
        parts: Per target and seed a vector `[num_examples]`, the same seeds in the same order for all; verdicts times
            the target's weight in the sum. Targets may differ in their number of examples.
        rng: Drawn from.
        num_resamples: As in :func:`two_level_bootstrap`.
        level: As in :func:`two_level_bootstrap`.
        over_seeds: As in :func:`two_level_bootstrap`.

    Raises:
        ValueError: No target, a target without verdicts, or targets that differ in their number of seeds.
    """
    matrices = [verdict_matrix(vectors) for vectors in parts]
    if len({len(matrix) for matrix in matrices}) != 1:
        raise ValueError(f"every target needs the same seeds, not {[len(matrix) for matrix in matrices]} of them")
    return _bootstrap(matrices, rng, num_resamples, level, over_seeds)


def paired_difference(
    correct_a: Sequence[ArrayLike],
    correct_b: Sequence[ArrayLike],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """The mean accuracy of `a` minus that of `b`, with an interval that keeps seeds and examples paired.

    Args:
        correct_a: Per seed a vector `[num_examples]` of verdicts.
        correct_b: The same seeds and the same examples, in the same order.
        rng: Drawn from.
        num_resamples: As in :func:`two_level_bootstrap`.
        level: As in :func:`two_level_bootstrap`.

    Returns:
        Difference and bounds in [-1, 1]; no bounds with fewer than three seeds.

    Raises:
        ValueError: The two do not have the same seeds and examples.
    """
    a, b = verdict_matrix(correct_a), verdict_matrix(correct_b)
    if a.shape != b.shape:
        raise ValueError(f"paired verdicts must match: {a.shape} against {b.shape} (seeds, examples)")
    return _bootstrap([a - b], rng, num_resamples, level, True)


def relative_improvement(a: float | None, b: float | None) -> float | None:
    """``(a - b) / b``, as the paper states its gains; None where either is missing or `b` is 0."""
    if a is None or b is None or b == 0:
        return None
    return (a - b) / b


def iqm(scores: ArrayLike) -> float:
    """The mean of the middle half of the runs: a quarter is cut off at each end, rounded down to whole runs.

    As rliable's `aggregate_iqm` (Agarwal et al. 2021, arXiv 2108.13264). With fewer than four runs it is the mean.

    Args:
        scores: One per run `[n]`.

    Raises:
        ValueError: No score.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64), axis=None)
    if ordered.size == 0:
        raise ValueError("an interquartile mean needs at least one score")
    cut = ordered.size // 4
    return float(ordered[cut : ordered.size - cut].mean())


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """How often a run of `x` is above a run of `y`: the mean of ``1{x > y} + 1{x = y} / 2`` over all pairs of runs.

    As rliable's on one task (the Mann-Whitney statistic over the number of pairs); pairing by seed plays no part.

    Args:
        x: One score per run `[n]`.
        y: `[m]`.

    Returns:
        In [0, 1]; 0.5 where nothing tells them apart.

    Raises:
        ValueError: A side without a score.
    """
    left, right = np.asarray(x, dtype=np.float64).reshape(-1, 1), np.asarray(y, dtype=np.float64).reshape(1, -1)
    if left.size == 0 or right.size == 0:
        raise ValueError("a probability of improvement needs at least one run on each side")
    return float(((left > right) + 0.5 * (left == right)).mean())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): what is at most alpha is rejected, with a family-wise error of at most alpha.

    The k-th smallest of m is multiplied by ``m - k + 1``, then raised to the largest before it, then cut at 1.

    Args:
        p_values: In [0, 1], in any order.

    Returns:
        The adjusted values in the order given; empty for none.
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def verdict_matrix(vectors: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """Verdicts `[num_seeds, num_examples]` from a vector per seed.

    Raises:
        ValueError: No vector, an empty one, or vectors of different lengths.
    """
    rows = [np.asarray(vector, dtype=np.float64) for vector in vectors]
    if not rows or rows[0].ndim != 1 or rows[0].size == 0:
        raise ValueError("an accuracy needs at least one seed with at least one verdict")
    if any(row.shape != rows[0].shape for row in rows):
        raise ValueError(f"every seed needs the same examples, not {[row.size for row in rows]} of them")
    return np.stack(rows)


def _bootstrap(
    parts: Sequence[NDArray[np.float64]], rng: np.random.Generator, num_resamples: int, level: float, over_seeds: bool
) -> Estimate:
    num_seeds = len(parts[0])
    mean = float(sum(values.mean() for values in parts))
    if over_seeds and num_seeds < MIN_SEEDS:
        return Estimate(mean, None, None)
    seeds = draw_counts(rng, num_resamples, num_seeds) if over_seeds else None
    means = np.zeros(num_resamples)
    for values in parts:
        num_examples = values.shape[1]
        if seeds is not None:
            by_example = seeds @ values / num_seeds
        else:
            by_example = np.broadcast_to(values.mean(axis=0), (num_resamples, num_examples))
        drawn = draw_counts(rng, num_resamples, num_examples)
        means += np.einsum("re,re->r", by_example, drawn) / num_examples
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high))


def draw_counts(rng: np.random.Generator, num_resamples: int, size: int) -> NDArray[np.float64]:
    """How often each of `size` things is drawn in `size` draws with replacement, `[num_resamples, size]`."""
    drawn = rng.integers(0, size, (num_resamples, size))
    drawn += np.arange(num_resamples)[:, None] * size
    return np.bincount(drawn.ravel(), minlength=num_resamples * size).reshape(num_resamples, size).astype(np.float64)
