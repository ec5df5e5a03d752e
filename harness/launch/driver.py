"""Runs a sweep: starts a worker for every run that is not complete, watches them, and leaves a sweep that can resume.

A driver keeps nothing in memory that matters. What is to be done is read from the run folders each time, so a second
invocation does only what is missing, and trains nothing when nothing is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from harness.launch.feed import Feed, WholeSweep
from harness.launch.local import Executor, LocalExecutor, WorkerProcess
from harness.launch.lock import RunLock, take_lock
from harness.launch.progress import Progress
from harness.launch.status import has_worker
from harness.launch.worker_end import log_tail, record_silent_end
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.state import RunState, is_complete, read_state, write_state
from harness.record.sweep_record import write_sweep_record
from harness.spec import Job

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun

POLL_S = 0.2
ELSEWHERE_POLL_S = 1.0
REPEAT_S = 1.0
"""Signals that follow faster are one wish to stop: a terminal and a launcher may both pass on one Ctrl-C."""


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


@dataclass
class _Active:
    """A run with a live worker; `before` is its state before this worker."""

    run: SweepRun
    folder: RunFolder
    process: WorkerProcess
    lock: RunLock
    before: RunState
    log_start: int
    pruned: bool = False


def run_sweep(
    sweep: Sweep,
    results: str | Path,
    *,
    slots: int | None = None,
    wandb: bool = True,
    tensorboard: bool = False,
    retry_failed: bool = True,
    executor: Executor | None = None,
    console: Console | None = None,
    checkpoint_every: int = 25,
    storage: str | None = None,
) -> SweepOutcome:
    """Brings every run of a sweep to its end; what is complete already is left alone. A study is searched.

    A failed run does not stop the others, and each invocation tries a run once. SIGINT or SIGTERM stops the workers
    after their step, with a checkpoint; a second one stops them at once. Runs that another driver is working on are
    waited for.

    Args:
        sweep: What to run.
        results: The results folder.
        slots: Workers at the same time; by default as many as there are GPUs for, else one per two CPU cores.
        wandb: Whether W&B mirrors the runs.
        tensorboard: Whether event files for TensorBoard are written too.
        retry_failed: Whether runs that failed in an earlier invocation are tried again.
        executor: Where workers run; by default this machine. `slots` is then not looked at.
        console: Where progress is told; by default the standard error.
        checkpoint_every: Steps between two checkpoints of a run.
        storage: Where Optuna keeps a study, as a URL; by default a SQLite file in the results folder.

    Raises:
        UserError: `slots` is below 1, or a study cannot be searched.
    """
    executor = executor or LocalExecutor(slots, execution=sweep.execution)
    if sweep.study is None:
        write_sweep_record(results, sweep)
        feed: Feed = WholeSweep(sweep)
    else:
        from harness.launch.searches import Searches

        feed = Searches(sweep, results, storage)
    driver = _Driver(sweep, results, feed, executor, wandb, tensorboard, checkpoint_every, retry_failed)
    try:
        return driver.run(console or Console(stderr=True))
    finally:
        feed.close()


class _Driver:
    def __init__(
        self,
        sweep: Sweep,
        results: str | Path,
        feed: Feed,
        executor: Executor,
        wandb: bool,
        tensorboard: bool,
        checkpoint_every: int,
        retry_failed: bool,
    ) -> None:
        self._sweep = sweep
        self._results = results
        self._feed = feed
        self._executor = executor
        self._wandb = wandb
        self._tensorboard = tensorboard
        self._checkpoint_every = checkpoint_every
        self._retry_failed = retry_failed
        self._todo: deque[SweepRun] = deque()
        self._elsewhere: deque[SweepRun] = deque()
        self._told_elsewhere: set[str] = set()
        self._active: list[_Active] = []
        self._completed = 0
        self._failed = 0
        self._pending = 0
        self._pruned = 0
        self._stops = 0
        self._stops_passed_on = 0
        self._next_look_elsewhere = 0.0

    def run(self, console: Console) -> SweepOutcome:
        """Works until nothing is left or a signal asked to stop."""
        num_runs = self._feed.num_runs
        self._take_more()
        slots = self._executor.num_slots
        with self._signals(), Progress(console, self._sweep.name, num_runs, self._completed, slots) as progress:
            if self._todo:
                progress.line(
                    f"{self._sweep.name}: {num_runs} runs, {self._completed} completed before, {slots} at a time"
                )
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
            for run in runs:
                if self._is_complete(run):
                    self._count_completed(run.run_id)
                else:
                    self._todo.append(run)

    def _count_completed(self, run_id: str) -> None:
        self._completed += 1
        self._feed.ended(run_id, "completed")

    def _turn(self, progress: Progress) -> None:
        """Looks once at everything, then sleeps."""
        if self._stops > self._stops_passed_on:
            self._stops_passed_on += 1
            for active in self._active:
                active.process.stop()
            if self._stops_passed_on == 1 and self._active:
                progress.line(f"stopping: {len(self._active)} workers are saving; interrupt again to end them at once")
        self._settle_ended(progress)
        self._prune()
        if not self._stops:
            self._look_elsewhere()
            self._fill_slots(progress)
        progress.update()
        if self._active or self._elsewhere:
            time.sleep(POLL_S)

    def _fill_slots(self, progress: Progress) -> None:
        while not self._stops and len(self._active) < self._executor.num_slots:
            self._take_more()
            if not self._todo:
                return
            self._begin(self._todo.popleft(), progress)

    def _prune(self) -> None:
        for active in self._active:
            if not active.pruned and self._feed.is_unwanted(active.run.run_id):
                active.pruned = True
                active.process.stop()

    def _begin(self, run: SweepRun, progress: Progress) -> None:
        folder = RunFolder(self._results, run.run_id)
        lock = take_lock(folder.path)
        try:
            # What stood here before the lock was ours may have been another driver's unfinished work.
            state = read_state(folder)
            seen_elsewhere = run.run_id in self._told_elsewhere
            if self._is_complete(run):
                self._count_completed(run.run_id)
                progress.completed(run.run_id)
            elif self._feed.is_unwanted(run.run_id):
                self._count_pruned(run.run_id, progress)
            elif lock is None or (state.status == "running" and has_worker(state)):
                self._elsewhere.append(run)
                if not seen_elsewhere:
                    self._told_elsewhere.add(run.run_id)
                    progress.elsewhere(run.run_id)
            elif state.status == "failed" and (seen_elsewhere or not self._retry_failed):
                self._count_failed(run.run_id, state.error or "unknown", progress)
            else:
                log_start = folder.log.stat().st_size if folder.log.exists() else 0
                process = self._executor.start(self._job(run, folder), folder, lock)
                self._active.append(_Active(run, folder, process, lock, state, log_start))
                lock = None
                progress.started(run.run_id, folder)
        finally:
            if lock is not None:
                lock.release()

    def _look_elsewhere(self) -> None:
        """Offers the runs of other drivers again, now and then: each may have ended one way or another."""
        if self._elsewhere and time.monotonic() >= self._next_look_elsewhere:
            self._next_look_elsewhere = time.monotonic() + ELSEWHERE_POLL_S
            self._todo.extend(self._elsewhere)
            self._elsewhere.clear()

    def _job(self, run: SweepRun, folder: RunFolder) -> Job:
        # Sums of floats depend on the number of threads, so a run that resumes keeps the number it began with, unless
        # it is now shared by another number of processes, which changes them anyway.
        before = read_json(folder.job_json) if folder.checkpoint.exists() and folder.job_json.exists() else {}
        same = before.get("execution", {}).get("devices", 1) == self._sweep.execution.devices
        return Job(
            spec=run.spec,
            targets=run.targets,
            evaluation=self._sweep.evaluation,
            results=str(self._results),
            sweep=self._sweep.name,
            wandb=self._wandb,
            tensorboard=self._tensorboard,
            execution=self._sweep.execution,
            data=self._data(run),
            num_threads=before.get("num_threads", 0) if same else 0,
            checkpoint_every=self._checkpoint_every,
        )

    def _data(self, run: SweepRun) -> dict[str, str]:
        """Where the run's stored rows lie, wherever its worker stands."""
        used = (run.spec.source, *run.targets)
        paths = {name: Path(path).expanduser().absolute() for name, path in self._sweep.data.items() if name in used}
        return {name: str(path) for name, path in paths.items()}

    def _settle_ended(self, progress: Progress) -> None:
        for active in list(self._active):
            code = active.process.poll()
            if code is not None:
                self._settle(active, code, progress)
                self._active.remove(active)
                active.lock.release()

    def _settle(self, active: _Active, code: int, progress: Progress) -> None:
        """Turns a worker's end into what its run is now; writes the state where the worker could not."""
        run_id = active.run.run_id
        state = read_state(active.folder)
        if self._is_complete(active.run):
            self._count_completed(run_id)
            progress.completed(run_id)
        elif state.status == "failed" and state != active.before:
            self._count_failed(run_id, state.error or "unknown", progress)
        elif active.pruned:
            write_state(active.folder, dataclasses.replace(state, status="pruned", heartbeat=time.time()))
            self._count_pruned(run_id, progress)
        elif self._stops or (code == 128 + signal.SIGTERM and state.status == "pending"):
            if state.status == "running":
                write_state(active.folder, dataclasses.replace(state, status="pending", heartbeat=time.time()))
            self._pending += 1
            progress.interrupted(run_id)
        else:
            failed = record_silent_end(active.folder, code, log_tail(active.folder.log, active.log_start))
            self._count_failed(run_id, failed.error or "unknown", progress)

    def _count_failed(self, run_id: str, reason: str, progress: Progress) -> None:
        self._failed += 1
        self._feed.ended(run_id, "failed")
        progress.failed(run_id, reason)

    def _count_pruned(self, run_id: str, progress: Progress) -> None:
        self._pruned += 1
        self._feed.ended(run_id, "pruned")
        progress.pruned(run_id)

    def _is_complete(self, run: SweepRun) -> bool:
        return is_complete(RunFolder(self._results, run.run_id), run.targets, self._sweep.evaluation)

    def _outcome(self) -> SweepOutcome:
        return SweepOutcome(
            num_completed=self._completed,
            num_failed=self._failed,
            num_pruned=self._pruned,
            num_pending=self._pending + len(self._todo) + len(self._elsewhere),
            interrupted=self._stops > 0,
        )

    def _end_workers(self) -> None:
        """Leaves no worker behind when the driver itself fails; does nothing after a normal end."""
        for active in self._active:
            active.process.stop()
        while any(active.process.poll() is None for active in self._active):
            time.sleep(POLL_S)
        for active in self._active:
            active.lock.release()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Counts requests to stop in place of dying of them; only a main thread may do that."""
        last = -REPEAT_S

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= REPEAT_S:
                self._stops += 1
            last = now

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is a wish to go on
            numbers.append(signal.SIGHUP)
        before = {}
        with contextlib.suppress(ValueError):
            for number in numbers:
                before[number] = signal.signal(number, stop)
        try:
            yield
        finally:
            for number, previous in before.items():
                signal.signal(number, previous)
