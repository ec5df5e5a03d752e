"""What follows the end of a worker: every class of failure with its policy, in one place.

- completed: counted.
- Asked to stop by us: pending.
- 143 unasked, which is preemption or a time limit: goes on.
- Killed, crashed in native code, or its node lost (`worker_lost`): goes on; failed after `max_lost` times in a row
  without getting further.
- Out of memory, by the error, the log or the kernel's count (`out_of_memory`): again with smaller passes, at most
  `max_out_of_memory` times.
- No room on the disk (`disk_full`): the sweep pauses until there is room, then goes on.
- Another worker has the run: waited for.
- A loss that is not finite, bad data, no right to write, a bug (`non_finite`, `bad_input`, `not_writable`, `bug`):
  failed.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.launch.executor import End
from harness.launch.worker_end import end_sentence, tells_of_memory
from harness.record.failures import DISK_FULL, FENCED, STOPPED, Failure
from harness.record.launches import LaunchRecord
from harness.record.state import RunState
from harness.spec import Execution

Action = Literal["complete", "go_on", "smaller", "fail", "pause", "stop", "prune", "elsewhere"]

_SIGNALS = {
    number: -number for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL)
}
_KILLED = -int(signal.SIGKILL)


@dataclass(frozen=True)
class Verdict:
    """What follows.

    Attributes:
        action: What to do with the run.
        failure: The class of the end; None where nothing failed.
        error: One sentence; empty where nothing failed.
    """

    action: Action
    failure: Failure | None = None
    error: str = ""


def judge(
    end: End,
    state: RunState,
    *,
    is_news: bool,
    asked: bool,
    earlier: Sequence[LaunchRecord],
    halvings: int,
    progress: tuple[int, ...],
    log: Sequence[str],
    limits: Execution,
) -> Verdict:
    """What follows the end of a worker that has not completed its run.

    Args:
        end: As the executor tells it.
        state: The run's, as it is now.
        is_news: Whether the worker wrote that state.
        asked: Whether this driver asked it to stop.
        earlier: The launches before this one, oldest first.
        halvings: How often its passes were halved from the start.
        progress: Of the run now.
        log: The last lines that the worker left.
        limits: `max_lost` and `max_out_of_memory`.
    """
    failure: Failure
    code = _as_signal(end.code)
    if code == FENCED:
        return Verdict("elsewhere")
    if is_news and state.status == "failed" and state.failure != "disk_full":
        failure, error = state.failure or "bug", state.error or "unknown"
    elif code == DISK_FULL or (is_news and state.failure == "disk_full"):
        return Verdict("pause", "disk_full", "there is no room left on the disk")
    elif asked:
        return Verdict("stop")
    elif code in (STOPPED, -signal.SIGTERM):
        return Verdict("go_on")
    else:
        error = end_sentence(code, log, end.words)
        failure = _failure_of_silence(code, end, log)
    if failure == "out_of_memory":
        return _smaller(error, halvings, limits)
    if failure != "worker_lost":
        return Verdict("fail", failure, error)
    if lost_in_a_row(earlier, progress) + 1 < limits.max_lost:
        return Verdict("go_on", failure, error)
    if code == _KILLED:
        # Nobody said why, but that is how a system takes back memory: worth a try before giving up.
        return _smaller(error, halvings, limits)
    return Verdict("fail", failure, f"{error}; that was {limits.max_lost} times in a row without getting further")


def _failure_of_silence(code: int | None, end: End, log: Sequence[str]) -> Failure:
    if end.out_of_memory or tells_of_memory(log):
        return "out_of_memory"
    return "worker_lost" if code is None or code < 0 else "bug"


def _smaller(error: str, halvings: int, limits: Execution) -> Verdict:
    again = halvings - limits.halvings < limits.max_out_of_memory
    action: Action = "smaller" if again else "fail"
    return Verdict(action, "out_of_memory", error)


def lost_in_a_row(earlier: Sequence[LaunchRecord], progress: tuple[int, ...]) -> int:
    """How many of the last launches were ended, one after another, before they got further than the run is now."""
    count = 0
    for launch in reversed(earlier):
        if launch.failure not in ("worker_lost", "out_of_memory") or launch.progress < progress:
            break
        count += 1
    return count


def _as_signal(code: int | None) -> int | None:
    """Shells and schedulers give 128 plus the number for a signal."""
    return _SIGNALS.get(code - 128, code) if code is not None and code > 128 else code  # type: ignore[call-overload]
