"""Accuracy against KL and against time: a dot per run, a mean per group, and what has neither is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.record.atomic import read_json, write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.report.figures.data import read_sweep_data
from harness.report.figures.style import METHOD_COLORS
from harness.report.figures.tradeoffs import cost_figure, kl_figure
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep

COUNTING = ([1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0])


@pytest.fixture
def sweep(results: Path, write_run, make_sweep) -> Sweep:
    """Base, SFT and GRPO on counting, three seeds; seed s took 10 + s s and ended at KL s / 10 over seven steps."""
    write_run(RunSpec.model_validate({"method": "base"}), {"counting": [1, 0, 0, 0], "geometry": [0, 0, 0, 0]})
    for method in ("sft", "grpo"):
        for seed, counting in enumerate(COUNTING):
            spec = RunSpec.model_validate({"method": method, "source": "counting", "seed": seed})
            folder = RunFolder(results, write_run(spec, {"counting": counting, "geometry": [1, 0, 0, 0]}))
            spent = {"started": "2026-01-01T10:00:00+0000", "ended": f"2026-01-01T10:00:{10 + seed}+0000"}
            write_json(folder.run_json, read_json(folder.run_json) | {"attempts": [spent]})
            # The first two steps lie outside of the window of five.
            kl = {} if method == "sft" else {"train/kl": seed / 10}
            far = {} if method == "sft" else {"train/kl": 9.0}
            rows = [{"step": step, "train/loss": 1.0} | (far if step < 2 else kl) for step in range(7)]
            write_jsonl(folder.metrics, rows)
    return make_sweep(method="[base, sft, grpo]", source="[counting]", seed="[0, 1, 2]")


def test_accuracy_against_kl_by_hand(results: Path, sweep: Sweep) -> None:
    drawn = kl_figure(read_sweep_data(results, sweep))
    assert drawn is not None and drawn.name == "accuracy_kl"
    runs = drawn.numbers[drawn.numbers["seed"].notna()]
    assert set(runs["method"]) == {"grpo"}
    assert runs["x"].tolist() == pytest.approx([0.0, 0.1, 0.2])
    assert runs["mean"].tolist() == [25.0, 50.0, 75.0]
    (_, mean), (_, base) = drawn.numbers[drawn.numbers["seed"].isna()].iterrows()
    assert (mean["x"], mean["mean"], mean["num_seeds"]) == (pytest.approx(0.1), 50.0, 3)
    assert mean["ci_low"] < 50.0 < mean["ci_high"] and mean["run_ids"].split() == runs["run_ids"].tolist()
    assert (base["method"], base["mean"]) == ("base", 25.0)
    note = " ".join(drawn.figure.texts[0].get_text().split())
    assert "No KL to the reference on record: sft." in note


def test_accuracy_against_time_by_hand(results: Path, sweep: Sweep) -> None:
    drawn = cost_figure(read_sweep_data(results, sweep))
    assert drawn is not None
    means = drawn.numbers[drawn.numbers["seed"].isna() & drawn.numbers["x"].notna()]
    assert means["x"].tolist() == [11.0, 11.0] and means["x_unit"].tolist() == ["s", "s"]
    (axes,) = drawn.figure.axes
    colors = {line.get_color() for line in axes.lines}
    assert {METHOD_COLORS[method] for method in ("base", "sft", "grpo")} <= colors


def test_a_group_with_a_missing_run_is_left_out_and_named(results: Path, sweep: Sweep) -> None:
    missing = next(cell.run_id for cell in sweep.cells if cell.run_id.startswith("grpo-counting-s1"))
    RunFolder(results, missing).summary.unlink()
    data = read_sweep_data(results, sweep)
    assert kl_figure(data) is None
    drawn = cost_figure(data)
    assert drawn is not None and set(drawn.numbers["method"]) == {"base", "sft"}
    assert "1 of 6 runs missing; left out: grpo on counting" in " ".join(drawn.figure.texts[0].get_text().split())


def test_without_times_on_record_there_is_no_such_figure(results: Path, write_run, make_sweep) -> None:
    spec = RunSpec.model_validate({"method": "sft", "source": "counting"})
    write_run(spec, {"counting": [1, 0, 0, 0], "geometry": [0, 0, 0, 0]})
    data = read_sweep_data(results, make_sweep(method="[sft]", source="[counting]", seed="[0]"))
    assert cost_figure(data) is None and kl_figure(data) is None
