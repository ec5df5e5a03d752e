"""Settles the end of a worker: what it means, by :mod:`harness.launch.verdict`, and what is written down of it."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import DataError
from harness.launch.executor import End, Worker
from harness.launch.verdict import Verdict, judge
from harness.launch.worker_end import log_tail
from harness.record.failures import failure_of
from harness.record.folder import RunFolder
from harness.record.launches import LaunchRecord, progress_of, read_launches, write_launches
from harness.record.lease import Lease, read_owner, reserve
from harness.record.state import RunState, Status, is_complete, mark_failed, read_state, write_state

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun


@dataclass
class Active:
    """A run with a live worker.

    Attributes:
        run: Which.
        folder: Its folder.
        worker: Its worker.
        token: Of the reservation that the worker was started under.
        before: Its state before this worker.
        log_start: The length of its log before this worker, in bytes.
        pruned: Whether it shall stop because nothing good is expected of it.
        asked: Whether this driver asked the worker to stop.
        is_placed: Whether it has been written down where the worker is.
    """

    run: SweepRun
    folder: RunFolder
    worker: Worker
    token: int
    before: RunState
    log_start: int
    pruned: bool = False
    asked: bool = False
    is_placed: bool = False


def settle(active: Active, end: End, sweep: Sweep, pulse: Path) -> Verdict:
    """Turns a worker's end into what follows, and writes the state where the worker could not.

    Args:
        active: The run.
        end: How its worker ended.
        sweep: Whose run it is.
        pulse: This driver's sign of life.

    Returns:
        What follows; `elsewhere` where another driver has the run by now.
    """
    try:
        active.folder.refuse_links()
        return _settle(active, end, sweep, pulse)
    except DataError as error:
        return Verdict("fail", "bad_input", str(error))
    except OSError as error:
        if failure_of(error) != "not_writable":
            raise
        # Nothing can be noted there; the others may fare better.
        return Verdict("fail", "not_writable", f"{active.folder.path} cannot be written to: {error}")


def _settle(active: Active, end: End, sweep: Sweep, pulse: Path) -> Verdict:
    folder = active.folder
    if is_complete(folder, active.run.targets, sweep.evaluation):
        return Verdict("complete")
    owner = read_owner(folder.path)
    # Its worker is known to be over, so that one's lease is worth nothing; that of another worker stands.
    is_ours = owner is not None and owner.reserved == active.token
    lease = reserve(folder.path, owner, pulse=pulse, lease_s=sweep.execution.lease_s) if is_ours else None
    if lease is None:
        return Verdict("elsewhere")
    try:
        state, launches = read_state(folder), read_launches(folder)
        progress = progress_of(folder)
        verdict = judge(
            end,
            state,
            is_news=state.status == "failed" and state != active.before,
            asked=active.asked or active.pruned,
            earlier=[launch for launch in launches if launch.token != active.token],
            halvings=next((launch.halvings for launch in launches if launch.token == active.token), 0),
            progress=progress,
            log=log_tail(folder.log, active.log_start),
            limits=sweep.execution,
        )
        if active.pruned and verdict.action != "fail":
            verdict = dataclasses.replace(verdict, action="prune")
        _note(active, end, verdict, launches, progress, lease)
        _write_state(active, verdict, state, lease)
        return verdict
    finally:
        lease.release()


def _note(
    active: Active,
    end: End,
    verdict: Verdict,
    launches: list[LaunchRecord],
    progress: tuple[int, ...],
    lease: Lease,
) -> None:
    ended = {
        "ended": time.time(),
        "code": end.code,
        "place": active.worker.place,
        "failure": verdict.failure,
        "error": verdict.error or None,
        "progress": progress,
    }
    records = [
        dataclasses.replace(launch, **ended) if launch.token == active.token else launch  # type: ignore[arg-type]
        for launch in launches
    ]
    write_launches(active.folder, records, lease.files)


def _write_state(active: Active, verdict: Verdict, state: RunState, lease: Lease) -> None:
    folder = active.folder
    if verdict.action == "fail":
        if (state.status, state.error) != ("failed", verdict.error):
            detail = "\n".join(log_tail(folder.log, active.log_start)) or None
            failure = verdict.failure or "bug"
            mark_failed(folder, lease.files, verdict.error, failure=failure, detail=detail)
    elif verdict.action != "elsewhere":
        status: Status = "pruned" if verdict.action == "prune" else "pending"
        write_state(folder, dataclasses.replace(state, status=status, heartbeat=time.time()), lease.files)
