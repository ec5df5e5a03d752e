"""Intervals and relative improvements, against values worked by hand and by simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest

from harness.report.stats import interval_rng, paired_difference, relative_improvement, two_level_bootstrap


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_mean_is_over_all_verdicts() -> None:
    assert two_level_bootstrap([[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 1, 1]], rng()).mean == 7 / 12


@pytest.mark.parametrize("num_seeds", [1, 2])
def test_fewer_than_three_seeds_have_no_interval(num_seeds: int) -> None:
    assert two_level_bootstrap([[1, 0]] * num_seeds, rng()) == (0.5, None, None)


def test_equal_verdicts_have_an_interval_without_width() -> None:
    assert two_level_bootstrap([[1] * 8] * 3, rng()) == (1.0, 1.0, 1.0)
    assert two_level_bootstrap([[0] * 8] * 3, rng()) == (0.0, 0.0, 0.0)


def test_base_is_resampled_over_examples_alone() -> None:
    # One vector of 400 verdicts: the resampled mean is binomial, so the bounds are 0.4 -+ 1.96 sqrt(0.24 / 400).
    mean, low, high = two_level_bootstrap([[1] * 160 + [0] * 240], rng(), num_resamples=20_000, over_seeds=False)
    assert mean == 0.4
    assert low == pytest.approx(0.4 - 1.96 * 0.0245, abs=0.004)
    assert high == pytest.approx(0.4 + 1.96 * 0.0245, abs=0.004)


def test_seeds_that_agree_on_every_example_are_worth_no_more_than_one() -> None:
    # With examples drawn anew for each seed this width would shrink by sqrt(10).
    verdicts = [1] * 160 + [0] * 240
    _, low, high = two_level_bootstrap([verdicts] * 10, rng(), num_resamples=20_000)
    assert low is not None
    assert high is not None
    assert high - low == pytest.approx(2 * 1.96 * 0.0245, abs=0.006)


def test_seeds_that_differ_on_every_example_alike_are_resampled_too() -> None:
    # Each seed is right everywhere or nowhere, so only the draw of seeds matters: the mean is binomial(4, 1/2) / 4.
    # It is 0 in 1/16 of the resamples and 1 in 1/16, more than the 2.5 % outside either bound.
    assert two_level_bootstrap([[1] * 5, [0] * 5, [1] * 5, [0] * 5], rng()) == (0.5, 0.0, 1.0)


def test_the_same_names_give_the_same_interval() -> None:
    correct = np.random.default_rng(3).integers(0, 2, (4, 50))
    first = two_level_bootstrap(list(correct), interval_rng("counting", "a", "b"))
    assert first == two_level_bootstrap(list(correct), interval_rng("counting", "a", "b"))
    assert interval_rng("a", "b").random() != interval_rng("b", "a").random()


def test_the_stream_is_the_same_in_every_process() -> None:
    assert interval_rng("counting", "run").bit_generator.random_raw() == 5449018152871718464


@pytest.mark.parametrize("correct", [[], [[]], [[1, 0], [1]], [[[1]]]])
def test_verdicts_that_cannot_be_compared_are_refused(correct: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="seed"):
        two_level_bootstrap(correct, rng())


def test_a_paired_difference_removes_what_both_share() -> None:
    # `a` is right wherever `b` is, and on one example in four besides: the difference is 0.25 for each seed.
    b = np.random.default_rng(1).integers(0, 2, (5, 200))
    a = b.copy()
    for row in a:
        row[np.flatnonzero(row == 0)[:50]] = 1
    mean, low, high = paired_difference(list(a), list(b), rng())
    assert mean == 0.25
    assert low is not None
    assert high is not None
    assert 0.15 < low < 0.25 < high < 0.35
    assert paired_difference(list(b), list(b), rng()) == (0.0, 0.0, 0.0)
    assert paired_difference([a[0]], [b[0]], rng()) == (0.25, None, None)


def test_a_paired_difference_needs_the_same_seeds_and_examples() -> None:
    with pytest.raises(ValueError, match="match"):
        paired_difference([[1, 0]], [[1, 0, 0]], rng())


def test_relative_improvements_of_the_paper() -> None:
    # OThink-MR1, Table 1, counting, 2B: GRPO-D 76.50 over GRPO 64.50 and SFT 68.50.
    assert relative_improvement(0.765, 0.645) == pytest.approx(0.1860, abs=5e-5)
    assert relative_improvement(0.765, 0.685) == pytest.approx(0.1168, abs=5e-5)
    assert relative_improvement(0.5, 0) is None
    assert relative_improvement(None, 0.5) is None
    assert relative_improvement(0.5, None) is None


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    # Verdicts with a difficulty per example and a small luck per seed, both in logits.
    draw = np.random.default_rng(5)
    truth = float((1 / (1 + np.exp(-0.5 - draw.normal(0, np.hypot(1.5, 0.2), 1_000_000)))).mean())
    covered = 0
    for _ in range(200):
        logits = 0.5 + draw.normal(0, 0.2, (5, 1)) + draw.normal(0, 1.5, (1, 100))
        correct = draw.random(logits.shape) < 1 / (1 + np.exp(-logits))
        _, low, high = two_level_bootstrap(list(correct), draw, num_resamples=400)
        assert low is not None
        assert high is not None
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 1.0


def test_a_cell_takes_milliseconds() -> None:
    correct = list(np.random.default_rng(2).integers(0, 2, (10, 400)))
    durations = []
    for _ in range(5):
        start = time.process_time()
        two_level_bootstrap(correct, rng())
        durations.append(time.process_time() - start)
    assert min(durations) < 0.05
