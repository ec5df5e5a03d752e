"""Estimates, worked by hand from what run folders say."""

from __future__ import annotations

import json
import math

import pytest

from harness.launch.demands import kind_of
from harness.launch.estimate.counted import CPU_SPEED, START_S, count
from harness.launch.estimate.estimates import Estimate, Estimator, Place, Span, add_up, place_of
from harness.launch.estimate.foreseen import actual_s, beside, read_foreseen, record_estimates
from harness.launch.estimate.measured import Spread, measured_peaks, num_evaluations, read_measurements, spread
from harness.launch.estimate.operations import (
    Shapes,
    Sizes,
    decode_operations,
    patch_operations,
    prefill_operations,
    tower_operations,
    update_operations,
)
from harness.launch.estimate.work import Work, remaining, whole
from harness.launch.words import duration, labels
from harness.record.atomic import write_json
from harness.record.files import Files
from harness.record.index import RunIndex
from harness.record.marks import write_mark
from harness.spec import Evaluation, Execution, RunSpec
from harness.spec.executor import ExecutorSettings
from harness.spec.run import embedded_folder
from harness.spec.sweep import load_sweep

from .recorded import MEASURED, record

CPU = Place("cpu", False, 2, 1)


@pytest.fixture
def sweep(sweep_file):
    text = sweep_file.read_text().replace("{num_examples: 4}", "{num_examples: 20, every: 2, num_validation: 2}")
    sweep_file.write_text(text + "base: {num_steps: 4}\n")
    return load_sweep(sweep_file)


@pytest.fixture
def runs(sweep):
    return list(sweep.runs.values())


def estimator(sweep, results, place=CPU):
    with RunIndex(results) as index:
        return Estimator(sweep, read_measurements(results, index), place)


def fresh(sweep, results, run, place=CPU):
    return estimator(sweep, results, place).left(run.spec, run.targets, None, "pending")


def cost_of(sweep, results, run):
    with RunIndex(results) as index:
        return read_measurements(results, index).of(kind_of(run.spec, sweep.execution), "cpu", 2)


def test_quantiles_by_hand():
    assert spread(range(1, 12)) == Spread(2.0, 6.0, 10.0, 11)
    assert spread([1.0, 2.0]) == Spread(1.1, 1.5, 1.9, 2)
    assert spread([3.0]) == Spread(3.0, 3.0, 3.0, 1)
    assert spread([]) is None


@pytest.mark.parametrize(
    ("every", "start", "end", "num_steps", "times"),
    [(0, 0, 10, 10, 0), (5, 0, 10, 10, 2), (4, 0, 10, 10, 3), (4, 4, 10, 10, 2), (4, 4, 9, 10, 1), (5, 10, 10, 10, 0)],
)
def test_evaluations_during_training(every, start, end, num_steps, times):
    by_hand = [n for n in range(start + 1, end + 1) if every and (n % every == 0 or n == num_steps)]
    assert num_evaluations(every, start, end, num_steps) == times == len(by_hand)


def test_what_an_attempt_took_by_hand(sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    cost = cost_of(sweep, results, runs[0])
    # The first step's 3 s hold one of the later ones' 1 s: 2 s belong to the start.
    assert cost.start_s == (7.0, 7.0, 7.0, 1)
    assert cost.step_s == (1.0, 1.0, 1.0, 1)
    assert cost.example_s == {"counting": (0.5, 0.5, 0.5, 1)}
    assert (cost.device_gib, cost.host_gib) == (None, 0.5)


def test_an_estimate_by_hand(sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    found = fresh(sweep, results, runs[1])
    # Start, 4 steps, 2 validations of 2 examples, 20 test examples.
    assert found.seconds == Span(*[7.0 + 4 * 1.0 + (2 * 2 + 20) * 0.5] * 3)
    assert found.source == "measured (n=1)"
    assert found.host_gib == 0.5 and not found.at_least
    assert found.device_hours == found.seconds.times(1 / 3600)


def test_an_estimate_has_the_spread_of_what_was_measured(sweep, results, runs):
    for run, step in zip(runs, (1.0, 2.0, 3.0), strict=True):
        record(results, sweep, run, MEASURED | {"train_s": 3.0 + 3 * step + 2.0})
    low, median, high = fresh(sweep, results, runs[0]).seconds
    # Steps of 1.2, 2 and 2.8 s; a start of 8 s less a step, but at least 5 s, is 7, 6 and 5 s.
    assert (low, median, high) == pytest.approx((5.2 + 4.8 + 12, 6 + 8 + 12, 6.8 + 11.2 + 12))


@pytest.mark.parametrize(
    "place", [Place("NVIDIA H200", True, 2, 1), Place("cpu", False, 1, 1)], ids=["another device", "other threads"]
)
def test_what_was_measured_elsewhere_is_not_used(place, sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    assert fresh(sweep, results, runs[1], place).source == "counted"


def test_another_kind_is_not_used(sweep, results, runs, sweep_file):
    record(results, sweep, runs[0], MEASURED)
    other = load_sweep(sweep_file, ["prompts_per_step=3"])
    assert fresh(other, results, next(iter(other.runs.values()))).source == "counted"


def test_a_target_that_the_kind_was_never_evaluated_on_is_counted_and_said_to_be(sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    found = estimator(sweep, results).left(runs[1].spec, ("counting", "geometry"), None, "pending")
    assert found.source == "measured (n=1), counted"


def test_nothing_is_estimated_of_a_model_that_nobody_knows(sweep, results, sweep_file):
    unknown = load_sweep(sweep_file, ["model=someone/something"])
    found = fresh(unknown, results, next(iter(unknown.runs.values())))
    assert (found.seconds, found.source, found.device_hours) == (None, "-", None)
    total = add_up([found, found], 1)
    assert (total.num_runs, total.num_unknown, total.device_hours) == (2, 2, Span())


def test_a_calibration_stands_in_until_a_run_was_measured(sweep, results, runs):
    folder = record(results, sweep, runs[0], MEASURED)
    kept = json.loads(folder.run_json.read_text()) | {"summary": json.loads(folder.summary.read_text())}
    write_json(results / "calibrations" / "any.json", kept)
    (results / "calibrations" / "torn.json").write_text('{"spec": {')
    assert fresh(sweep, results, runs[1]).source == "measured (n=1)"
    for file in (folder.run_json, folder.summary):
        file.unlink()
    assert fresh(sweep, results, runs[1]).source == "calibrated (n=1)"


@pytest.mark.parametrize(
    "measured",
    [
        {"train_s": "long"},
        {"train_s": math.inf},
        {"evaluate_s": 3},
        {"device": 7},
        {"num_steps": -1, "start_s": None, "evaluate_s": {}},
    ],
)
def test_what_cannot_have_been_measured_is_passed_over(measured, sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    folder = record(results, sweep, runs[1], is_complete=False)
    content = json.loads(folder.run_json.read_text())
    content["attempts"] = [{"measured": MEASURED | measured, "start_step": 0}, None]
    folder.run_json.write_text(json.dumps(content))
    found = fresh(sweep, results, runs[2])
    assert found.seconds == Span(*[23.0] * 3)


def test_an_attempt_that_only_evaluated_tells_its_start_by_its_wall_time(sweep, results, runs):
    base = {"device": "cpu", "num_threads": 2, "evaluate_s": {"counting": 4.0}, "peak_host_gib": 0.25}
    record(results, sweep, runs[0], base)
    assert cost_of(sweep, results, runs[0]).start_s == (16.0, 16.0, 16.0, 1)  # of 20 s


def test_peaks_are_the_highest_of_each_kind(sweep, results, runs):
    record(results, sweep, runs[0], MEASURED, MEASURED | {"peak_host_gib": 0.75})
    record(results, sweep, runs[1], MEASURED | {"device": "NVIDIA H200", "peak_device_gib": 11.0})
    kind = kind_of(runs[0].spec, sweep.execution)
    assert measured_peaks(results) == {kind: (11.0, 0.75)}


def test_what_is_left_of_a_run(sweep, results, runs):
    run, evaluation = runs[0], sweep.evaluation

    def left(status="pending"):
        return remaining(folder, run.spec, run.targets, evaluation, status, {})

    folder = record(results, sweep, run, is_complete=False)
    assert left() == whole(run.spec, run.targets, evaluation, {}) == Work(4, (("counting", 20),), (("counting", 4),))
    folder.metrics.write_text('{"step": 0}\n')
    write_mark(folder, Files(folder.path), 2)
    assert left().steps == 4  # a mark without its checkpoint
    folder.checkpoint.mkdir()
    assert left() == Work(2, (("counting", 20),), (("counting", 2),))
    write_json(folder.state_json, {"status": "running", "phase": "train", "step": 3, "num_steps": 4})
    assert left("running").steps == 1
    folder.weights.mkdir()
    assert left() == Work(0, (("counting", 20),), ())
    folder.evaluation("counting").parent.mkdir()
    folder.evaluation("counting").write_text('{"correct": true}\n' * 20)
    assert left() == Work(0, (), ())
    assert not left("completed")


def test_a_split_that_is_smaller_than_asked_is_evaluated_whole(sweep, runs):
    sizes = {("test", "counting"): 7, ("validation", "counting"): 1}
    assert whole(runs[0].spec, ("counting",), sweep.evaluation, sizes) == Work(
        4, (("counting", 7),), (("counting", 2),)
    )


def estimate(seconds, devices=1):
    return Estimate("k", Span(*[float(seconds)] * 3), devices, None, None, "counted")


def test_slots_take_the_next_run_when_they_are_free():
    total = add_up([estimate(each, devices=2) for each in (4, 3, 2, 1)], 2)
    assert total.wall_s == Span(5.0, 5.0, 5.0)  # 4 + 1 and 3 + 2
    assert total.device_hours == Span(*[20 / 3600] * 3)
    assert add_up([estimate(4)], None).wall_s is None
    assert add_up([], 3).wall_s == Span()


def test_only_a_cluster_knows_its_slots():
    slurm = place_of(ExecutorSettings(type="slurm"), Execution(device="cpu"))
    assert (slurm.device, slurm.num_threads, slurm.num_slots) == ("cpu", 2, None)
    assert "executor.slots" in slurm.why
    assert place_of(ExecutorSettings(type="ray", slots=7), Execution()).num_slots == 7
    here = place_of(ExecutorSettings(slots=1), Execution(device="cpu"))
    assert (here.device, here.num_slots) == ("cpu", 1)
    many = place_of(ExecutorSettings(), Execution(device="cpu", devices=10_000))
    assert many.num_slots is None and "10000" in many.why


def test_operations_of_a_step_by_hand():
    """The forward pass of the reference is a third of an update without what that does for the image."""
    sizes = Sizes.of(json.loads((embedded_folder() / "config.json").read_text()))
    settings = {"type": "grpo", "prompts_per_step": 3, "group_size": 2, "max_completion_length": 5}
    spec = RunSpec(method=settings | {"schedule": {"type": "constant", "beta": 0.1}}, source="counting")
    without = RunSpec(method=settings | {"schedule": {"type": "constant", "beta": 0.0}}, source="counting")
    shapes = Shapes([96 + 16], [[5, 5]], [64])  # 112 x 112 pixels in patches of 14 x 14, four to a token
    update = update_operations(sizes, shapes, is_shared=True)
    forward = (update - 2 * tower_operations(sizes, [64]) + patch_operations(sizes, 64)) // 3
    rollout = prefill_operations(sizes, shapes) + decode_operations(sizes, shapes)
    asked = Evaluation(), Execution()
    assert count(spec, *asked).per_step == 3 * (rollout + update + forward)
    assert count(without, *asked).per_step == 3 * (rollout + update)
    assert count(RunSpec(method="base"), *asked).per_step == 0
    # float32 weights, gradients and two moments, and a reference.
    num = json.loads((embedded_folder() / "card.json").read_text())["num_parameters"]
    assert count(spec, *asked).gib == num * (16 + 4) / 2**30
    assert count(without, *asked).gib == num * 16 / 2**30
    assert count(RunSpec(method="base"), *asked).gib == num * 4 / 2**30


def test_only_what_has_the_layout_is_counted(tmp_path):
    for number, config in enumerate(['{"model_type": "other"}', '{"model_type": "qwen2_vl"}', "{", "[]"]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(config)
        assert count(RunSpec(method="base", model=str(folder)), Evaluation(), Execution()) is None
    assert count(RunSpec(method="base", model="a/b/c"), Evaluation(), Execution()) is None


def test_a_counted_estimate_by_hand(sweep, results, runs):
    counted = count(runs[0].spec, sweep.evaluation, sweep.execution)
    found = fresh(sweep, results, runs[0])
    seconds = START_S + (4 * counted.per_step + 24 * counted.per_example) / (2 * CPU_SPEED)
    assert found.seconds.median == pytest.approx(seconds)
    assert found.at_least and found.host_gib == counted.gib


def test_what_was_expected_first_stays_and_stands_beside_what_it_took(sweep, results, runs):
    record(results, sweep, runs[0], MEASURED)
    record_estimates(results, sweep, runs[1:2])
    before = read_foreseen(results, sweep.name)
    assert before[runs[1].run_id].seconds == [23.0] * 3
    assert before[runs[1].run_id].evaluate_s == 10.0
    record(results, sweep, runs[1], MEASURED | {"train_s": 100.0}, started="2026-01-01T00:00:00+0000")
    record_estimates(results, sweep, runs[1:])
    after = read_foreseen(results, sweep.name)
    assert after.keys() == {runs[1].run_id, runs[2].run_id}
    assert after[runs[1].run_id] == before[runs[1].run_id]
    with RunIndex(results) as index:
        taken = index.measured(runs[1].run_id)
    assert actual_s(taken, since=after[runs[1].run_id].at) is None  # what it took before it was expected
    assert actual_s(taken, since=0.0) == 5.0 + 100.0 + 4.0
    kinds = beside(after, {runs[1].run_id: 109.0, runs[2].run_id: 20.0}, {run.run_id: run.spec for run in runs[1:]})
    (one,) = kinds.values()
    expected = 23.0 + after[runs[2].run_id].seconds[1]
    assert (one.actual_s, one.estimated_s, one.device_hours) == (129.0, expected, 129.0 / 3600)


@pytest.mark.parametrize("content", ["", "[]", '{"runs": 3}', '{"runs": {"a": 1, "b": {"at": 1}}}'])
def test_damaged_estimates_are_none(content, sweep, results, runs):
    path = results / "estimates" / "small.json"
    path.parent.mkdir()
    path.write_text(content)
    assert read_foreseen(results, "small") == {}
    record_estimates(results, sweep, runs)
    assert read_foreseen(results, "small").keys() >= {run.run_id for run in runs}


def test_estimates_that_nobody_can_write_stop_nothing(sweep, results, runs):
    (results / "estimates").write_text("a file where the folder should be")
    record_estimates(results, sweep, runs)
    assert read_foreseen(results, "small") == {}


def test_kinds_are_told_apart_by_what_differs(runs):
    other = replace_method(runs[0].spec, prompts_per_step=3)
    assert labels({"a": [runs[0].spec, runs[1].spec]}) == {"a": "sft counting"}
    found = labels({"a": [runs[0].spec], "b": [other], "c": [RunSpec(method="base")]})
    assert found["b"] == "sft counting prompts_per_step=3" and found["c"] == "base"


def replace_method(spec, **settings):
    return spec.model_copy(update={"method": spec.method.model_copy(update=settings)})


def test_times_in_words():
    told = [duration(seconds) for seconds in (0.44, 12.4, 185, 7800, 200_000)]
    assert told == ["0.4 s", "12 s", "3 min 05 s", "2 h 10 min", "2 d 7 h"]
