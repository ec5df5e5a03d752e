"""Runs a sweep: starts a worker for every run that is not complete, watches them, and acts on how each one ends.

A driver keeps nothing in memory that matters. What is to be done is read from the run folders each time, so a second
invocation does only what is missing, takes over the workers of one that died, and trains nothing when nothing is left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from harness.errors import UserError
from harness.launch.demands import Demands
from harness.launch.estimate.foreseen import record_estimates
from harness.launch.estimate.measured import measured_peaks
from harness.launch.executor import Demand, End, Executor, Launch, make_executor
from harness.launch.feed import Feed, WholeSweep
from harness.launch.presence import Presence
from harness.launch.room import Room
from harness.launch.settling import Active, settle
from harness.launch.status.progress import Progress
from harness.launch.stop_requests import StopRequests
from harness.launch.taking import Options, Taker, note_worker
from harness.record.failures import is_disk_full
from harness.record.launches import read_launches
from harness.record.lease import BEATS, read_owner
from harness.record.pulse import Watch
from harness.record.state import RunState, read_state
from harness.record.sweep_record import write_sweep_record

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun

POLL_S = 0.2
WATCH_S = 0.02
"""Between two looks at whether a worker has ended, which cost next to nothing; the rest is looked at every `POLL_S`."""
ELSEWHERE_POLL_S = 1.0


@dataclass(frozen=True)
class SweepOutcome:
    """Where all runs of a sweep stand after an invocation.

    Attributes:
        num_pruned: Of a search: stopped because nothing good was expected of them.
        interrupted: Whether the driver was asked to stop before everything had its try.
    """

    num_completed: int
    num_failed: int
    num_pending: int
    interrupted: bool
    num_pruned: int = 0


def run_sweep(
    sweep: Sweep,
    results: str | Path,
    *,
    slots: int | None = None,
    wandb: bool = True,
    tensorboard: bool = False,
    retry_failed: bool = False,
    executor: Executor | None = None,
    console: Console | None = None,
    checkpoint_every: int = 25,
    storage: str | None = None,
) -> SweepOutcome:
    """Brings every run of a sweep to its end; what is complete already is left alone. A study is searched.

    A run that fails does not stop the others; one that lost its worker, or ran out of memory, is tried again at once,
    as :mod:`harness.launch.verdict` has it. SIGINT or SIGTERM stops the workers after their step, with a checkpoint; a
    second one stops them at once. Runs that another driver is working on are waited for; those of a driver that died
    are taken over with their workers.

    Args:
        sweep: What to run.
        results: The results folder.
        slots: Workers at the same time, in place of the sweep's `executor.slots`; by default as many as fit.
        wandb: Whether W&B mirrors the runs.
        tensorboard: Whether event files for TensorBoard are written too.
        retry_failed: Whether runs that failed in an earlier invocation are tried again.
        executor: Where workers run, to be closed by the caller; by default the one that the sweep names. `slots` is
            then not looked at.
        console: Where progress is told; by default the standard error.
        checkpoint_every: Steps between two checkpoints of a run.
        storage: Where Optuna keeps a study, as a URL; by default a SQLite file in the results folder.

    Raises:
        UserError: The executor cannot be had, or a study cannot be searched.
    """
    results = Path(results).absolute()  # a worker may stand elsewhere
    with contextlib.ExitStack() as stack:
        if executor is None:
            if slots is not None:
                sweep = dataclasses.replace(sweep, executor=sweep.executor.model_copy(update={"slots": slots}))
            executor = make_executor(sweep.executor, sweep.execution)
            stack.callback(executor.close)
        presence = _presence(results, sweep)
        stack.callback(presence.close)
        if sweep.study is None:
            write_sweep_record(results, sweep)
            feed: Feed = WholeSweep(sweep)
        else:
            from harness.launch.searches import Searches

            feed = Searches(sweep, results, presence.path, storage)
        stack.callback(feed.close)
        options = Options(wandb, tensorboard, checkpoint_every)
        return _Driver(sweep, results, feed, executor, presence, options, retry_failed).run(
            console or Console(stderr=True)
        )


def _presence(results: Path, sweep: Sweep) -> Presence:
    try:
        return Presence(results, sweep.name, sweep.execution.lease_s)
    except OSError as error:
        raise UserError(f"{results} cannot be written to: {(error.strerror or str(error)).lower()}") from error


class _Driver:
    def __init__(
        self,
        sweep: Sweep,
        results: Path,
        feed: Feed,
        executor: Executor,
        presence: Presence,
        options: Options,
        retry_failed: bool,
    ) -> None:
        self._sweep = sweep
        self._results = results
        self._feed = feed
        self._executor = executor
        self._presence = presence
        self._retry_failed = retry_failed
        self._watch = Watch()
        self._taker = Taker(sweep, results, executor, presence, self._watch, options)
        self._room = Room(results)
        self._demands = Demands(sweep.execution, lambda: measured_peaks(results))
        self._todo: deque[SweepRun] = deque()
        self._elsewhere: deque[SweepRun] = deque()
        self._told_elsewhere: set[str] = set()
        self._tried: set[str] = set()
        self._active: list[Active] = []
        self._counts = dict.fromkeys(("completed", "failed", "pruned", "stopped"), 0)
        self._requests = StopRequests(presence)
        self._stops_passed_on = 0
        self._next_look_elsewhere = 0.0
        self._next_look_for_silence = 0.0

    def run(self, console: Console) -> SweepOutcome:
        """Works until nothing is left or a signal asked to stop."""
        num_runs = self._feed.num_runs
        self._take_more()
        slots, before = self._executor.num_slots, self._counts["completed"]
        with self._requests, Progress(console, self._sweep.name, num_runs, before, slots) as progress:
            if self._todo:
                record_estimates(self._results, self._sweep, self._todo)
                progress.line(f"{self._sweep.name}: {num_runs} runs, {before} completed before, {slots} at a time")
            try:
                while self._active or (self._has_more() and not self._stops):
                    self._turn(progress)
            finally:
                self._end_workers()
            outcome = self._outcome()
            counts = [(outcome.num_completed, "completed"), (outcome.num_failed, "failed")]
            counts += [(outcome.num_pruned, "pruned")] if outcome.num_pruned else []
            counts += [(outcome.num_pending, "pending")]
            progress.line(f"{self._sweep.name}: " + ", ".join(f"{count} {status}" for count, status in counts))
        return outcome

    @property
    def _stops(self) -> int:
        return self._requests.count

    def _has_more(self) -> bool:
        return bool(self._todo or self._elsewhere or not self._feed.exhausted)

    def _take_more(self) -> None:
        """Takes runs from the feed until one is left to do; it is told at once of those that are complete."""
        while not self._todo:
            # Two trials of a search may want the same run; one worker answers both.
            under_way = {run.run_id for run in (*(active.run for active in self._active), *self._elsewhere)}
            runs = [run for run in self._feed.more() if run.run_id not in under_way]
            if not runs:
                return
            left = self._taker.look_through(runs)
            self._todo.extend(left)
            for run_id in {run.run_id for run in runs} - {run.run_id for run in left}:
                self._counts["completed"] += 1
                self._feed.ended(run_id, "completed")

    def _turn(self, progress: Progress) -> None:
        """Looks once at everything, then sleeps until a worker ends or a moment has passed."""
        if self._stops > self._stops_passed_on:
            self._stops_passed_on += 1
            for active in self._active:
                active.asked = True
                active.worker.stop()
            if self._stops_passed_on == 1 and self._active:
                progress.line(f"stopping: {len(self._active)} workers are saving; interrupt again to end them at once")
        try:
            self._settle_ended(progress)
            self._settle_silent(progress)
            self._prune()
            if not self._stops and self._room.is_there(progress.line):
                self._look_elsewhere()
                self._fill(progress)
        except OSError as error:
            if not is_disk_full(error):
                raise
            self._room.ran_out(progress.line)
        progress.update()
        until = time.monotonic() + POLL_S
        while (self._todo or self._active or self._elsewhere or self._room.waiting) and time.monotonic() < until:
            time.sleep(WATCH_S)
            if self._stops > self._stops_passed_on or any(active.worker.poll() for active in self._active):
                break

    def _fill(self, progress: Progress) -> None:
        """Starts workers while there is room; where workers queue, many with one call."""
        batch: list[tuple[SweepRun, Launch]] = []
        while not self._stops:
            self._take_more()
            if not self._todo:
                break
            run = self._todo[0]
            demand = self._demand(run)
            is_full = self._executor.queues and len(self._active) + len(batch) >= self._executor.num_slots
            if is_full or not self._executor.has_room(demand):
                break
            launch = self._take(run, demand, progress)
            self._todo.popleft()
            if launch is not None:
                batch.append((run, launch))
            if batch and not self._executor.queues:
                self._start(batch, progress)
                batch = []
        self._start(batch, progress)

    def _demand(self, run: SweepRun) -> Demand:
        launches = read_launches(self._taker.folder(run))
        for active in self._active if not self._executor.queues else ():
            self._demands.learn(active.run.spec, read_state(active.folder))
        return self._demands.of(run.spec, alone=bool(launches and launches[-1].failure == "out_of_memory"))

    def _take(self, run: SweepRun, demand: Demand, progress: Progress) -> Launch | None:
        """Takes a run; what is nothing to start is counted, waited for or watched."""
        run_id, is_again = run.run_id, run.run_id in self._tried
        if self._feed.is_unwanted(run_id):
            self._count(run_id, "pruned", progress)
            return None
        retry = is_again or (self._retry_failed and run_id not in self._told_elsewhere)
        taken = self._taker.take(run, demand, retry=retry, anew=self._retry_failed and not is_again)
        if taken.what == "elsewhere":
            self._wait_for(run, progress)
        elif taken.what == "complete":
            self._count(run_id, "completed", progress)
        elif taken.what == "failed":
            self._count(run_id, "failed", progress, taken.error)
        else:
            self._tried.add(run_id)
        if taken.worker is not None:
            folder = self._taker.folder(run)
            self._active.append(Active(run, folder, taken.worker, taken.token, RunState(), _size(folder.log)))
            progress.adopted(run_id, folder)
        return taken.launch

    def _start(self, batch: list[tuple[SweepRun, Launch]], progress: Progress) -> None:
        if not batch:
            return
        # Read first: a quick worker has written its own state by the time that it has been started.
        before = [(read_state(launch.folder), _size(launch.folder.log)) for _, launch in batch]
        workers = self._executor.start([launch for _, launch in batch])
        for (run, launch), (state, log_start), worker in zip(batch, before, workers, strict=True):
            note_worker(launch.folder, launch.job.reserved, worker)
            self._active.append(Active(run, launch.folder, worker, launch.job.reserved, state, log_start))
            progress.started(run.run_id, launch.folder)

    def _prune(self) -> None:
        for active in self._active:
            if not active.pruned and self._feed.is_unwanted(active.run.run_id):
                active.pruned = True
                active.worker.stop()

    def _wait_for(self, run: SweepRun, progress: Progress) -> None:
        self._elsewhere.append(run)
        if run.run_id not in self._told_elsewhere:
            self._told_elsewhere.add(run.run_id)
            progress.elsewhere(run.run_id)

    def _look_elsewhere(self) -> None:
        """Offers the runs of other drivers again, now and then: each may have ended one way or another."""
        if self._elsewhere and time.monotonic() >= self._next_look_elsewhere:
            self._next_look_elsewhere = time.monotonic() + ELSEWHERE_POLL_S
            self._todo.extend(self._elsewhere)
            self._elsewhere.clear()

    def _settle_ended(self, progress: Progress) -> None:
        for active in list(self._active):
            end = active.worker.poll()
            if end is not None:
                self._settle(active, end, progress)

    def _settle_silent(self, progress: Progress) -> None:
        """Ends workers that are there but have given no sign of life for a whole lease: stopped, or on a lost node."""
        lease_s = self._sweep.execution.lease_s
        if time.monotonic() < self._next_look_for_silence:
            return
        self._next_look_for_silence = time.monotonic() + lease_s / BEATS
        for active in list(self._active):
            if not active.is_placed and active.worker.place:
                active.is_placed = True
                note_worker(active.folder, active.token, active.worker)
            owner = read_owner(active.folder.path)
            if owner is None or owner.role != "worker" or owner.reserved != active.token or owner.released:
                continue
            # Half a lease longer than others wait: a job that its queue has started anew shall claim the run first.
            if not active.worker.waits and self._watch.silent_s(owner.pulse) > 1.5 * owner.lease_s:
                active.worker.stop()
                active.worker.stop()
                self._settle(active, End(None, f"no sign of life for {owner.lease_s:g} s"), progress)

    def _settle(self, active: Active, end: End, progress: Progress) -> None:
        """Does what the end of a worker calls for."""
        run_id = active.run.run_id
        self._demands.learn(active.run.spec, read_state(active.folder))
        verdict = settle(active, end, self._sweep, self._presence.path)
        self._active.remove(active)
        if verdict.action == "complete":
            self._count(run_id, "completed", progress)
        elif verdict.action == "fail":
            self._count(run_id, "failed", progress, verdict.error)
        elif verdict.action == "prune":
            self._count(run_id, "pruned", progress)
        elif verdict.action == "elsewhere":
            self._wait_for(active.run, progress)
        elif verdict.action == "stop" or self._stops:
            self._count(run_id, "stopped", progress)
        else:
            self._todo.appendleft(active.run)
            progress.again(run_id, verdict.error, smaller=verdict.action == "smaller")
            if verdict.action == "pause":
                self._room.ran_out(progress.line)

    def _count(
        self,
        run_id: str,
        what: Literal["completed", "failed", "pruned", "stopped"],
        progress: Progress,
        error: str = "",
    ) -> None:
        self._counts[what] += 1
        if what != "stopped":
            self._feed.ended(run_id, what)
        if what == "completed":
            progress.completed(run_id)
        elif what == "failed":
            progress.failed(run_id, error)
        elif what == "pruned":
            progress.pruned(run_id)
        else:
            progress.interrupted(run_id)

    def _outcome(self) -> SweepOutcome:
        return SweepOutcome(
            num_completed=self._counts["completed"],
            num_failed=self._counts["failed"],
            num_pruned=self._counts["pruned"],
            num_pending=self._counts["stopped"] + len(self._todo) + len(self._elsewhere),
            interrupted=self._stops > 0,
        )

    def _end_workers(self) -> None:
        """Leaves no worker behind when the driver itself fails; does nothing after a normal end."""
        for active in self._active:
            active.worker.stop()
        while any(active.worker.poll() is None for active in self._active):
            time.sleep(POLL_S)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
