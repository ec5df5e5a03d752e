"""What a job of SLURM does: start the worker, pass SIGTERM on, and have itself queued again where SLURM ends it early.

Runs on the node, under submitit. SLURM says SIGTERM ahead of a time limit and when it preempts a job. The worker then
saves and exits with 143, and the job asks to be queued again: a run goes on though no driver lives. A driver that wants
a worker to end leaves a file, so that its SIGTERM is told apart and a job that SLURM starts anew knows of it too. Its
SIGUSR1 has the worker killed.

How a worker ended is left in a file beside that one, because without accounting SLURM forgets a job within minutes.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from harness.launch.executors.devices import num_out_of_memory
from harness.launch.executors.local import worker_environment
from harness.record.atomic import read_json, read_json_or, write_json
from harness.record.failures import STOPPED
from harness.record.folder import RunFolder
from harness.record.launches import progress_of

MAX_IDLE = 3
"""Attempts in a row that SLURM may end before they got any further; the job then is not queued again."""


ENDED_AT_ONCE = "ended at once, as asked"


@dataclass(frozen=True)
class JobFiles:
    """The files through which a driver and a job speak, beside submitit's own.

    Attributes:
        folder: Of one array of jobs, under `<results>/slurm/`.
        index: The job's place in the array.
    """

    folder: Path
    index: int

    @property
    def end(self) -> Path:
        """How the worker ended: `code`, `words` and `out_of_memory`, as in :class:`harness.launch.executor.End`."""
        return self.folder / f"{self.index}.end.json"

    @property
    def stop(self) -> Path:
        """There once a driver asked the worker to end."""
        return self.folder / f"{self.index}.stop"

    @property
    def idle(self) -> Path:
        """How far the run was when the job was queued again, and how often in a row it got no further."""
        return self.folder / f"{self.index}.idle.json"


@dataclass(frozen=True)
class SlurmJob:
    """The function that submitit calls in a job.

    Attributes:
        command: The worker.
        cwd: Where the driver stands: paths in `job.json` may be relative.
        folder: The run's.
        files: Shared with the driver.
        num_threads: CPU threads of each of the worker's processes.
    """

    command: tuple[str, ...]
    cwd: Path
    folder: RunFolder
    files: JobFiles
    num_threads: int

    def __call__(self) -> None:
        """Exits with the worker's code, so that SLURM's own record of the job tells the same."""
        worker: subprocess.Popen[bytes] | None = None
        asked = ended = False

        def ask(number: int, frame: Any) -> None:
            nonlocal asked
            asked = True
            if worker is not None:
                worker.send_signal(signal.SIGTERM)

        def end(number: int, frame: Any) -> None:
            nonlocal ended
            ended = True
            if worker is not None:
                worker.kill()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGUSR1, end)
        if self.files.end.exists():  # SLURM lost the node between the worker's end and the job's
            self._exit(read_json(self.files.end)["code"])
        if self.files.stop.exists():
            self._leave(STOPPED, "asked to stop before it began")
        starved = num_out_of_memory()
        try:
            with open(self.folder.log, "ab") as log:
                # In this job step's process group, so that it ends whenever the step does.
                worker = subprocess.Popen(
                    self.command,
                    cwd=self.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | worker_environment(self.num_threads),
                )
        except OSError as error:
            self._leave(None, f"the worker could not be started: {error}")
        if ended:
            worker.kill()
        elif asked:
            worker.send_signal(signal.SIGTERM)
        code = worker.wait()
        if ended:
            self._leave(-signal.SIGKILL, ENDED_AT_ONCE)
        if asked and code in (STOPPED, -signal.SIGTERM) and not self.files.stop.exists():
            words = self._queue_again()
            if not words:
                self._exit(code)
            self._leave(code, words)
        self._leave(code, "", code == -signal.SIGKILL and num_out_of_memory() > starved)

    def _queue_again(self) -> str:
        """Has SLURM queue this job again; returns why it does not, or nothing."""
        try:
            if self._is_idle():
                return f"SLURM ended it {MAX_IDLE} times in a row before it got any further"
            job = _run("scontrol", "show", "job", "--oneliner", job_id())
            if int(_field(job, "Restarts")) > int(os.environ.get("SLURM_RESTART_COUNT", "0")):
                return ""  # SLURM has done so itself
            state = _field(job, "JobState")
            if state != "RUNNING":  # being cancelled; it would be queued again all the same
                return f"SLURM calls it {state}"
            _run("scontrol", "requeue", job_id())
        except (OSError, subprocess.SubprocessError) as error:
            return f"it could not be queued again: {getattr(error, 'stderr', None) or error}".strip()
        return ""

    def _is_idle(self) -> bool:
        now = list(progress_of(self.folder))
        before = read_json_or(self.files.idle, {"progress": [0, 0, 0], "times": 0})
        times = int(before["times"]) + 1 if before["progress"] == now else 0
        write_json(self.files.idle, {"progress": now, "times": times})
        return times >= MAX_IDLE

    def _leave(self, code: int | None, words: str, out_of_memory: bool = False) -> NoReturn:
        """Writes down how the worker ended, and ends likewise, for a full disk takes no word of it."""
        with contextlib.suppress(OSError):
            write_json(self.files.end, {"code": code, "words": words, "out_of_memory": out_of_memory})
        self._exit(code)

    def _exit(self, code: int | None) -> NoReturn:
        sys.exit(1 if code is None else code if code >= 0 else 128 - code)


def job_id() -> str:
    """This job, as its driver calls it: ``"12_3"`` in an array, of which ``"12"`` would be the whole."""
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}" if array else os.environ["SLURM_JOB_ID"]


def _field(job: str, name: str) -> str:
    """A field of what `scontrol show job` tells, such as ``JobState=RUNNING``."""
    return job.split(f" {name}=", 1)[1].split(" ", 1)[0]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
