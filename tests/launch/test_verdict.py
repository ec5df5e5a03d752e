"""Every rule of what follows the end of a worker, by hand."""

from __future__ import annotations

import dataclasses

import pytest

from harness.launch.executor import End
from harness.launch.verdict import Verdict, judge, lost_in_a_row
from harness.record.launches import LaunchRecord
from harness.record.state import RunState
from harness.spec import Execution

LIMITS = Execution(max_lost=3, max_out_of_memory=2)
RUNNING = RunState(status="running", step=4, num_steps=10)
KILLED = "the worker was ended by SIGKILL (killed by hand or for memory)"


def verdict(
    code,
    *,
    state=RUNNING,
    is_news=False,
    asked=False,
    earlier=(),
    halvings=0,
    log=(),
    words="",
    starved=False,
    limits=LIMITS,
):
    return judge(
        End(code, words, starved),
        state,
        is_news=is_news,
        asked=asked,
        earlier=earlier,
        halvings=halvings,
        progress=(0, 0, 4),
        log=log,
        limits=limits,
    )


def failed(failure, error="[it] broke"):
    return dataclasses.replace(RUNNING, status="failed", failure=failure, error=error)


def lost(*steps, failure="worker_lost"):
    return [
        LaunchRecord(token=token, started=0.0, driver="d", failure=failure, progress=(0, 0, step))
        for token, step in enumerate(steps, start=1)
    ]


@pytest.mark.parametrize("code", [143, -15])
def test_asked_to_stop(code):
    assert verdict(code, asked=True) == Verdict("stop")
    # Not by us: preemption, or a time limit. However often, that is nobody's failure.
    assert verdict(code, earlier=lost(4, 4, 4, 4, 4)) == Verdict("go_on")


def test_killed_on_our_wish():
    assert verdict(-9, asked=True) == Verdict("stop")
    assert verdict(None, asked=True) == Verdict("stop")


def test_a_reason_on_record_goes_before_a_wish_to_stop():
    broken = failed("bug")
    assert verdict(1, state=broken, is_news=True, asked=True) == Verdict("fail", "bug", "[it] broke")
    # One from before this worker is none of its.
    assert verdict(143, state=broken, asked=True) == Verdict("stop")


@pytest.mark.parametrize("failure", ["non_finite", "bad_input", "not_writable", "bug"])
def test_what_would_only_happen_again_fails(failure):
    assert verdict(1, state=failed(failure), is_news=True) == Verdict("fail", failure, "[it] broke")


def test_a_failure_without_a_class_is_a_bug():
    assert verdict(1, state=failed(None, None), is_news=True) == Verdict("fail", "bug", "unknown")


def test_memory_that_a_worker_told_of_is_tried_for_again_in_smaller_passes():
    state = failed("out_of_memory", "too large")
    told = {"state": state, "is_news": True}
    assert verdict(1, **told) == Verdict("smaller", "out_of_memory", "too large")
    assert verdict(1, halvings=1, **told).action == "smaller"
    assert verdict(1, halvings=2, **told) == Verdict("fail", "out_of_memory", "too large")
    # What the sweep itself halves does not count.
    limits = Execution(halvings=5, max_out_of_memory=2)
    actions = [verdict(1, halvings=number, limits=limits, **told).action for number in (5, 6, 7)]
    assert actions == ["smaller", "smaller", "fail"]
    assert verdict(1, limits=Execution(max_out_of_memory=0), **told).action == "fail"


@pytest.mark.parametrize("code", [-9, 137, None, 1])
def test_memory_that_the_system_took_back(code):
    assert verdict(code, starved=True).action == "smaller"
    assert verdict(code, starved=True).failure == "out_of_memory"
    assert verdict(code, log=["slurmstepd: error: Detected 1 oom_kill event in StepId=3"]).action == "smaller"
    # Also a worker that has been lost often before: here is a reason.
    assert verdict(code, starved=True, earlier=lost(4, 4, 4)).action == "smaller"


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (-9, KILLED),
        (137, KILLED),
        (-11, "the worker was ended by SIGSEGV (a crash in native code)"),
        (139, "the worker was ended by SIGSEGV (a crash in native code)"),
        (134, "the worker was ended by SIGABRT (a crash in native code)"),
        (None, "the worker was lost: node n2 died"),
    ],
)
def test_a_worker_that_was_lost_goes_on(code, sentence):
    words = "node n2 died" if code is None else ""
    assert verdict(code, words=words) == Verdict("go_on", "worker_lost", sentence)
    assert verdict(code, words=words, earlier=lost(4)).action == "go_on"


def test_a_worker_that_is_lost_again_and_again_without_getting_further_fails():
    again = verdict(-11, earlier=lost(4, 4))
    assert (again.action, again.failure) == ("fail", "worker_lost")
    assert again.error == (
        "the worker was ended by SIGSEGV (a crash in native code); that was 3 times in a row without getting further"
    )
    assert verdict(None, earlier=lost(4, 4)).action == "fail"
    # One that gets further each time may be lost for ever.
    assert verdict(-11, earlier=lost(0, 1, 2, 3)).action == "go_on"
    assert verdict(-11, limits=Execution(max_lost=1)).action == "fail"


def test_one_that_is_killed_again_and_again_may_be_too_large():
    assert verdict(-9, earlier=lost(4, 4)) == Verdict("smaller", "out_of_memory", KILLED)
    assert verdict(-9, earlier=lost(4, 4), halvings=2) == Verdict("fail", "out_of_memory", KILLED)


def test_a_full_disk_pauses_and_counts_as_nothing_else():
    full = Verdict("pause", "disk_full", "there is no room left on the disk")
    assert verdict(74) == full
    assert verdict(1, state=failed("disk_full"), is_news=True) == full
    assert verdict(74, asked=True) == full
    assert verdict(74, earlier=lost(4, 4, 4, 4)) == full
    # It had another reason, and could not even write that.
    assert verdict(74, state=failed("bug")) == full


def test_a_run_that_another_has_is_waited_for():
    assert verdict(75) == Verdict("elsewhere")
    assert verdict(75, state=failed("bug"), is_news=True, asked=True) == Verdict("elsewhere")


@pytest.mark.parametrize("code", [0, 1, 7])
def test_an_end_without_a_word_that_no_signal_explains_is_a_bug(code):
    end = f"the worker ended with exit code {code} and left no complete summary"
    assert verdict(code) == Verdict("fail", "bug", end)
    assert verdict(code, log=["a", " b "]).error == f"{end}; its last words: b"


def test_losses_in_a_row_by_hand():
    now = (0, 0, 4)
    assert lost_in_a_row([], now) == 0
    assert lost_in_a_row(lost(4, 4, 4), now) == 3
    assert lost_in_a_row(lost(0, 4, 4), now) == 2  # step 4 was reached after the first
    assert lost_in_a_row(lost(4, 4, 0), now) == 0
    assert lost_in_a_row([*lost(4), *lost(4, failure="out_of_memory")], now) == 2
    for other in (None, "disk_full", "bug"):  # stopped, out of room, or tried again by hand
        assert lost_in_a_row([*lost(4, 4), *lost(4, failure=other)], now) == 0
    # Weights are further than any step, an evaluation further than weights.
    assert lost_in_a_row(lost(9), (0, 1, 0)) == 0
    assert lost_in_a_row([dataclasses.replace(one, progress=(0, 1, 0)) for one in lost(9)], (1, 1, 0)) == 0
