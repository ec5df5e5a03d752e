"""Intervals, improvements and sums over runs, against values worked by hand, by simulation and by rliable."""

from __future__ import annotations

import time

import numpy as np
import pytest

from harness.report.stats import (
    bootstrap_of_sum,
    draw_counts,
    holm,
    interval_rng,
    iqm,
    paired_difference,
    probability_of_improvement,
    relative_improvement,
    two_level_bootstrap,
)


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


# Five runs and four runs on three tasks. The numbers that follow are what rliable 1.2.0 (with scipy 1.17.1) returned
# for them: `metrics.aggregate_iqm` and `metrics.probability_of_improvement`, of each column alone and of all.
X = np.array([[0.1, 0.5, 0.3], [0.9, 0.2, 0.35], [0.4, 0.4, 0.8], [0.7, 0.6, 0.05], [0.55, 0.15, 0.45]])
Y = np.array([[0.2, 0.5, 0.1], [0.9, 0.1, 0.3], [0.3, 0.65, 0.6], [0.05, 0.6, 0.25]])


def test_iqm_as_rliable_has_it() -> None:
    assert [iqm(column) for column in X.T] == pytest.approx([0.55, 0.36666666666666664, 0.36666666666666664], rel=1e-12)
    assert iqm(X) == pytest.approx(0.41666666666666674, rel=1e-12)


def test_iqm_by_hand() -> None:
    # Eight runs: two are cut off at each end, (3 + 4 + 5 + 6) / 4 are left; three runs lose none.
    assert iqm([8, 100, 3, 4, 6, 5, -50, 2]) == 4.5
    assert iqm([1, 2, 6]) == 3.0
    with pytest.raises(ValueError, match="score"):
        iqm([])


def test_probability_of_improvement_as_rliable_has_it() -> None:
    found = [probability_of_improvement(x, y) for x, y in zip(X.T, Y.T, strict=True)]
    assert found == pytest.approx([0.675, 0.35, 0.625], rel=1e-12)
    assert np.mean(found) == pytest.approx(0.55, rel=1e-12)


def test_probability_of_improvement_by_hand() -> None:
    # Of six pairs two are greater (3 > 1, 3 > 2), one is equal (2 = 2), and one more is greater (2 > 1).
    assert probability_of_improvement([2, 3], [1, 2, 4]) == 3.5 / 6
    assert probability_of_improvement([1, 2, 4], [2, 3]) == 2.5 / 6
    assert probability_of_improvement([1, 1], [1]) == 0.5
    with pytest.raises(ValueError, match="each side"):
        probability_of_improvement([], [1])


def test_a_sum_over_targets_equals_a_slow_one() -> None:
    draw = np.random.default_rng(5)
    parts = [draw.integers(0, 2, (4, 6)) * 0.25, draw.integers(0, 2, (4, 3)) * 0.75]
    found = bootstrap_of_sum([list(part) for part in parts], np.random.default_rng(1), num_resamples=200)
    rng = np.random.default_rng(1)
    seeds, *examples = (draw_counts(rng, 200, size) for size in (4, 6, 3))
    sums = [
        sum(
            seeds[r, s] * drawn[r, e] * part[s, e] / part.size
            for part, drawn in zip(parts, examples, strict=True)
            for s in range(4)
            for e in range(part.shape[1])
        )
        for r in range(200)
    ]
    assert found.mean == pytest.approx(parts[0].mean() + parts[1].mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(sums, [0.025, 0.975]))


def test_a_sum_of_one_target_is_its_own_mean() -> None:
    vectors = [[1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 0, 1]]
    for over_seeds in (True, False):
        rngs = (np.random.default_rng(3) for _ in range(2))
        alone = two_level_bootstrap(vectors, next(rngs), over_seeds=over_seeds)
        assert bootstrap_of_sum([vectors], next(rngs), over_seeds=over_seeds) == alone
    with pytest.raises(ValueError, match=r"every target needs the same seeds, not \[3, 2\] of them"):
        bootstrap_of_sum([vectors, vectors[:2]], np.random.default_rng(0))


def test_holm_by_hand() -> None:
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1: 0.02, 0.03, 0.06, 0.04, and none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.4, 0.6]) == [0.8, 0.8]
    assert holm([0.9, 0.5]) == [1.0, 1.0]
    assert (holm([0.02]), holm([])) == ([0.02], [])


def test_holm_keeps_order_and_does_not_depend_on_it() -> None:
    draw = np.random.default_rng(8)
    for _ in range(50):
        p_values = [*draw.random(6).round(2), 0.3, 0.3]
        adjusted = np.array(holm(p_values))
        order = draw.permutation(8)
        assert holm([p_values[n] for n in order]) == adjusted[order].tolist()
        assert (np.diff(adjusted[np.argsort(p_values)]) >= 0).all()
        assert (adjusted >= p_values).all()
        # At least as powerful as Bonferroni, and as the step-down that rejects until the first p above its level.
        assert (adjusted <= np.minimum(1, 8 * np.array(p_values))).all()
        ranked = sorted(p_values)
        kept = next((rank for rank, p in enumerate(ranked) if p > 0.2 / (8 - rank)), 8)
        assert int((adjusted <= 0.2).sum()) == kept
