"""Workers as jobs of SLURM: runs with equal demands are one job array, submitted by submitit.

A time limit or a preemption comes with SIGTERM: the worker saves, and its job is queued again under the same
reservation, whether a driver lives or not (:mod:`harness.launch.executors.slurm_job`). Where all jobs stand is one call
of squeue (:mod:`harness.launch.executors.slurm_queue`). Submitit writes the batch script and calls our function on the
node; what it pickles of results is never read: exit codes come from our own files.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import DataError, UserError
from harness.launch.executor import Demand, End, Handle, Launch, Worker
from harness.launch.executors.slurm_job import ENDED_AT_ONCE, JobFiles, SlurmJob
from harness.launch.executors.slurm_queue import Queue, QueuedJob, is_job, said
from harness.record.atomic import read_json
from harness.record.failures import STOPPED
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

QUEUED = 256
"""Jobs in the queue at a time where `slots` does not say; a scheduler has other users too."""
LARGEST_ARRAY = 1000
"""SLURM's own bound, by default, of an array's size."""
MARGIN = 1.25
"""Of a measured host memory: SLURM ends a job that takes more than it asked for."""
CPUS_PER_DEVICE = 2
LATE_S = 5.0
"""A job that is over without a word about its worker may have left one that a shared file system does not show yet."""

_START = 'trap \'\' TERM; exec "$0" "$@"'
"""A SIGTERM that comes while Python starts is left aside: our function looks for a request, and SLURM comes back."""
_UNREACHED = ("unable to contact", "timed out", "connection refused", "temporarily unavailable", "zero bytes")


class SlurmWorker:
    """A worker in a job of SLURM.

    Args:
        queue: Where jobs stand.
        job: The job's name, such as ``"12_3"``.
        name: What it is called in the queue.
        files: Shared with the job.
        grace_s: Seconds that it has to save once it is asked to end.
    """

    def __init__(self, queue: Queue, job: str, name: str, files: JobFiles, grace_s: float) -> None:
        self._queue = queue
        self._job = job
        self._name = name
        self._files = files
        self._grace_s = grace_s
        self._deadline = math.inf
        self._node = ""
        self._stops = 0
        self._missed: float | None = None
        self._end: End | None = None

    @property
    def handle(self) -> Handle:
        """The job, and where its files lie."""
        files = {"folder": str(self._files.folder), "index": self._files.index}
        return {"executor": "slurm", "job": self._job, "name": self._name, **files}

    @property
    def place(self) -> str:
        """The job, and its node once it has one."""
        return f"slurm {self._job} on {self._node}" if self._node else f"slurm {self._job}"

    @property
    def waits(self) -> bool:
        """Whether it is in the queue, for the first time or again, so that no sign of life is to be expected."""
        seen = self._queue.job(self._job)
        return self._end is None and seen is not None and not seen.is_over and not seen.node

    def poll(self) -> End | None:
        """How it ended; None while it waits, runs, or is queued again."""
        if self._end is not None:
            return self._end
        seen = self._queue.job(self._job)
        if seen is not None:
            self._node = seen.node
        if (seen is None and self._queue.trouble) or (seen is not None and not seen.is_over):
            self._missed = None
            if time.monotonic() > self._deadline:
                self.stop()
            return None
        self._end = self._written_end() or self._silent_end(seen)
        return self._end

    def stop(self) -> None:
        """SIGTERM, or out of the queue; SIGKILL when the grace is over or on a second call.

        Passed on with the next look at the queue, for many workers at a time.
        """
        self._stops += 1
        if self._stops == 1:
            # First of all: a job that is about to start, or to be queued again, finds it.
            self._files.stop.touch()
            self._queue.ask(self._job)
            self._deadline = time.monotonic() + self._grace_s
        else:
            self._deadline = math.inf
            self._queue.end(self._job)

    def _written_end(self) -> End | None:
        try:
            record = read_json(self._files.end)
            return End(record["code"], record["words"], record["out_of_memory"])
        except (OSError, DataError):
            return None

    def _silent_end(self, seen: QueuedJob | None) -> End | None:
        state = seen.state if seen else ""
        if self._stops > 1:
            return End(-signal.SIGKILL, ENDED_AT_ONCE)
        if self._stops and state in ("CANCELLED", ""):  # of an array's jobs that never began, SLURM remembers one
            return End(STOPPED, "taken out of the queue")
        self._missed = self._missed or time.monotonic()
        if time.monotonic() - self._missed < LATE_S:
            return None
        words = f"SLURM calls its job {self._job} {state}" if state else f"SLURM knows no job {self._job} any more"
        code = self._queue.exit_code(self._job) if state in ("COMPLETED", "FAILED") else None
        last = _last_line(self._files.folder / f"{self._job}_0_log.out")
        return End(code, f"{words}: {last}" if last else words, out_of_memory=state == "OUT_OF_MEMORY")


class UnqueuedWorker:
    """A worker that SLURM's controller could not be told of.

    Args:
        words: What it said.
    """

    place = ""
    waits = False

    def __init__(self, words: str) -> None:
        self._words = words

    @property
    def handle(self) -> Handle:
        """There is nothing to find again."""
        return {}

    def poll(self) -> End:
        """It never began."""
        return End(None, self._words)

    def stop(self) -> None:
        """It never began."""


class SlurmExecutor:
    """A SLURM cluster whose nodes see the results folder where this machine sees it.

    Args:
        settings: What each job asks for, and how many may be in the queue.
        execution: Of the runs to come: their devices.
        command: What is started, with the path of a `job.json` added; by default the installed worker.

    Raises:
        UserError: Submitit or SLURM's commands are missing, SLURM does not answer, or `time_min` is too short to save.
    """

    queues = True

    def __init__(self, settings: ExecutorSettings, execution: Execution, command: Sequence[str] | None = None) -> None:
        if importlib.util.find_spec("submitit") is None:
            raise UserError("executor.type slurm needs submitit: pip install 'grpo-d-harness[slurm]'")
        if settings.time_min is not None and settings.time_min * 60 <= settings.grace_s:
            raise UserError(
                f"executor.time_min {settings.time_min} leaves no time beside the {settings.grace_s:g} s of grace_s"
            )
        self._settings = settings
        self._execution = execution
        self._command = tuple(command or (sys.executable, "-m", "harness.worker"))
        self._queue = Queue()
        self._workers: list[SlurmWorker] = []

    @property
    def num_slots(self) -> int:
        """Jobs that may be in the queue, whether they run or wait."""
        return self._settings.slots or QUEUED

    def has_room(self, demand: Demand) -> bool:
        """Whether another job may be queued; not while SLURM does not answer."""
        self._queue.refresh()
        self._workers = [worker for worker in self._workers if worker.poll() is None]
        return not self._queue.trouble and len(self._workers) < self.num_slots

    def start(self, launches: Sequence[Launch]) -> list[Worker]:
        """Queues workers, those with equal demands as one array.

        Raises:
            UserError: SLURM refuses them, such as for a partition that is not there.
        """
        alike: dict[tuple[tuple[str, Any], ...], list[int]] = {}
        for place, launch in enumerate(launches):
            asked = resources(self._settings, self._execution, launch.demand)
            alike.setdefault(tuple(asked.items()), []).append(place)
        workers: dict[int, Worker] = {}
        try:
            for asked_alike, places in alike.items():
                for first in range(0, len(places), LARGEST_ARRAY):
                    chosen = places[first : first + LARGEST_ARRAY]
                    queued = self._submit([launches[place] for place in chosen], dict(asked_alike))
                    workers.update(zip(chosen, queued, strict=True))
        except UserError:
            for worker in workers.values():
                worker.stop()
            raise
        self._workers += [worker for worker in workers.values() if isinstance(worker, SlurmWorker)]
        return [workers[place] for place in range(len(launches))]

    def adopt(self, handle: Handle) -> SlurmWorker | None:
        """The job that an earlier driver queued, waiting or running."""
        job, folder, index = handle.get("job"), Path(str(handle.get("folder"))), handle.get("index")
        if handle.get("executor") != "slurm" or not is_job(job) or not isinstance(index, int) or not folder.is_dir():
            return None
        seen = self._queue.job(str(job))
        # SLURM begins to count anew now and then; a name is never given twice.
        if seen is None or seen.is_over or seen.name != handle.get("name"):
            return None
        worker = SlurmWorker(self._queue, str(job), seen.name, JobFiles(folder, index), self._settings.grace_s)
        self._workers.append(worker)
        return worker

    def close(self) -> None:
        """Waits until every wish has reached SLURM; jobs stay where they are."""
        self._queue.close()

    def _submit(self, launches: Sequence[Launch], asked: Mapping[str, Any]) -> Sequence[Worker]:
        from submitit import SlurmExecutor as Submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        first = launches[0]
        name = f"{first.job.sweep}-{uuid.uuid4().hex[:8]}"
        folder = (Path(first.job.results) / "slurm" / name).absolute()
        folder.mkdir(parents=True)
        files = [JobFiles(folder, index) for index in range(len(launches))]
        cpus = asked["cpus_per_task"]
        executor = Submitit(folder, python=f"sh -c {shlex.quote(_START)} {shlex.quote(sys.executable)}")
        executor.update_parameters(
            **asked,
            job_name=name,
            wckey=None,
            stderr_to_stdout=True,
            array_parallelism=self.num_slots,
            # A step does not take this over from its job since SLURM 22.05.
            srun_args=[f"--cpus-per-task={cpus}"],
            additional_parameters={"requeue": True, "signal": f"TERM@{math.ceil(self._settings.grace_s)}"},
        )
        functions = [self._function(launch, one, cpus) for launch, one in zip(launches, files, strict=True)]
        try:
            with _outside_of_jobs(), contextlib.redirect_stderr(io.StringIO()):  # what sbatch says is in the error
                jobs = executor.submit_array(functions)
        except (FailedJobError, FailedSubmissionError) as error:
            words = said(str(error))
            if any(text in words.lower() for text in _UNREACHED):
                return [UnqueuedWorker(words) for _ in launches]
            gpus = asked["gpus_per_node"]
            hint = f" (each asks for {gpus} GPU{'s' * (gpus > 1)}; with execution.device cpu, for none)" if gpus else ""
            raise UserError(f"SLURM refuses the jobs of {first.job.sweep}: {words}{hint}") from error
        self._queue.expect_news()
        grace_s = self._settings.grace_s
        return [SlurmWorker(self._queue, job.job_id, name, one, grace_s) for job, one in zip(jobs, files, strict=True)]

    def _function(self, launch: Launch, files: JobFiles, cpus: int) -> SlurmJob:
        num_threads = launch.job.num_threads or max(1, cpus // launch.demand.devices)
        job = launch.job.model_copy(update={"num_threads": num_threads})
        launch.files.write_json(launch.folder.job_json, job.model_dump(mode="json"))
        command = (*self._command, str(launch.folder.job_json))
        return SlurmJob(command, Path.cwd(), launch.folder, files, num_threads)


def resources(settings: ExecutorSettings, execution: Execution, demand: Demand) -> dict[str, Any]:
    """What a job asks SLURM for, as submitit's parameters; None leaves it to the cluster.

    Args:
        settings: Of the sweep's `executor` section.
        execution: Of its runs.
        demand: The run's, as far as it has been measured.
    """
    memory_gib = settings.memory_gib or (demand.host_gib and demand.host_gib * MARGIN)
    return {
        "partition": settings.partition,
        "account": settings.account,
        "qos": settings.qos,
        "constraint": settings.constraint,
        "time": settings.time_min,
        "ntasks_per_node": 1,
        "cpus_per_task": settings.cpus or CPUS_PER_DEVICE * demand.devices,
        "gpus_per_node": None if execution.device == "cpu" else demand.devices,
        "mem": f"{math.ceil(memory_gib * 1024)}M" if memory_gib else None,
    }


@contextlib.contextmanager
def _outside_of_jobs() -> Iterator[None]:
    """A driver may itself run in a job; what SLURM tells that one is not meant for those that it submits."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(where)
        yield


def _last_line(path: Path) -> str:
    """Of what submitit and SLURM printed in a job; empty where there is none."""
    with contextlib.suppress(OSError):
        return path.read_text(errors="replace").strip().rpartition("\n")[2].strip()
    return ""
