"""Accuracy among the completions in the right format and among the others: shares of counts, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.report.stats import LEVEL, MIN_SEEDS, NUM_RESAMPLES

_MAX_EMPTY_FRAC = 0.05


class Share(NamedTuple):
    """`num_hits` of `num_of`, pooled over seeds.

    Attributes:
        num_hits: Examples that count.
        num_of: Examples they are among.
        share: The ratio in [0, 1]; None where there are none to be among.
        low: Lower bound; None with fewer than three seeds, or where too few examples are left to say.
        high: Upper bound.
    """

    num_hits: int
    num_of: int
    share: float | None
    low: float | None
    high: float | None


def share_among(
    hits: Sequence[ArrayLike],
    among: Sequence[ArrayLike],
    rng: np.random.Generator,
    *,
    num_resamples: int = NUM_RESAMPLES,
    level: float = LEVEL,
) -> Share:
    """The share of hits among chosen examples, with a percentile interval over seeds and examples.

    A ratio of counts, resampled as :func:`harness.report.stats.two_level_bootstrap` does: seeds, and one set of
    examples that all drawn seeds share; both counts come from the same draw. A draw without a chosen example has no
    ratio and is dropped; where that happens to more than one in twenty, no interval is given.

    Args:
        hits: Per seed a vector `[num_examples]` of verdicts, 0 or 1.
        among: Per seed which examples are chosen, 0 or 1; the same shapes.
        rng: Drawn from.
        num_resamples: Resamples of seeds and examples.
        level: Share of the resampled ratios inside the interval, in (0, 1).

    Raises:
        ValueError: The two do not have the same seeds and examples, or there are none.
    """
    chosen = np.asarray(among, dtype=np.float64)
    counted = np.asarray(hits, dtype=np.float64)
    if chosen.ndim != 2 or chosen.shape != counted.shape or not chosen.size:
        raise ValueError(f"hits {counted.shape} and examples {chosen.shape} must be one matrix (seeds, examples) each")
    counted = counted * chosen
    num_hits, num_of = int(counted.sum()), int(chosen.sum())
    if not num_of:
        return Share(0, 0, None, None, None)
    share = num_hits / num_of
    num_seeds, num_examples = chosen.shape
    if num_seeds < MIN_SEEDS:
        return Share(num_hits, num_of, share, None, None)
    seeds = _drawn(rng, num_resamples, num_seeds)
    examples = _drawn(rng, num_resamples, num_examples)
    numerators = np.einsum("re,re->r", seeds @ counted, examples)
    denominators = np.einsum("re,re->r", seeds @ chosen, examples)
    some = denominators > 0
    if 1 - some.mean() > _MAX_EMPTY_FRAC:
        return Share(num_hits, num_of, share, None, None)
    low, high = np.quantile(numerators[some] / denominators[some], [(1 - level) / 2, (1 + level) / 2])
    return Share(num_hits, num_of, share, float(low), float(high))


def _drawn(rng: np.random.Generator, num_resamples: int, size: int) -> NDArray[np.float64]:
    """How often each of `size` things is drawn in `size` draws with replacement, `[num_resamples, size]`."""
    return rng.multinomial(size, np.full(size, 1 / size), size=num_resamples).astype(np.float64)
