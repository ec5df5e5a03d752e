"""SLURM's queue as its commands show it: where all our jobs stand by one call, and the wish that some of them end."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass

from harness.errors import UserError

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "srun")
TIMEOUT_S = 60
LOOK_EVERY_S = 1.0
LOOK_SELDOM_S = 30.0
"""Between two calls of squeue: ten times as long as one takes, for then many ask, within these bounds."""

OVER = frozenset(
    {
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PREEMPTED",
        "REVOKED",
        "TIMEOUT",
    }
)
"""The states that a job does not leave by itself."""

_JOB = re.compile(r"\d+(_\d+)?")

_ASK = 'scancel --quiet --state=PENDING "$@"; scancel --quiet --state=RUNNING --signal=TERM "$@"'
"""A job that waits has nothing to save. One that runs gets the signal, which alone cancels nothing."""
_END = 'scancel --quiet --state=RUNNING --signal=USR1 "$@"; scancel --quiet "$@"'
"""SIGUSR1 has the function of `slurm_job` kill the worker; SLURM would wait before its SIGKILL."""


@dataclass(frozen=True)
class QueuedJob:
    """A job as squeue shows it.

    Attributes:
        state: In SLURM's words.
        node: Where it runs; empty while it waits.
        reason: What it waits for.
        name: The job's.
    """

    state: str
    node: str
    reason: str
    name: str

    @property
    def is_over(self) -> bool:
        """Whether it has ended; SLURM remembers it for some minutes yet."""
        return self.state in OVER


class Queue:
    """What one driver sees of SLURM.

    Raises:
        UserError: SLURM's commands are missing here, or its controller does not answer.
    """

    def __init__(self) -> None:
        missing = [command for command in COMMANDS if shutil.which(command) is None]
        if missing:
            raise UserError(f"executor.type slurm needs SLURM's commands, but there is no {missing[0]} here")
        self._jobs: dict[str, QueuedJob] = {}
        self._next_look = 0.0
        self._wishes: dict[str, set[str]] = {_ASK: set(), _END: set()}
        self._calls: list[subprocess.Popen[bytes]] = []
        self.trouble = ""
        """What squeue complained of when it was called last; empty where it answered."""
        self.look()
        if self.trouble:
            raise UserError(f"executor.type slurm, but SLURM does not answer: {self.trouble}")

    def job(self, job: str) -> QueuedJob | None:
        """A job as it was seen last; None where SLURM knows none of that name."""
        self.refresh()
        return self._jobs.get(job)

    def refresh(self) -> None:
        """Looks, where the last look was some time ago."""
        if time.monotonic() >= self._next_look:
            self.look()

    def expect_news(self) -> None:
        """What was seen is out of date."""
        self._next_look = 0.0

    def look(self) -> None:
        """Asks SLURM about all jobs of this user; where it does not answer, what it said before stands."""
        self._pass_wishes_on()
        started = time.monotonic()
        try:
            done = subprocess.run(
                ["squeue", "--me", "--states=all", "--array", "--noheader", "--format=%i|%T|%N|%r|%j"],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.trouble = said(getattr(error, "stderr", None)) or str(error)
        else:
            self.trouble = ""
            self._jobs = {}
            for line in done.stdout.splitlines():
                job, *fields = line.split("|", 4)
                self._jobs[job] = QueuedJob(*fields)
        ended = time.monotonic()
        self._next_look = ended + min(max(LOOK_EVERY_S, 10 * (ended - started)), LOOK_SELDOM_S)

    def exit_code(self, job: str) -> int | None:
        """What a job's script ended with, 128 plus a signal's number where that ended it; None where SLURM forgot."""
        try:
            command = ["scontrol", "show", "job", "--oneliner", job]
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        found = re.search(r" ExitCode=(\d+):(\d+) ", done.stdout)
        return None if found is None else 128 + int(found[2]) if int(found[2]) else int(found[1])

    def ask(self, job: str) -> None:
        """Wishes that a job save and end; passed on with the next look, for many jobs at a time."""
        self._wish(_ASK, job)

    def end(self, job: str) -> None:
        """Wishes that a job end at once."""
        self._wish(_END, job)

    def close(self) -> None:
        """Passes on what is left to be passed on."""
        self._pass_wishes_on()
        for call in self._calls:
            call.wait(TIMEOUT_S)
        self._calls.clear()

    def _wish(self, script: str, job: str) -> None:
        self._wishes[script].add(job)
        self.expect_news()

    def _pass_wishes_on(self) -> None:
        """Without waiting: scancel tries for seconds where a job is about to change its state."""
        self._calls = [call for call in self._calls if call.poll() is None]
        for script, jobs in self._wishes.items():
            if jobs:
                self._calls.append(_scancel(script, jobs))
                jobs.clear()


def _scancel(script: str, jobs: Iterable[str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(["sh", "-c", script, "sh", *sorted(jobs)], stdin=quiet, stdout=quiet, stderr=quiet)


def is_job(name: object) -> bool:
    """Whether something is a job's name, such as ``"12_3"``: what a file held must not become an option."""
    return isinstance(name, str) and _JOB.fullmatch(name) is not None


def said(text: str | None) -> str:
    """What a command complained of, on one line and without the command's name; empty where it did not."""
    lines = (re.sub(r"^(\w+: )?error: ", "", line.strip()) for line in (text or "").splitlines())
    return "; ".join(line for line in lines if line)
