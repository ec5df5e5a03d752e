"""Plans: what is reused, what is left, as JSON and as text; calibrations with the real worker."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console
from typer.testing import CliRunner

from harness.cli import app
from harness.launch.demands import kind_of
from harness.launch.estimate.calibrate import calibrate_kinds, calibration_of
from harness.launch.plan import make_plan, with_estimates
from harness.record.index import RunIndex
from harness.spec.sweep import load_sweep

from .recorded import MEASURED, record


def planned(sweep, results):
    with RunIndex(results) as index:
        return with_estimates(make_plan(sweep, results, index), sweep, results, index)


def text(plan):
    out = io.StringIO()
    plan.print(out)
    return out.getvalue()


def test_what_is_reused_and_what_is_left(sweep, results):
    own, other, new = sweep.runs.values()
    record(results, sweep, own, MEASURED)
    record(results, sweep, other, MEASURED, made_by="another")
    plan = planned(sweep, results)
    assert [run.reused_from for run in plan.runs] == [None, "another", None]
    found = json.loads(json.dumps(plan.as_json()))
    plain = make_plan(sweep, results).as_json()
    assert plain | {"runs": None} == {key: found[key] for key in plain} | {"runs": None}
    for run, before in zip(found["runs"], plain["runs"], strict=True):
        assert before.items() <= run.items()
    assert [run["reused_from"] for run in found["runs"]] == [None, "another", None]
    assert [run["estimate"] is None for run in found["runs"]] == [True, True, False]
    left = found["runs"][2]["estimate"]
    assert left["source"] == "measured (n=2)"
    # Without evaluations among them, each of the three later steps took a third of what the first one's 3 s leave of 8.
    steps, step_s = new.spec.method.num_steps, 5.0 / 3
    assert left["seconds"]["median"] == pytest.approx((8.0 - step_s) + steps * step_s + 4 * 0.5)
    assert found["estimate"]["num_runs"] == 1
    assert found["estimate"]["device_hours"]["median"] == pytest.approx(left["seconds"]["median"] / 3600)
    assert found["estimate"]["wall_s"] == left["seconds"]
    assert found["estimate"]["num_slots"] >= 1


def test_text_names_the_other_sweep_and_fits_120_columns(sweep_file, results):
    sweep = load_sweep(sweep_file, ["method=[sft, grpo]"])
    runs = list(sweep.runs.values())
    record(results, sweep, runs[0], MEASURED, made_by="another")
    shown = text(planned(sweep, results))
    lines = shown.splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split() == ["run", "targets", "status", "from", "left"]
    assert lines[1].split() == [runs[0].run_id, "counting", "completed", "another"]
    by_kind = {tuple(line.split()[:3]): line for line in lines}
    assert "measured (n=1)" in by_kind["sft", "counting", "2"]
    assert "counted" in by_kind["grpo", "counting", "3"]
    assert "left: 5 runs; " in shown and "operations/s" in shown
    assert lines[-1] == "small: 6 runs (1 completed, 5 pending); a full grid would be 6"


def test_what_nobody_knows_is_a_dash(sweep_file, results):
    sweep = load_sweep(sweep_file, ["model=someone/something"])
    shown = text(planned(sweep, results))
    assert [line.split()[-1] for line in shown.splitlines()[1:4]] == ["-", "-", "-"]
    assert "3 runs of these without an estimate" in shown
    assert "operations/s" not in shown


def test_a_failed_run_is_not_in_the_sum(sweep, results):
    run = next(iter(sweep.runs.values()))
    folder = record(results, sweep, run, MEASURED, is_complete=False)
    folder.state_json.write_text('{"status": "failed", "error": "x"}')
    plan = planned(sweep, results)
    assert plan.total.num_runs == 2
    assert "left: 2 runs" in text(plan)


def test_nothing_left_needs_no_estimate(sweep, results):
    for run in sweep.runs.values():
        record(results, sweep, run)
    plan = planned(sweep, results)
    assert plan.total.num_runs == 0
    assert text(plan).count("\n") == 5


def test_planning_writes_nothing(sweep_file, sweep, tmp_path):
    place = tmp_path / "none"
    for extra in ([], ["--slots", "3"], ["--executor", "slurm"]):
        done = CliRunner().invoke(app, ["plan", str(sweep_file), "--results", str(place), "--json", *extra])
        assert done.exit_code == 0
        found = json.loads(done.stdout)["estimate"]
        assert found["num_slots"] == (None if "slurm" in extra else int(extra[1]) if extra else found["num_slots"])
        assert (found["wall_s"] is None) == ("slurm" in extra)
    assert not place.exists()


def test_a_calibration_is_short_and_of_the_same_kind(sweep):
    spec = next(iter(sweep.runs.values())).spec
    small = calibration_of(sweep, [spec])
    (run,) = small.runs.values()
    assert (run.spec.method.num_steps, run.targets) == (3, ("counting",))
    assert small.evaluation.num_examples == 4 and small.evaluation.every == 0
    assert kind_of(run.spec, small.execution) == kind_of(spec, sweep.execution)


@pytest.mark.slow
def test_calibrating_measures_once_with_the_real_worker(sweep_file, results):
    sweep = load_sweep(sweep_file, ["prompts_per_step=2", "seed=[0]"])
    told = Console(file=io.StringIO(), width=200)
    before = planned(sweep, results).total
    (kind,) = calibrate_kinds(sweep, results, told)
    said = told.file.getvalue()
    assert said.startswith("calibrating 1 kind of run: sft counting\n  3 steps and 4 examples per target each; ")
    assert {path.name for path in results.iterdir()} == {"calibrations"}
    assert [path.name for path in (results / "calibrations").iterdir()] == [f"{kind}.json"]
    plan = planned(sweep, results)
    assert plan.runs[0].estimate.source == "calibrated (n=1)" and plan.runs[0].estimate.host_gib > 0.1
    assert plan.total.device_hours.median > 0 and plan.total != before
    assert calibrate_kinds(sweep, results, told) == []
