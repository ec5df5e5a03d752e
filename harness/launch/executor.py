"""What the driver asks of a place where workers run: start, poll, stop. One file per place, one line per name.

An executor starts ``python -m harness.worker <job.json>`` somewhere that sees the results folder, with its output
appended to the run's log, watches it, and passes on the wish to stop. What the end of a worker means is not its affair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from harness.record.folder import RunFolder
from harness.spec import Execution, Job
from harness.spec.executor import ExecutorSettings
from harness.spec.names import resolve

if TYPE_CHECKING:
    from harness.record.files import Files

EXECUTORS: Mapping[str, str] = {
    "local": "harness.launch.executors.local:LocalExecutor",
    "ray": "harness.launch.executors.ray:RayExecutor",
    "slurm": "harness.launch.executors.slurm:SlurmExecutor",
}
"""The executors by name, imported when asked for."""

Handle = Mapping[str, Any]
"""What finds a worker again from another driver, as JSON values, such as ``{"job": "1234_7"}``."""


@dataclass(frozen=True)
class Demand:
    """What one run needs, as far as runs of its kind have been measured.

    Attributes:
        devices: Accelerators, or processes on a CPU.
        device_gib: Peak memory on each device; None where it is not known.
        host_gib: Peak host memory of all its processes; None where it is not known.
        alone: Whether it shall share no device: the first of its kind, or one that ran out of memory.
    """

    devices: int = 1
    device_gib: float | None = None
    host_gib: float | None = None
    alone: bool = False


@dataclass(frozen=True)
class Launch:
    """A worker to be started.

    Attributes:
        job: What to do; a `num_threads` above 0 is kept, 0 is for the executor to choose.
        folder: Where it goes. `job.json` is written there by the executor, and the log appended to.
        demand: What it needs.
        files: How to write into the folder: :meth:`harness.record.files.Files.write_json` does nothing once another
            driver has taken the run over.
    """

    job: Job
    folder: RunFolder
    demand: Demand
    files: Files


@dataclass(frozen=True)
class End:
    """How a worker ended.

    Attributes:
        code: Its exit code; minus the signal's number where a signal ended it; None where nobody can know, such as a
            node that was lost or a worker that another driver started.
        words: What the executor heard about it, such as ``"node n2 died"``; for people.
        out_of_memory: Whether the system was seen to end processes for want of memory in the meantime.
    """

    code: int | None
    words: str = ""
    out_of_memory: bool = False


class Worker(Protocol):
    """One worker that was started."""

    @property
    def handle(self) -> Handle:
        """What :meth:`Executor.adopt` takes."""

    @property
    def place(self) -> str:
        """Where it runs, for people, such as ``"gpu 3"`` or ``"slurm 1234_7 on n2"``; empty where not known yet."""

    @property
    def waits(self) -> bool:
        """Whether it waits for its turn, so that no sign of life is to be expected."""

    def poll(self) -> End | None:
        """How it ended; None while it lives or waits for its turn."""

    def stop(self) -> None:
        """Asks the worker to save and end; asked again, ends it at once. Returns without waiting."""


class Executor(Protocol):
    """A place where workers run."""

    queues: bool
    """Whether workers may wait there for their turn, so that many are started with one call."""

    @property
    def num_slots(self) -> int:
        """Workers that fit at the same time, as far as can be foreseen."""

    def has_room(self, demand: Demand) -> bool:
        """Whether a worker that needs this could be started now (or queued, where there is a queue)."""

    def start(self, launches: Sequence[Launch]) -> list[Worker]:
        """Starts workers, in order; where there is no queue, one at a time after asking :meth:`has_room`.

        Raises:
            UserError: They can never run here, such as for want of devices.
        """

    def adopt(self, handle: Handle) -> Worker | None:
        """The worker that an earlier driver started; None where it is not to be found or is over."""

    def close(self) -> None:
        """Nothing more will be started; lets go of what is held for this driver alone."""


def make_executor(settings: ExecutorSettings, execution: Execution) -> Executor:
    """The executor that a sweep asks for.

    Args:
        settings: Of the sweep's `executor` section.
        execution: Of its runs: their devices.

    Raises:
        UserError: What it needs is not installed or cannot be reached.
    """
    make: Callable[[ExecutorSettings, Execution], Executor] = resolve(EXECUTORS, "executor", settings.type)
    return make(settings, execution)
