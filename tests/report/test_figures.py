"""Figures of synthetic sweeps: their numbers by hand, what they leave out, and what they look like on disk."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.record.atomic import read_jsonl, write_jsonl
from harness.record.folder import RunFolder
from harness.record.sweep_record import write_sweep_record
from harness.report.collect import asked_by
from harness.report.figures.ablated import ablations, base_run, file_stem
from harness.report.figures.ablation import ablation_figures
from harness.report.figures.by_format import share_among
from harness.report.figures.data import read_sweep_data
from harness.report.figures.drawn import Drawn
from harness.report.figures.style import METHOD_COLORS, PANEL_WIDTH_IN, SMALL_PT, checked_formats, save, value_colors
from harness.report.figures.value_axis import value_axis
from harness.report.figures.write import draw_figures, write_figures
from harness.report.stats import two_level_bootstrap
from harness.report.tables import build_tables
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep

VERDICTS = {0.0: ([1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]), 1.0: ([1, 1, 1, 0], [1, 1, 0, 1], [1, 1, 0, 0])}
"""On counting, by format weight and seed; the first two of four completions are in the right format."""

Train = Callable[..., str]


def spec(method: str, source: str | None = None, seed: int = 0, **settings: object) -> RunSpec:
    return RunSpec.model_validate({"method": {"type": method, **settings}, "source": source, "seed": seed})


@pytest.fixture
def train(results: Path, write_run) -> Train:
    """Writes a completed run whose reward is 1 + seed + 2 * step, with metrics of four steps."""

    def write(run: RunSpec, counting: list[int], geometry: list[int], *, kl: float | None = 0.1) -> str:
        write_run(run, {"counting": counting, "geometry": geometry})
        if run.method.type != "base":
            rows = [{"step": step, "train/grad_norm": 0.5 + run.seed, "train/beta": 0.01} for step in range(4)]
            if run.method.type != "sft":
                for step, row in enumerate(rows):
                    row |= {"rollout/reward": 1.0 + run.seed + 2 * step, "rollout/accuracy": 0.5, "rollout/format": 1.0}
                    row |= {} if kl is None else {"train/kl": kl * step}
            rows.append({"step": 3, "eval/counting/accuracy": 0.25, "eval/counting/format": 1.0})
            write_jsonl(RunFolder(results, run.run_id).metrics, rows)
        return run.run_id

    return write


@pytest.fixture
def weights(train: Train, make_sweep) -> Sweep:
    """Base and GRPO on counting at two format weights with three seeds; no KL at weight 0."""
    train(spec("base"), [1, 0, 0, 0], [1, 1, 0, 0])
    for weight, verdicts in VERDICTS.items():
        for seed, counting in enumerate(verdicts):
            run = spec("grpo", "counting", seed, format_weight=weight)
            train(run, counting, [0, 0, 0, 1], kl=0.1 if weight else None)
    return make_sweep(method="[base, grpo]", source="[counting]", seed="[0, 1, 2]", format_weight="[1.0, 0.0]")


def drawn(results: Path, sweep: Sweep, **options: object) -> dict[str, Drawn]:
    return {one.name: one for one in draw_figures(read_sweep_data(results, sweep), **options)}  # type: ignore[arg-type]


def one_row(frame: pd.DataFrame, **values: object) -> pd.Series:
    for key, value in values.items():
        frame = frame[frame[key] == value]
    assert len(frame) == 1, frame
    return frame.iloc[0]


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if isinstance(text, Text) and text.get_text().strip()]


def footnote(figure: Figure) -> str:
    return " ".join(figure.texts[0].get_text().split())


def test_accuracies_by_hand_and_as_the_tables_have_them(results: Path, weights: Sweep) -> None:
    numbers = drawn(results, weights)["ablation_format_weight"].numbers
    assert list(dict.fromkeys(numbers["value"])) == ["0", "1"]
    row = one_row(numbers, quantity="accuracy", value="0")
    assert row["mean"] == pytest.approx(100 * 4 / 12)
    assert (row["num_hits"], row["num_of"], row["num_seeds"], row["num_examples"]) == (4, 12, 3, 4)
    assert (row["unit"], row["target"], row["setting"]) == ("%", "counting", "method.format_weight")
    table = {r.settings["method.format_weight"]: r for r in build_tables(results, weights) if r.method == "grpo"}
    assert row["run_ids"].split() == list(table[0.0].run_ids)
    for weight in (0.0, 1.0):
        same = [
            r
            for r in build_tables(results, weights)
            if r.settings == {"method.format_weight": weight} and r.table == "same_task"
        ]
        row = one_row(numbers, quantity="accuracy", value=f"{weight:g}")
        bounds = [row["mean"] / 100, row["ci_low"] / 100, row["ci_high"] / 100]
        assert bounds == pytest.approx([same[0].mean, same[0].ci_low, same[0].ci_high])
    assert one_row(numbers, quantity="cross-task accuracy", value="1")["mean"] == 25.0
    assert one_row(numbers, quantity="base", value="1", target="counting")["mean"] == 25.0
    assert one_row(numbers, quantity="base", value="0", target="geometry")["mean"] == 50.0


def test_accuracy_by_format_by_hand(results: Path, weights: Sweep) -> None:
    numbers = drawn(results, weights)["ablation_format_weight"].numbers
    of_zero = numbers[(numbers["value"] == "0") & (numbers["panel"] == "by_format")].set_index("quantity")
    expected = {"right format": (6, 12), "accuracy in the right format": (3, 6), "accuracy in another format": (1, 6)}
    assert {name: (row["num_hits"], row["num_of"]) for name, row in of_zero.iterrows()} == expected
    for name, (hits, of) in expected.items():
        assert of_zero.loc[name, "mean"] == pytest.approx(100 * hits / of)


def test_without_such_completions_there_is_no_accuracy_among_them(results: Path, weights: Sweep) -> None:
    for seed in range(3):
        path = RunFolder(results, spec("grpo", "counting", seed, format_weight=1.0).run_id).evaluation("counting")
        write_jsonl(path, [row | {"format": True} for row in read_jsonl(path)])
    numbers = drawn(results, weights)["ablation_format_weight"].numbers
    found = numbers[(numbers["value"] == "1") & (numbers["panel"] == "by_format")].set_index("quantity")["mean"]
    assert dict(found) == {"right format": 100.0, "accuracy in the right format": pytest.approx(100 * 8 / 12)}


def test_curves_of_an_ablation_by_hand(results: Path, weights: Sweep) -> None:
    one = drawn(results, weights, window=2)["ablation_format_weight"]
    numbers = one.numbers
    reward = numbers[(numbers["panel"] == "reward") & (numbers["value"] == "1")]
    assert reward["step"].tolist() == [0, 1, 2, 3]
    # Each run is 1 + seed + 2 * step; smoothed over two steps 1, 2, 4, 6; over the seeds 0, 1, 2 one more.
    assert reward["mean"].tolist() == pytest.approx([2, 3, 5, 7])
    assert reward["ci_high"].tolist() == pytest.approx([mean + 2.484138 for mean in (2, 3, 5, 7)], abs=1e-6)
    kl = numbers[numbers["panel"] == "kl"]
    assert set(kl["value"]) == {"1"}
    assert kl["mean"].tolist() == pytest.approx([0, 0.05, 0.15, 0.25])
    note = footnote(one.figure)
    assert "No KL measured, there being no reference: format_weight 0." in note
    assert "n = 3 seeds, 4 test examples each" in note
    assert "Reward is accuracy + format_weight x format" in note


def test_a_value_with_missing_runs_is_left_out_and_counted(results: Path, weights: Sweep) -> None:
    RunFolder(results, spec("grpo", "counting", 1, format_weight=0.0).run_id).summary.unlink()
    figures = drawn(results, weights)
    assert set(figures["ablation_format_weight"].numbers["value"]) == {"1"}
    for name in ("ablation_format_weight", "curves", "same_task", "cross_task"):
        assert "1 of 6 runs missing; left out: " in footnote(figures[name].figure), name
        assert not any("0.0" in str(value) for value in figures[name].numbers.get("settings", ())), name


def test_two_seeds_are_points_without_intervals(results: Path, train: Train, make_sweep) -> None:
    for weight in (0.0, 1.0):
        for seed in range(2):
            train(spec("grpo", "counting", seed, format_weight=weight), VERDICTS[weight][seed], [0, 0, 0, 1])
    sweep = make_sweep(method="[grpo]", source="[counting]", seed="[0, 1]", format_weight="[0.0, 1.0]")
    figures = drawn(results, sweep)
    for name in ("ablation_format_weight", "curves", "same_task", "cross_task"):
        numbers = figures[name].numbers
        assert numbers["mean"].notna().all()
        assert numbers["ci_low"].isna().all()
        assert figures[name].figure.findobj(lambda artist: "FillBetween" in type(artist).__name__) == []
    assert "none below 3 seeds" in footnote(figures["ablation_format_weight"].figure)
    assert set(figures["cross_task"].numbers["quantity"]) == {"accuracy"}


def asked_of(make_sweep, blocks: str = "[]", **axes: str):
    return asked_by("nowhere", make_sweep(blocks, **axes))


def test_a_setting_is_varied_with_the_others_held_still(make_sweep) -> None:
    axes = {"method": "[base, sft, grpo]", "source": "[counting]", "seed": "[0, 1]", "num_train": "[400]"}
    found = ablations(asked_of(make_sweep, **axes, beta="[0.04, 0.0]", format_weight="[1.0, 0.5, 0.0]"), {})
    assert list(found) == ["method.schedule.beta", "method.format_weight"]
    assert [(a.method, dict(a.fixed)) for a in found["method.schedule.beta"]] == [
        ("grpo", {"method.format_weight": weight}) for weight in (1.0, 0.5, 0.0)
    ]
    first = found["method.format_weight"][0]
    assert [point.label for point in first.points] == ["0", "0.5", "1"]
    assert (first.ordered, first.targets, first.source) == (True, ("counting", "geometry"), "counting")
    assert {len(point.run_ids) for point in first.points} == {2}


def test_what_belongs_to_a_value_comes_along_with_it(make_sweep) -> None:
    blocks = "[{where: {schedule: othink}, axes: {explore_frac: [0.1, 0.3]}}]"
    axes = {"method": "[grpo_d]", "source": "[geometry]", "seed": "[0]", "schedule": "[linear, othink, adaptive]"}
    found = ablations(asked_of(make_sweep, blocks, **axes), {})
    labels = [point.label for point in found["method.schedule"][0].points]
    assert labels == ["linear", "othink (explore_frac=0.1)", "othink (explore_frac=0.3)", "adaptive"]
    assert [point.label for point in found["method.schedule.explore_frac"][0].points] == ["0.1", "0.3"]
    assert dict(found["method.schedule.explore_frac"][0].fixed) == {"method.schedule": "othink"}


def test_values_written_as_mappings_are_taken_apart(make_sweep) -> None:
    schedules = "[{type: linear, beta_min: 0.0, beta_max: 0.1}, {type: linear, beta_min: 0.04, beta_max: 0.2}]"
    found = ablations(asked_of(make_sweep, method="[grpo_d]", source="[geometry]", seed="[0]", schedule=schedules), {})
    # Neither bound varies alone, so neither is an ablation of its own.
    assert list(found) == ["method.schedule"]
    labels = [point.label for point in found["method.schedule"][0].points]
    assert labels == ["linear (beta_min=0, beta_max=0.1)", "linear (beta_min=0.04, beta_max=0.2)"]


def test_a_cell_that_is_silent_on_a_setting_has_its_spec_s_value(results: Path, train: Train, make_sweep) -> None:
    blocks = (
        "[{where: {schedule: othink}, axes: {explore_frac: [0.3, 0.1]}}, "
        "{where: {explore_frac: 0.3}, axes: {beta_max: [0.02, 0.1]}}]"
    )
    axes = {"method": "[grpo_d]", "source": "[geometry]", "seed": "[0, 1]", "schedule": "[othink, linear]"}
    sweep = make_sweep(blocks, **axes)
    # One seed of each is enough to know the defaults of both.
    for cell in sweep.cells:
        if cell.spec.seed == 0:
            train(cell.spec, [1, 0, 0, 0], [1, 1, 0, 0])
    found = ablations(asked_by(results, sweep), read_sweep_data(results, sweep).specs)
    [explore] = found["method.schedule.explore_frac"]
    assert dict(explore.fixed) == {"method.schedule": "othink", "method.schedule.beta_max": 0.02}
    assert [(point.label, len(point.run_ids)) for point in explore.points] == [("0.1", 2), ("0.3", 2)]
    [beta_max] = found["method.schedule.beta_max"]
    assert dict(beta_max.fixed) == {"method.schedule": "othink", "method.schedule.explore_frac": 0.3}
    assert [point.label for point in found["method.schedule"][0].points] == [
        "othink (explore_frac=0.3, beta_max=0.02)",
        "othink (explore_frac=0.3, beta_max=0.1)",
        "othink (explore_frac=0.1, beta_max=0.02)",
        "linear",
    ]


def test_grpo_is_the_constant_schedule(results: Path, train: Train, make_sweep) -> None:
    for method, schedules in (("grpo", ["constant"]), ("grpo_d", ["othink", "linear"])):
        for schedule in schedules:
            for seed in range(3):
                verdicts = VERDICTS[1.0 if method == "grpo" else 0.0][seed]
                train(spec(method, "counting", seed, schedule={"type": schedule}), verdicts, [0, 0, 0, 1])
    axes = {"method": "[grpo, grpo_d]", "source": "[counting]", "seed": "[0, 1, 2]", "schedule": "[othink, linear]"}
    sweep = make_sweep(**axes)
    one = drawn(results, sweep)["ablation_schedule"]
    accuracy = one.numbers[one.numbers["quantity"] == "accuracy"]
    means = dict(zip(accuracy["value"], accuracy["mean"], strict=True))
    assert means == pytest.approx({"constant (grpo)": 800 / 12, "othink": 400 / 12, "linear": 400 / 12})
    assert "constant (grpo): plain GRPO" in footnote(one.figure)


def test_nothing_varied_is_no_ablation(make_sweep) -> None:
    axes = {"method": "[base, sft, grpo]", "source": "[counting, geometry]", "seed": "[0, 1]", "num_train": "[400]"}
    assert ablations(asked_of(make_sweep, **axes), {}) == {}


def test_base_is_the_one_that_agrees_on_what_both_have(make_sweep) -> None:
    asked = asked_of(make_sweep, method="[base, sft]", source="[counting]", seed="[0]", model="[embedded, a/b]")
    of_model = {model: base_run(asked, {"model": model, "method.lr": 0.1}) for model in ("embedded", "a/b")}
    assert len(set(of_model.values())) == 2 and None not in of_model.values()
    assert base_run(asked, {}) is None


def test_file_names_use_the_short_name_where_it_tells() -> None:
    assert file_stem("method.schedule.beta", ["method.schedule.beta", "method.lr"]) == "ablation_beta"
    assert file_stem("method.target", ["method.target", "other.target"]) == "ablation_method_target"


@pytest.mark.parametrize(
    ("values", "is_log", "is_even"),
    [([0.0, 0.5, 1.0], False, False), ([1e-5, 1e-3], True, False), ([0.0, 0.001, 1.0], False, True)],
)
def test_numbers_stand_where_they_can_be_read(values: list[float], is_log: bool, is_even: bool, make_sweep) -> None:
    key = "lr" if is_log else "format_weight"
    asked = asked_of(make_sweep, method="[grpo]", source="[counting]", seed="[0]", **{key: str(values)})
    axis = value_axis(ablations(asked, {})[f"method.{key}"][0].points, is_ordered=True)
    assert (axis.is_log, axis.is_even) == (is_log, is_even)
    assert list(axis.at.values()) == ([0.0, 1.0, 2.0] if is_even else values)


def test_a_share_of_everything_is_the_mean_with_the_tables_interval() -> None:
    correct = np.random.default_rng(3).random((5, 60)) < np.linspace(0.1, 0.9, 60)
    options = {"num_resamples": 20_000}
    share = share_among(list(correct), list(np.ones_like(correct)), np.random.default_rng(1), **options)
    mean, low, high = two_level_bootstrap(list(correct), np.random.default_rng(2), **options)
    assert (share.num_hits, share.num_of, share.share) == (correct.sum(), 300, pytest.approx(mean))
    assert [share.low, share.high] == pytest.approx([low, high], abs=0.01)


def test_a_share_counts_only_what_it_is_among() -> None:
    hits, among = [[1, 1, 0, 0]] * 3, [[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1]]
    share = share_among(hits, among, np.random.default_rng(0))
    assert (share.num_hits, share.num_of, share.share) == (3, 7, 3 / 7)
    assert share_among(hits[:2], among[:2], np.random.default_rng(0))[2:] == (1 / 4, None, None)
    assert share_among(hits, np.zeros((3, 4)), np.random.default_rng(0)) == (0, 0, None, None, None)
    # One chosen example in all: most draws miss it, so nothing can be said of the spread.
    assert share_among(hits, np.eye(3, 4) * [[1], [0], [0]], np.random.default_rng(0))[2:] == (1.0, None, None)
    with pytest.raises(ValueError, match="must be one matrix"):
        share_among(hits, among[:2], np.random.default_rng(0))


def test_cross_task_differences_by_hand(results: Path, weights: Sweep) -> None:
    numbers = drawn(results, weights)["cross_task"].numbers
    row = one_row(numbers, target="counting", settings='{"method.format_weight": 0.0}')
    assert (row["mean"], row["accuracy"], row["base_accuracy"]) == pytest.approx((100 * (4 / 12 - 1 / 4), 400 / 12, 25))
    # Geometry: each seed has 0, 0, 0, 1 against 1, 1, 0, 0; four of the paired differences are drawn: -1, -1, 0, 1.
    row = one_row(numbers, target="geometry", settings='{"method.format_weight": 1.0}')
    assert (row["mean"], row["ci_low"], row["ci_high"]) == (-25.0, -100.0, 50.0)
    assert (row["unit"], row["base_run_id"], row["num_seeds"]) == ("points", spec("base").run_id, 3)


def test_same_task_bars_are_the_table(results: Path, weights: Sweep) -> None:
    numbers = drawn(results, weights)["same_task"].numbers
    rows = [r for r in build_tables(results, weights) if r.table == "same_task" and r.target == "counting"]
    assert numbers["method"].tolist() == [row.method for row in rows]
    assert (numbers["mean"] / 100).tolist() == pytest.approx([row.mean for row in rows])
    assert (numbers["ci_low"] / 100).tolist() == pytest.approx([row.ci_low for row in rows])


def test_schedules_by_formula_and_as_measured(results: Path, train: Train, make_sweep) -> None:
    of = {"beta_min": 0.0, "beta_max": 0.02}
    schedules = [{"type": "linear", **of}, {"type": "othink", **of, "explore_frac": 0.5}, {"type": "adaptive"}]
    for schedule in schedules:
        for seed in range(3):
            train(spec("grpo_d", "geometry", seed, schedule=schedule, num_steps=4), [0, 0, 0, 1], [1, 1, 0, 0])
    sweep = make_sweep(
        method="[grpo_d]", source="[geometry]", seed="[0, 1, 2]", num_steps="[4]", schedule=json.dumps(schedules)
    )
    figures = drawn(results, sweep)
    numbers = figures["schedules"].numbers
    betas = {kind: rows["mean"].tolist() for kind, rows in numbers.groupby("schedule")}
    assert betas["linear"] == pytest.approx([0, 0.005, 0.01, 0.015])
    # Eq. 3 with w = 2: down from 0.01 to 0 at step 2, then half of the way to 0.02.
    assert betas["othink"] == pytest.approx([0.01, 0.005, 0, 0.01])
    assert betas["adaptive"] == pytest.approx([0.01] * 4)
    assert set(zip(numbers["schedule"], numbers["origin"], strict=True)) == {
        *(("linear", "formula"), ("othink", "formula"), ("adaptive", "measured"))
    }
    assert set(numbers["num_seeds"]) == {3}
    assert "ablation_schedule" in figures


def test_curves_have_every_metric_that_was_measured(results: Path, train: Train, make_sweep) -> None:
    for seed in range(3):
        train(spec("sft", "counting", seed), [1, 0, 0, 0], [0, 0, 0, 0])
        train(spec("grpo", "counting", seed), [1, 1, 0, 0], [0, 0, 0, 0])
    sweep = make_sweep(method="[sft, grpo]", source="[counting]", seed="[0, 1, 2]")
    numbers = drawn(results, sweep, window=1)["curves"].numbers
    by_method = {method: set(rows["panel"]) for method, rows in numbers.groupby("method")}
    assert by_method["sft"] == {"validation", "beta", "grad_norm"}
    assert by_method["grpo"] == {"reward", "accuracy", "format", "validation", "kl", "beta", "grad_norm"}
    row = one_row(numbers, panel="validation", method="sft")
    assert (row["step"], row["mean"], row["metric"]) == (3, 25.0, "eval/counting/accuracy")
    assert numbers[numbers["panel"] == "format"]["mean"].tolist() == [100.0] * 4


@pytest.fixture
def crowded(train: Train, make_sweep) -> Sweep:
    """Long labels on both sources: every schedule, two of them `othink`; and SFT, which samples nothing."""
    schedules = ["constant", "othink", "linear", "cosine", "adaptive"]
    train(spec("base"), [1, 0, 0, 0], [1, 1, 0, 0])
    for source in ("counting", "geometry"):
        for seed in range(3):
            verdicts = [1, seed % 2, 0, 0], [1, 1, 0, seed % 2]
            for lr in (1e-5, 1e-4):
                train(spec("sft", source, seed, lr=lr), *verdicts)
            for schedule in schedules:
                for explore in (0.1, 0.3) if schedule == "othink" else (None,):
                    extra = {} if explore is None else {"explore_frac": explore}
                    train(spec("grpo_d", source, seed, schedule={"type": schedule, **extra}), *verdicts)
    blocks = (
        "[{where: {method: sft}, axes: {lr: [0.00001, 0.0001]}}, "
        f"{{where: {{method: grpo_d}}, axes: {{schedule: [{', '.join(schedules)}]}}}}, "
        "{where: {method: grpo_d, schedule: othink}, axes: {explore_frac: [0.1, 0.3]}}]"
    )
    axes = {"method": "[base, sft, grpo_d]", "source": "[counting, geometry]", "seed": "[0, 1, 2]"}
    return make_sweep(blocks, **axes)


NAMES = {"ablation_lr", "ablation_schedule", "ablation_explore_frac", "curves", "same_task", "cross_task", "schedules"}
NAMES |= {"accuracy_kl"}


@pytest.mark.slow
def test_text_is_large_enough_and_within_the_figure(results: Path, crowded: Sweep) -> None:
    figures = drawn(results, crowded)
    assert figures.keys() == NAMES
    for name, one in figures.items():
        one.figure.draw_without_rendering()
        width = one.figure.get_size_inches()[0] / PANEL_WIDTH_IN
        assert width == pytest.approx(round(width)), name
        box = one.figure.bbox
        assert all(text.get_fontsize() >= SMALL_PT for text in texts(one.figure)), name
        for text in _shown(one.figure):
            extent = text.get_window_extent()
            assert extent.x0 >= box.x0 - 1 and extent.x1 <= box.x1 + 1, (name, text.get_text())
            assert extent.y0 >= box.y0 - 1 and extent.y1 <= box.y1 + 1, (name, text.get_text())


def _shown(figure: Figure) -> list[Text]:
    """What is drawn: an axis also keeps labels for ticks beyond its limits."""
    shown = [*figure.texts]
    for axes in figure.axes:
        shown += [axes.title, axes._left_title, *axes.texts]  # type: ignore[attr-defined]
        if axes.axison:
            shown += [axes.xaxis.label, axes.yaxis.label]
            low, high = axes.get_xlim()
            shown += [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
        legend = axes.get_legend()
        shown += legend.get_texts() if legend is not None else []
    return [text for text in shown if text.get_text().strip()]


def test_a_method_has_one_colour_everywhere(results: Path, crowded: Sweep) -> None:
    figures = drawn(results, crowded)
    bars = [patch.get_facecolor()[:3] for axes in figures["same_task"].figure.axes for patch in axes.patches]
    wanted = {tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)) for color in METHOD_COLORS.values()}
    assert {tuple(np.round(bar, 6)) for bar in bars} <= {tuple(np.round(color, 6)) for color in wanted}
    lines = {line.get_color() for line in figures["ablation_lr"].figure.axes[0].get_lines()}
    assert METHOD_COLORS["sft"] in lines
    assert len(set(METHOD_COLORS.values())) == len(METHOD_COLORS)


def test_ordered_values_go_from_dark_to_light() -> None:
    shades = value_colors([0.0, 0.1, 0.2, 0.4, 0.8], ordered=True)
    light = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5))) for c in shades]
    assert light == sorted(light)
    assert len(set(value_colors(["othink", "othink", "linear"], ordered=False))) == 3


@pytest.mark.slow
def test_files_are_images_with_their_numbers_and_equal_to_the_byte(
    results: Path, weights: Sweep, tmp_path: Path
) -> None:
    first = write_figures(results, weights, tmp_path / "first", formats=("png", "svg", "pdf"))
    second = write_figures(results, weights, tmp_path / "second", formats=("png", "svg", "pdf"))
    assert {path.stem for path in first.files} == {
        *("ablation_format_weight", "curves", "same_task", "cross_task", "schedules", "accuracy_kl")
    }
    assert len(first.files) == 4 * 6
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for path in first.files:
        if path.suffix == ".png":
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB"))
            assert (pixels != 255).any(axis=2).mean() > 0.02, path.name
            assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20, path.name
        elif path.suffix == ".csv":
            with path.open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            assert rows
            assert rows[0]["run_ids"].split()
            assert all(math.isfinite(float(row["mean"])) for row in rows)


def test_the_csv_holds_what_is_plotted(results: Path, weights: Sweep, tmp_path: Path) -> None:
    write_figures(results, weights, tmp_path)
    one = drawn(results, weights)["ablation_format_weight"]
    numbers = one.numbers
    with (tmp_path / "ablation_format_weight.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["mean"]) for row in rows] == pytest.approx(numbers["mean"].tolist(), rel=1e-9)
    assert [row["num_seeds"] for row in rows] == [str(count) for count in numbers["num_seeds"]]
    plotted = one.figure.axes[0].get_lines()[0].get_ydata()
    accuracy = [float(row["mean"]) for row in rows if row["quantity"] == "accuracy"]
    assert list(plotted) == pytest.approx(accuracy, rel=1e-9)
    # A curve names its runs once, at its first step.
    reward = [row["run_ids"] for row in rows if row["panel"] == "reward"]
    assert [bool(ids) for ids in reward] == [True, False, False, False] * 2


def test_a_sweep_without_runs_has_no_figures(results: Path, make_sweep) -> None:
    sweep = make_sweep(method="[base, grpo]", source="[counting]", seed="[0, 1]", format_weight="[0.0, 1.0]")
    written = write_figures(results, sweep)
    assert (written.files, len(written.missing_run_ids)) == ((), 5)
    assert not written.folder.exists()


def test_the_verb_writes_beside_the_results_and_names_what_is_missing(results: Path, weights: Sweep) -> None:
    RunFolder(results, spec("grpo", "counting", 1, format_weight=0.0).run_id).summary.unlink()
    write_sweep_record(results, weights)
    for sweep in ("small", str(weights.path)):
        done = CliRunner().invoke(app, ["figures", sweep, "--results", str(results)], catch_exceptions=False)
        assert done.exit_code == 3
        folder = results / "figures" / "small"
        assert [Path(line).parent for line in done.stdout.splitlines()] == [folder] * 12
        assert all(Path(line).is_file() for line in done.stdout.splitlines())
        assert done.stderr.startswith("1 run missing: grpo-counting-s1-")


def test_the_verb_tells_mistakes(results: Path, weights: Sweep, tmp_path: Path) -> None:
    def said(*options: str) -> tuple[int, str]:
        command = ["figures", str(weights.path), "--results", str(results), *options]
        done = CliRunner().invoke(app, command, catch_exceptions=False)
        return done.exit_code, done.stderr

    code, error = said("--formats", "png,svgg")
    assert (code, error) == (2, "--formats: unknown format 'svgg': did you mean 'svg'?\n")
    (tmp_path / "taken").write_text("")
    code, error = said("--out", str(tmp_path / "taken"))
    assert code == 2
    assert error.count("\n") == 1
    assert "taken" in error


def test_formats_are_read_as_written() -> None:
    assert checked_formats("svg, png,svg") == ("svg", "png")
    with pytest.raises(UserError, match="name at least one"):
        checked_formats(" , ")


def test_saving_leaves_the_user_s_settings_alone(results: Path, weights: Sweep, tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    for one in ablation_figures(read_sweep_data(results, weights), window=1):
        save(one.figure, tmp_path / "one.svg")
    assert dict(mpl.rcParams) == before
