"""Steps that go wrong: memory that runs out, and numbers that are none."""

from __future__ import annotations

import pytest
from sweep_contents import everything

from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.record.state import read_state

pytestmark = pytest.mark.slow


def ids(sweep, *methods):
    return [next(run_id for run_id in sweep.runs if run_id.startswith(f"{method}-")) for method in methods]


def close(one, other):
    """Equal but for the order of sums: passes of another size round otherwise."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other, rel=1e-3, abs=1e-5) if isinstance(one, float) else one == other


def test_memory_that_runs_out_in_a_pass_halves_it_in_the_same_worker(run, sweep, undisturbed, tmp_path):
    (grpo,) = ids(sweep, "grpo")
    results = tmp_path / "results"
    outcome, told = run(results, {grpo: [{"do": "oom", "step": 1}]})
    assert outcome.num_completed == 3, told
    assert "out of memory in the update: going on with" in RunFolder(results, grpo).log.read_text()
    assert len(read_launches(RunFolder(results, grpo))) == 1
    assert close(everything(sweep, results)[grpo]["metrics"], undisturbed[grpo]["metrics"])


def test_memory_that_runs_out_for_good_brings_smaller_passes_three_times(run, sweep, undisturbed, tmp_path):
    grpo, grpo_d = ids(sweep, "grpo", "grpo_d")
    results = tmp_path / "results"
    whole = {"do": "oom_whole", "step": 1}
    outcome, told = run(results, {grpo: [whole, whole], grpo_d: [whole] * 9})
    assert (outcome.num_completed, outcome.num_failed) == (2, 1), told
    again = read_launches(RunFolder(results, grpo))
    assert [launch.halvings for launch in again] == [0, 1, 2]
    assert [launch.failure for launch in again] == ["out_of_memory", "out_of_memory", None]
    assert [launch.halvings for launch in read_launches(RunFolder(results, grpo_d))] == [0, 1, 2, 3]
    state = read_state(RunFolder(results, grpo_d))
    assert (state.status, state.failure) == ("failed", "out_of_memory")
    assert told.count("it goes on with smaller passes") == 5
    assert f"failed     {grpo_d}: out of memory in the update with one piece of 100 tokens" in told


def test_a_loss_that_is_no_number_fails_its_run_alone_and_once(run, sweep, undisturbed, tmp_path):
    (grpo,) = ids(sweep, "grpo")
    results = tmp_path / "results"
    outcome, told = run(results, {grpo: [{"do": "nan", "step": 1}]})
    assert (outcome.num_completed, outcome.num_failed) == (2, 1), told
    state = read_state(RunFolder(results, grpo))
    assert (state.status, state.failure, state.error_type) == ("failed", "non_finite", "NonFiniteError")
    assert state.error is not None and state.error.startswith("loss is not finite at step 1; examples: counting/train/")
    assert "NonFiniteError" in (state.traceback or "")
    # Another invocation leaves it, unless it is asked to try again; then it goes on from its checkpoint.
    assert run(results)[0].num_failed == 1
    assert len(read_launches(RunFolder(results, grpo))) == 1
    assert run(results, retry_failed=True)[0].num_completed == 3
    assert everything(sweep, results) == undisturbed
