"""Searches on real worker processes whose accuracy is a known function of their settings."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from rich.console import Console

import harness
from harness.errors import SpecError, UserError
from harness.launch.driver import SweepOutcome, run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.record.atomic import read_json
from harness.record.folder import RunFolder, run_folders
from harness.record.state import read_state
from harness.record.studies import default_storage
from harness.record.sweep_record import with_recorded_trials
from harness.report.tables import build_tables
from harness.report.winners import find_winners, tuned_sweep
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep, load_sweep

WORKER = str(Path(__file__).parent / "search_worker.py")
ROOT = Path(harness.__file__).parents[1]

BASE = """
name: s
base: {method: grpo, source: counting, num_steps: 4}
axes: {seed: [0, 1]}
targets: [counting]
evaluation: {every: 1, num_validation: 100}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    def load(study: str, base: str = BASE) -> Sweep:
        file = tmp_path / "s.yaml"
        file.write_text(base + "study:\n" + textwrap.indent(textwrap.dedent(study), "  "))
        return load_sweep(file)

    return load


def drive(sweep: Sweep, results: Path, slots: int = 1) -> tuple[SweepOutcome, str]:
    stream = io.StringIO()
    executor = LocalExecutor(ExecutorSettings(slots=slots), command=(sys.executable, WORKER))
    outcome = run_sweep(sweep, results, wandb=False, executor=executor, console=Console(file=stream, width=200))
    return outcome, stream.getvalue()


def trials(sweep: Sweep, results: Path) -> list[optuna.trial.FrozenTrial]:
    storage = default_storage(results, sweep)
    names = optuna.get_all_study_names(storage)
    assert len(names) == 1
    return optuna.load_study(study_name=names[0], storage=storage).trials


DRIVER = """
import sys
from harness.launch.driver import run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import load_sweep
executor = LocalExecutor(ExecutorSettings(slots=int(sys.argv[4])), command=(sys.executable, sys.argv[3]))
run_sweep(load_sweep(sys.argv[1]), sys.argv[2], wandb=False, executor=executor)
"""


def start_driver(sweep: Sweep, results: Path, slots: int = 1) -> subprocess.Popen[bytes]:
    """A driver in a process of its own."""
    command = [sys.executable, "-c", DRIVER, str(sweep.path), str(results), WORKER, str(slots)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)


GRID = "space: {lr: [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]}\nsampler: grid\n"


def test_a_grid_runs_each_point_once_under_parallel_workers_one_of_which_is_killed(sweep, results) -> None:
    grid = sweep(GRID)
    victim = next(iter(grid.runs))
    results.mkdir()
    (results / "behaviour.json").write_text(json.dumps({victim: "kill"}))
    outcome, told = drive(grid, results, slots=4)
    assert (outcome.num_completed, outcome.num_failed, outcome.num_pending) == (10, 0, 0)
    assert told.count(f"started    {victim}") == 2
    attempts = {f.run_id: len(read_json(f.run_json)["attempts"]) for f in run_folders(results)}
    assert len(attempts) == 10 and attempts.pop(victim) == 2 and set(attempts.values()) == {1}
    complete = [trial for trial in trials(grid, results) if trial.state == optuna.trial.TrialState.COMPLETE]
    assert sorted(trial.params["method.lr"] for trial in complete) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    # 0.9 at lr 1e-4, 0.2 less for each power of ten away from it; seeds 0 and 1 differ by 0.01.
    values = {trial.params["method.lr"]: trial.value for trial in complete}
    assert values == pytest.approx({1e-6: 0.505, 1e-5: 0.705, 1e-4: 0.905, 1e-3: 0.705, 1e-2: 0.505})
    before = read_state(RunFolder(results, victim))
    assert drive(grid, results)[0].num_completed == 10 and read_state(RunFolder(results, victim)) == before
    rows = build_tables(results, grid)
    assert [row.settings for row in rows] == [{"method.lr": lr} for lr in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)]
    assert [row.mean for row in rows] == pytest.approx([0.505, 0.705, 0.905, 0.705, 0.505])
    assert {row.split for row in rows} == {"validation"}


def test_runs_that_exist_are_told_at_once(sweep, results) -> None:
    drive(sweep(GRID), results)
    starts = {f.run_id: read_json(f.run_json)["attempts"] for f in run_folders(results)}
    narrower = sweep("space: {lr: [1e-5, 1e-4]}\nsampler: grid\n", BASE.replace("name: s", "name: t"))
    outcome, told = drive(narrower, results)
    assert outcome.num_completed == 4 and "started" not in told
    assert {f.run_id: read_json(f.run_json)["attempts"] for f in run_folders(results)} == starts
    assert [trial.value for trial in trials(narrower, results)] == pytest.approx([0.705, 0.905])


TPE = "space: {lr: {low: 1e-6, high: 1e-2, log: true}}\nsampler: {type: tpe, seed: 3}\nnum_trials: 14\n"


@pytest.mark.slow
def test_a_search_that_was_stopped_continues_as_if_left_alone(sweep, tmp_path) -> None:
    one_seed = BASE.replace("[0, 1]", "[0]")
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed"
    search = sweep(TPE, one_seed)
    drive(search, alone)
    for stop, number in ((3, signal.SIGINT), (12, signal.SIGKILL)):
        driver = start_driver(search, disturbed)
        deadline = time.monotonic() + 60
        while len(list(disturbed.glob("runs/*/summary.json"))) < stop:
            assert driver.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(driver.pid, number)
        driver.wait(timeout=30)
    drive(search, disturbed)
    ours, theirs = trials(search, disturbed), trials(search, alone)
    assert [trial.params for trial in ours] == [trial.params for trial in theirs]
    assert [trial.value for trial in ours] == [trial.value for trial in theirs]
    assert len(ours) == 14 and len({trial.params["method.lr"] for trial in ours}) == 14
    known = with_recorded_trials(search, disturbed)
    assert set(known.runs) == {folder.run_id for folder in run_folders(disturbed)}


def test_pruning_saves_steps_and_changes_no_run_that_is_kept(sweep, results, tmp_path) -> None:
    order = "first: [{lr: 1e-4}, {lr: 1.1e-4}, {lr: 0.9e-4}, {lr: 1.2e-4}, {lr: 1e-2}]\n"
    space = "space: {lr: {low: 1e-6, high: 1e-2, log: true}}\nsampler: random\nnum_trials: 5\n"
    base = BASE.replace("[0, 1]", "[0]")
    pruned = sweep(space + order + "pruner: median\n", base)
    victim = pruned.trial({}, {"method.lr": 1e-2})[0].run_id
    results.mkdir()
    (results / "behaviour.json").write_text(json.dumps({victim: "slow"}))
    outcome, told = drive(pruned, results)
    assert (outcome.num_completed, outcome.num_pruned) == (4, 1) and f"pruned     {victim}" in told
    state = read_state(RunFolder(results, victim))
    # It shows 0.425 after its first step where the others show 0.8 and more: it stops before the second is over.
    assert state.status == "pruned" and state.step < 4
    states = [trial.state.name for trial in trials(pruned, results)]
    assert states == ["COMPLETE"] * 4 + ["PRUNED"]
    assert drive(pruned, results)[0].num_pending == 0, "a pruned trial is not tried again"
    whole = tmp_path / "whole"
    unpruned = sweep(space + order, base)
    drive(unpruned, whole)
    for folder in run_folders(whole):
        if folder.run_id != victim:
            assert folder.metrics.read_bytes() == RunFolder(results, folder.run_id).metrics.read_bytes()
    # A sweep that needs the run whole goes on with it.
    outcome, _ = drive(unpruned, results)
    assert outcome.num_completed == 5 and read_state(RunFolder(results, victim)).status == "completed"
    assert RunFolder(results, victim).metrics.read_bytes() == RunFolder(whole, victim).metrics.read_bytes()


def test_searches_of_their_own_take_turns(sweep, results) -> None:
    base = BASE.replace("method: grpo, ", "").replace("seed: [0, 1]", "method: [sft, grpo], seed: [0]")
    search = sweep(
        "per: [method]\nspace: {lr: {low: 1e-6, high: 1e-2, log: true}}\nsampler: random\nnum_trials: 3", base
    )
    _, told = drive(search, results)
    started = [line.split()[1].split("-")[0] for line in told.splitlines() if line.startswith("started")]
    assert started == ["sft", "grpo"] * 3
    names = optuna.get_all_study_names(default_storage(results, search))
    assert sorted(name.split("@")[0] for name in names) == ["s/grpo", "s/sft"]


def test_two_objectives_make_a_front(sweep, results) -> None:
    search = sweep("space: {lr: [1e-5, 1e-4]}\nsampler: grid\nobjectives: [same_task, counting]")
    drive(search, results)
    assert [trial.values for trial in trials(search, results)] == [pytest.approx([v, v]) for v in (0.705, 0.905)]


@pytest.mark.parametrize("sampler", ["random", "tpe", "nsga2", "gp", "cmaes"])
def test_every_sampler_finds_its_way_in_the_space(sweep, results, sampler) -> None:
    search = sweep(
        f"""
        space:
          lr: {{low: 1e-6, high: 1e-2, log: true}}
          group_size: {{low: 4, high: 8, step: 2}}
          loss_normalizer: [sequence, constant]
        sampler: {sampler}
        num_trials: 3
        """,
        BASE.replace("[0, 1]", "[0]"),
    )
    outcome, _ = drive(search, results)
    assert outcome.num_completed == 3
    assert all(
        set(t.params) == {"method.lr", "method.group_size", "method.loss_normalizer"} for t in trials(search, results)
    )


def test_what_cannot_be_judged_is_refused(sweep, results) -> None:
    with pytest.raises(SpecError, match="the objective 'cross_task' has no target for runs on counting"):
        drive(sweep("space: {lr: [1e-4]}\nsampler: grid\nobjectives: [cross_task]"), results)
    blind = BASE.replace("every: 1", "every: 0")
    with pytest.raises(SpecError, match=r"set evaluation\.every"):
        drive(sweep("space: {lr: [1e-4]}\nsampler: grid\npruner: median", blind), results)


def test_the_winner_becomes_a_sweep_on_fresh_seeds_and_the_test_split(sweep, results, tmp_path) -> None:
    grid = sweep(GRID)
    with pytest.raises(UserError, match="has no complete trial: harness run"):
        find_winners(grid, results)
    drive(grid, results)
    [winner] = find_winners(grid, results)
    assert (winner.point, winner.values, winner.num_trials) == ({"method.lr": 1e-4}, (0.905,), {"COMPLETE": 5})
    # 90 and 91 right of 100: two seeds have no interval between them, so it is over examples.
    assert winner.estimate.mean == pytest.approx(0.905) and winner.estimate.low < 0.905 < winner.estimate.high
    assert [point for point, _ in winner.runners_up[:2]] == [{"method.lr": 1e-5}, {"method.lr": 1e-3}]
    text = tuned_sweep(grid, [winner], 3, {"commit": "c0ffee", "dirty": True})
    assert "at commit c0ffee with changes that were not committed" in text and winner.study in text
    (tmp_path / "tuned.yaml").write_text(text)
    tuned = load_sweep(tmp_path / "tuned.yaml")
    assert [(run.spec.seed, run.spec.method.lr) for run in tuned.runs.values()] == [(2, 1e-4), (3, 1e-4), (4, 1e-4)]
    assert tuned.evaluation.splits == ("test",) and tuned.evaluation.num_validation == 100


def test_no_trial_begins_after_the_time_is_up(sweep, results) -> None:
    late = sweep("space: {lr: {low: 1e-6, high: 1e-2, log: true}}\nsampler: random\ntimeout_s: 1e-9")
    outcome, _ = drive(late, results)
    assert (outcome.num_completed, outcome.num_pending) == (0, 0) and not trials(late, results)
    assert find_winners(late, results, partial=True) == []


def test_one_driver_owns_a_study(sweep, results) -> None:
    grid = sweep(GRID)
    results.mkdir()
    (results / "behaviour.json").write_text(json.dumps({next(iter(grid.runs)): "slow"}))
    driver = start_driver(grid, results)
    deadline = time.monotonic() + 60
    while not list(results.glob("runs/*/metrics.jsonl")):
        assert driver.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(UserError, match="another driver is searching s"):
        drive(grid, results)
    assert driver.wait(timeout=60) == 0
    assert all(len(read_json(folder.run_json)["attempts"]) == 1 for folder in run_folders(results))
    assert drive(grid, results)[0].num_completed == 10


def test_an_impossible_point_fails_and_the_search_goes_on(sweep, results) -> None:
    base = BASE.replace("method: grpo,", "method: grpo_d,").replace("[0, 1]", "[0]")
    space = "space:\n  beta_min: {low: 0.0, high: 1.0}\n  beta_max: {low: 0.0, high: 1.0}\n"
    first = "first: [{beta_min: 0.5, beta_max: 0.1}, {beta_min: 0.1, beta_max: 0.5}]\n"
    search = sweep(f"{space}sampler: random\nnum_trials: 2\n{first}", base)
    outcome, _ = drive(search, results)
    impossible, possible = trials(search, results)
    assert (outcome.num_completed, impossible.state.name, possible.state.name) == (1, "FAIL", "COMPLETE")
    assert impossible.user_attrs["error"] == "beta_min 0.5 is above beta_max 0.1"
    assert len(with_recorded_trials(search, results).runs) == 1
