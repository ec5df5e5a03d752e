"""Takes a run for this driver: finds what is to be done with it, and reserves it where a worker is to be started."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.errors import DataError
from harness.launch.executor import Demand, Executor, Launch, Worker
from harness.launch.presence import Presence, read_driver
from harness.record.atomic import read_json_or
from harness.record.failures import failure_of
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.index import RunIndex
from harness.record.launches import LaunchRecord, read_launches, write_launches
from harness.record.lease import Lease, Owner, read_owner, reserve
from harness.record.pulse import Watch
from harness.record.state import is_complete, read_state
from harness.spec import Job

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun

LOOKED_INTO = 1000
"""Runs whose evaluations are compared with their summaries though no index knows them; more would take too long."""


@dataclass(frozen=True)
class Options:
    """What every job of a driver has.

    Attributes:
        wandb: Whether W&B mirrors the runs.
        tensorboard: Whether event files for TensorBoard are written too.
        checkpoint_every: Steps between two checkpoints.
    """

    wandb: bool = True
    tensorboard: bool = False
    checkpoint_every: int = 25


@dataclass(frozen=True)
class Taken:
    """What was found of a run.

    Attributes:
        what: `reserved`: a worker may be started; `adopted`: one lives, whose driver is gone; `elsewhere`: another
            driver works on it; `complete`; `failed`: in an earlier invocation, or it cannot be written.
        launch: What to start, where it was reserved.
        worker: Who was adopted.
        token: Of the reservation that the worker was started under.
        error: Why it failed.
    """

    what: Literal["reserved", "adopted", "elsewhere", "complete", "failed"]
    launch: Launch | None = None
    worker: Worker | None = None
    token: int = 0
    error: str = ""


class Taker:
    """Takes runs of a sweep.

    Args:
        sweep: Whose.
        results: The results folder, absolute.
        executor: Where workers run.
        presence: This driver's.
        watch: What it has seen of others.
        options: Of its jobs.
    """

    def __init__(
        self, sweep: Sweep, results: Path, executor: Executor, presence: Presence, watch: Watch, options: Options
    ) -> None:
        self._sweep = sweep
        self._results = results
        self._executor = executor
        self._presence = presence
        self._watch = watch
        self._options = options
        self._damaged: set[str] = set()

    def look_through(self, runs: Sequence[SweepRun]) -> list[SweepRun]:
        """Those of some runs that are left to do; what the index knows is not read again.

        Of runs that are complete, the evaluations are compared with what their summaries noted; one that was damaged
        since is left to do, and its worker makes it anew.
        """
        left = []
        with RunIndex(self._results) as index:
            for run in runs:
                asked = run.run_id, run.targets, self._sweep.evaluation
                if not index.is_complete(*asked):
                    left.append(run)
                elif (len(runs) <= LOOKED_INTO or index.knows(run.run_id)) and not index.is_intact(*asked):
                    self._damaged.add(run.run_id)
                    left.append(run)
        return left

    def is_complete(self, run: SweepRun) -> bool:
        """Whether nothing is left to do."""
        if run.run_id in self._damaged:
            return False
        return is_complete(self.folder(run), run.targets, self._sweep.evaluation)

    def folder(self, run: SweepRun) -> RunFolder:
        """A run's folder."""
        return RunFolder(self._results, run.run_id)

    def take(self, run: SweepRun, demand: Demand, *, retry: bool, anew: bool) -> Taken:
        """Takes a run.

        Args:
            run: Of the sweep.
            demand: What its worker will need.
            retry: Whether it may be started although it has failed.
            anew: Whether that was wished for: it begins with passes of full size again.
        """
        try:
            return self._take(run, demand, retry=retry, anew=anew)
        except DataError as error:
            return Taken("failed", error=str(error))
        except OSError as error:
            if failure_of(error) != "not_writable":
                raise
            return Taken("failed", error=f"{self.folder(run).path} cannot be written to: {error}")

    def _take(self, run: SweepRun, demand: Demand, *, retry: bool, anew: bool) -> Taken:
        folder = self.folder(run)
        folder.refuse_links()
        owner = read_owner(folder.path)
        if self.is_complete(run):
            return Taken("complete")
        worker = None if owner is None else self._orphan(folder, owner)
        if worker is not None:
            assert owner is not None
            return Taken("adopted", worker=worker, token=owner.reserved)
        lease = None
        if owner is None or owner.is_gone(self._watch):
            lease_s = self._sweep.execution.lease_s
            lease = reserve(folder.path, owner, pulse=self._presence.path, lease_s=lease_s)
        if lease is None:
            return Taken("elsewhere")
        # What stood here before the run was ours may have been another driver's unfinished work.
        state = read_state(folder)
        if self.is_complete(run) or (state.status == "failed" and not retry):
            lease.release()
            return Taken("complete") if self.is_complete(run) else Taken("failed", error=state.error or "unknown")
        launches = read_launches(folder)
        job = self._job(run, folder, lease, 0 if anew else _halvings(launches))
        driver, halvings = self._presence.path.name, job.execution.halvings
        record = LaunchRecord(token=lease.token, started=time.time(), driver=driver, halvings=halvings)
        write_launches(folder, [*launches, record], lease.files)
        self._damaged.discard(run.run_id)
        return Taken("reserved", Launch(job, folder, demand, lease.files), token=lease.token)

    def _orphan(self, folder: RunFolder, owner: Owner) -> Worker | None:
        """A live worker whose driver is gone."""
        launches = read_launches(folder)
        # Let go of by a worker that has ended; where workers queue, its job may wait to go on.
        if (owner.released and not self._executor.queues) or not launches or launches[-1].token != owner.reserved:
            return None
        name = launches[-1].driver
        driver = read_driver(self._presence.path.with_name(name))
        if name == self._presence.path.name or (driver is not None and not driver.is_gone(self._watch)):
            return None
        return self._executor.adopt(launches[-1].handle) if launches[-1].handle else None

    def _job(self, run: SweepRun, folder: RunFolder, lease: Lease, halvings: int) -> Job:
        # Sums of floats depend on the number of threads, so a run that resumes keeps the number it began with, unless
        # it is now shared by another number of processes, which changes them anyway.
        execution = self._sweep.execution
        before = read_json_or(folder.job_json, {}) if folder.checkpoint.exists() else {}
        executed = before.get("execution")
        same = not isinstance(executed, Mapping) or executed.get("devices", 1) == execution.devices
        num_threads = before.get("num_threads")
        return Job(
            spec=run.spec,
            targets=run.targets,
            evaluation=self._sweep.evaluation,
            results=str(self._results),
            sweep=self._sweep.name,
            wandb=self._options.wandb,
            tensorboard=self._options.tensorboard,
            execution=execution.model_copy(update={"halvings": max(halvings, execution.halvings)}),
            data=self._data(run),
            reserved=lease.token,
            num_threads=num_threads if same and isinstance(num_threads, int) and num_threads > 0 else 0,
            checkpoint_every=self._options.checkpoint_every,
        )

    def _data(self, run: SweepRun) -> dict[str, str]:
        """Where the run's stored rows lie, wherever its worker stands."""
        used = (run.spec.source, *run.targets)
        paths = {name: Path(path).expanduser().absolute() for name, path in self._sweep.data.items() if name in used}
        return {name: str(path) for name, path in paths.items()}


def note_worker(folder: RunFolder, token: int, worker: Worker) -> None:
    """Writes down how to find a worker and where it is; it may hold the folder, but the file is the drivers' alone.

    Args:
        folder: The run's.
        token: Of the reservation that the worker was started under.
        worker: Which.
    """
    launches = read_launches(folder)
    if launches and launches[-1].token == token:
        found = dataclasses.replace(launches[-1], handle=worker.handle, place=worker.place)
        if found != launches[-1]:
            write_launches(folder, [*launches[:-1], found], Files(folder.path))


def _halvings(launches: list[LaunchRecord]) -> int:
    """How often the passes of the next attempt are halved from the start."""
    return launches[-1].halvings + (launches[-1].failure == "out_of_memory") if launches else 0
