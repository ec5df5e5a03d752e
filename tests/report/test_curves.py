"""Metrics over steps: the tidy frame, the running mean, the mean over seeds with its band."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.errors import DataError, UserError
from harness.record.atomic import write_jsonl
from harness.record.folder import RunFolder
from harness.report.curves import by_metric, load_curves, mean_curve, mean_over_seeds, running_mean
from harness.spec.run import RunSpec


def spec(method: str, source: str | None = None, seed: int = 0, **settings: object) -> RunSpec:
    return RunSpec.model_validate({"method": {"type": method, **settings}, "source": source, "seed": seed})


def test_a_row_per_run_step_and_metric(results: Path, write_run, make_sweep) -> None:
    weighted = spec("grpo", "counting", 1, format_weight=0.5)
    rows = [
        {"step": 0, "rollout/reward": 0.5, "train/kl": None},
        {"step": 0, "eval/counting/accuracy": 0.25},
        {"step": 1, "rollout/reward": 1.0},
    ]
    write_jsonl(RunFolder(results, weighted.run_id).metrics, rows)  # never completed: a curve all the same
    write_run(spec("base"), {"counting": [1, 0, 0, 0]})
    sweep = make_sweep(method="[base, grpo]", source="[counting]", seed="[1]", format_weight="[0.5, 1.0]")
    frame = load_curves(results, sweep)
    assert list(frame.columns) == [
        *("run_id", "method", "source", "seed", "method.format_weight", "step", "metric", "value")
    ]
    assert set(frame["run_id"]) == {weighted.run_id}
    assert frame[["method", "source", "seed", "method.format_weight"]].drop_duplicates().values.tolist() == [
        ["grpo", "counting", 1, 0.5]
    ]
    found = list(zip(frame["step"], frame["metric"], frame["value"], strict=True))
    assert found[0] == (0, "rollout/reward", 0.5)
    assert found[1][:2] == (0, "train/kl")
    assert math.isnan(found[1][2])
    assert found[2:] == [(0, "eval/counting/accuracy", 0.25), (1, "rollout/reward", 1.0)]


def test_a_sweep_without_metrics_has_the_columns_and_no_rows(results: Path, make_sweep) -> None:
    frame = load_curves(results, make_sweep(method="[base, sft]", source="[counting]", seed="[0]"))
    assert frame.empty
    assert {"run_id", "method", "step", "metric", "value"} <= set(frame.columns)
    assert by_metric(frame) == {}


def test_mistakes_are_told(results: Path, make_sweep) -> None:
    with pytest.raises(UserError, match="no sweep 'nowhere' on record"):
        load_curves(results, "nowhere")
    path = RunFolder(results, spec("sft", "counting").run_id).metrics
    path.parent.mkdir(parents=True)
    path.write_text("not json\n{}\n")
    with pytest.raises(DataError, match=r"metrics\.jsonl:1: not a JSON object"):
        load_curves(results, make_sweep(method="[sft]", source="[counting]", seed="[0]"))


@pytest.mark.parametrize(
    ("window", "expected"), [(1, [2, 4, 9, 1]), (2, [2, 3, 6.5, 5]), (3, [2, 3, 5, 14 / 3]), (9, [2, 3, 5, 4])]
)
def test_running_means_by_hand(window: int, expected: list[float]) -> None:
    assert running_mean([2, 4, 9, 1], window).tolist() == pytest.approx(expected)


def test_a_running_mean_keeps_gaps_and_counts_them_nowhere() -> None:
    nan = math.nan
    assert running_mean([1, nan, 5, nan, nan, 7], 2).tolist() == pytest.approx([1, nan, 5, nan, nan, 7], nan_ok=True)
    assert running_mean([1, nan, 5, 6], 3).tolist() == pytest.approx([1, nan, 3, 5.5], nan_ok=True)
    assert running_mean([], 5).tolist() == []


@pytest.mark.parametrize(("values", "window"), [([1, 2], 0), ([[1, 2]], 1)])
def test_a_running_mean_refuses_what_it_cannot_do(values: list[object], window: int) -> None:
    with pytest.raises(ValueError, match="a running mean takes a vector"):
        running_mean(values, window)  # type: ignore[arg-type]


def test_the_band_is_the_t_interval_of_the_mean() -> None:
    # 1, 2, 3: mean 2, s = 1, t(0.975, 2) = 4.302653, so 2 -/+ 4.302653 / sqrt(3); equal seeds have no width.
    band = mean_over_seeds([[1, 7], [2, 7], [3, 7]])
    assert band.mean.tolist() == [2, 7]
    assert band.low.tolist() == pytest.approx([2 - 2.484138, 7], abs=1e-6)
    assert band.high.tolist() == pytest.approx([2 + 2.484138, 7], abs=1e-6)


def test_the_band_agrees_with_scipy() -> None:
    values = np.random.default_rng(0).normal(size=(6, 4))
    band = mean_over_seeds(values, level=0.9)
    interval = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose([band.low, band.high], [interval.low, interval.high], rtol=1e-12)


def test_two_seeds_have_a_mean_and_no_band() -> None:
    band = mean_over_seeds([[1.0, 2.0], [3.0, 4.0]])
    assert band.mean.tolist() == [2, 3]
    assert np.isnan(band.low).all()
    assert np.isnan(band.high).all()


def test_no_seed_is_no_mean() -> None:
    with pytest.raises(ValueError, match="at least one seed"):
        mean_over_seeds(np.empty((0, 3)))


@pytest.fixture
def tables(results: Path, make_sweep):
    """Three seeds: reward 1, 2, 3 at step 0 and 3, 4, 5 at step 1; the third one lacks step 2, and has no KL."""
    for seed in range(3):
        rows = [{"step": step, "rollout/reward": 1.0 + seed + 2 * step} for step in range(4)]
        if seed == 2:
            rows[2]["rollout/reward"] = None
        else:
            rows[0]["train/kl"] = 0.1
        write_jsonl(RunFolder(results, spec("grpo", "counting", seed).run_id).metrics, rows)
    return by_metric(load_curves(results, make_sweep(method="[grpo]", source="[counting]", seed="[0, 1, 2]")))


def test_a_mean_curve_by_hand(tables) -> None:
    run_ids = [spec("grpo", "counting", seed).run_id for seed in range(3)]
    curve = mean_curve(tables["rollout/reward"], run_ids, window=2)
    # Smoothed per run: 1, 2, 4, 6 and so on; the third, whose step 2 is missing: 3, 4, -, 9.
    assert curve["step"].tolist() == [0, 1, 3]
    assert curve["mean"].tolist() == pytest.approx([2, 3, (6 + 7 + 9) / 3])
    assert curve["ci_low"].iloc[0] == pytest.approx(2 - 2.484138, abs=1e-6)
    assert curve["num_seeds"].tolist() == [3, 3, 3]


def test_a_metric_that_a_seed_lacks_has_no_curve(tables) -> None:
    run_ids = [spec("grpo", "counting", seed).run_id for seed in range(3)]
    assert mean_curve(tables["train/kl"], run_ids).empty
    assert mean_curve(tables["train/kl"], run_ids[:2])["mean"].tolist() == pytest.approx([0.1])
    assert mean_curve(tables.get("train/never"), run_ids).empty


def test_a_window_counts_steps_not_rows(results: Path, make_sweep) -> None:
    run = spec("sft", "counting")
    write_jsonl(RunFolder(results, run.run_id).metrics, [{"step": step, "train/loss": step} for step in (0, 1, 7)])
    table = by_metric(load_curves(results, make_sweep(method="[sft]", source="[counting]", seed="[0]")))["train/loss"]
    curve = mean_curve(table, [run.run_id], window=3)
    assert dict(zip(curve["step"], curve["mean"], strict=True)) == {0: 0.0, 1: 0.5, 7: 7.0}
