"""Worker processes on this machine: devices shared as far as measured memory allows, CPU threads divided among them.

Without GPUs the machine's cores are divided into slots. With GPUs, a run whose kind has been measured shares a device
with others while their peaks fit; one that has not, or that ran out of memory, has its devices to itself. A run on
several devices is still one worker here: it starts its further processes itself (harness/train/group.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import UserError
from harness.launch.executor import Demand, End, Handle, Launch
from harness.launch.executors.devices import gpu_memory_gib, host_memory_gib, num_cores, num_out_of_memory, visible_gpus
from harness.launch.executors.forking import PER_WORKER, SINGLE_THREADED, WORKER, ForkServer, ForkServerError
from harness.launch.executors.local_process import AdoptedProcess, LocalProcess, Process
from harness.record.folder import RunFolder
from harness.record.process import ProcessId
from harness.spec import Execution, Job
from harness.spec.executor import ExecutorSettings

MARGIN = 1.15
"""Of a measured peak: another seed's completions may be longer."""
SHARING = 4
"""Workers that may share a GPU where their memory allows it; with more, each has fewer CPU threads than it needs."""
SHARE = 0.95
"""Of a memory that is given away; the rest is for what nobody measures."""


@dataclass
class _Placed:
    """A worker, where it runs and what it may take."""

    worker: LocalWorker
    demand: Demand
    gpus: tuple[int, ...]


class LocalWorker:
    """A worker on this machine."""

    def __init__(self, process: Process, gpus: Sequence[int]) -> None:
        self._process = process
        self._gpus = tuple(gpus)
        self._oom_before = num_out_of_memory()

    @property
    def pid(self) -> int:
        """The process id; also the id of its group."""
        return self._process.pid

    @property
    def handle(self) -> Handle:
        """The process, among all that were and will be, and its GPUs."""
        return {"executor": "local", "process": self._process.id.as_json(), "gpus": list(self._gpus)}

    @property
    def place(self) -> str:
        """Its GPUs, or this machine."""
        host = self._process.id.host
        return f"{host} gpu {','.join(map(str, self._gpus))}" if self._gpus else host

    @property
    def waits(self) -> bool:
        """Never: it was started only because there was room."""
        return False

    def poll(self) -> End | None:
        """How it ended; None while it lives."""
        end = self._process.poll()
        if end is None:
            return None
        starved = num_out_of_memory() > self._oom_before
        words = "the kernel ended processes here for want of memory" if starved else ""
        return End(end.code, words, out_of_memory=starved and end.code in (None, -9))

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        self._process.stop()


class LocalExecutor:
    """This machine's devices and cores.

    Args:
        settings: `slots` in place of what fits, and the time that a worker has to save.
        execution: Of the runs to come: their devices.
        module: The worker's, which is run as ``python -m`` does; forked from a process that has imported it, where the
            system allows that.
        command: Started in place of the module, with the path of a `job.json` added.

    Raises:
        UserError: A run wants more devices than there are.
    """

    queues = False

    def __init__(
        self,
        settings: ExecutorSettings = ExecutorSettings(),  # noqa: B008 - frozen
        execution: Execution = Execution(),  # noqa: B008 - frozen
        module: str = WORKER,
        command: Sequence[str] | None = None,
    ) -> None:
        self._gpus = () if execution.device == "cpu" else visible_gpus(os.environ)
        self._num_devices = execution.devices
        cores = num_cores()
        if self._num_devices > (len(self._gpus) or cores):
            there = f"{len(self._gpus)} GPUs" if self._gpus else f"no GPU for them and {cores} CPU cores"
            raise UserError(f"execution.devices is {self._num_devices}, but this machine has {there}")
        self._slots = settings.slots
        self._gpu_gib = gpu_memory_gib(self._gpus)
        self._host_gib = host_memory_gib()
        by_default = len(self._gpus) // self._num_devices or max(1, cores // max(2, self._num_devices))
        self._num_slots = settings.slots or by_default
        # A run keeps the threads that its sums depend on, however many come to share its GPUs.
        shared = self._gpus and not settings.slots
        self._most = (
            max(by_default, min(SHARING * by_default, cores // self._num_devices)) if shared else self._num_slots
        )
        self._num_threads = max(1, cores // self._most // self._num_devices)
        self._module = module
        self._command = tuple(command or (sys.executable, "-m", module))
        self._may_fork = command is None
        self._has_started = False
        self._server: ForkServer | None = None
        self._grace_s = settings.grace_s
        self._placed: list[_Placed] = []

    @property
    def num_slots(self) -> int:
        """Workers that fit at the same time, as far as can be foreseen."""
        return self._num_slots

    @property
    def num_threads(self) -> int:
        """CPU threads of each process of a worker, where its job does not say."""
        return self._num_threads

    def has_room(self, demand: Demand) -> bool:
        """Whether a worker fits beside those that live."""
        self._forget_ended()
        if len(self._placed) >= self._most:
            return False
        if self._slots is None and not self._fits_host(demand):
            return False
        return not self._gpus or len(self._free_gpus(demand)) >= self._num_devices

    def start(self, launches: Sequence[Launch]) -> list[LocalWorker]:
        """Writes each `job.json` and starts its worker, its output appended to the log.

        Raises:
            RuntimeError: There is no room.
        """
        workers = []
        for launch in launches:
            if not self.has_room(launch.demand):
                raise RuntimeError("there is no room for another worker")
            gpus = tuple(self._free_gpus(launch.demand)[: self._num_devices])
            job = launch.job.model_copy(update={"num_threads": launch.job.num_threads or self._num_threads})
            launch.files.write_json(launch.folder.job_json, job.model_dump(mode="json"))
            process = self._forked(launch.folder, gpus, job) or self._spawned(launch.folder, gpus, job)
            worker = LocalWorker(process, gpus)
            self._placed.append(_Placed(worker, launch.demand, gpus))
            workers.append(worker)
        return workers

    def adopt(self, handle: Handle) -> LocalWorker | None:
        """A worker of another driver of this machine; None where it is another's, or over."""
        if handle.get("executor") != "local":
            return None
        process = ProcessId.from_json(handle["process"])
        if process.is_alive is not True:
            return None
        gpus = tuple(handle.get("gpus", ()))
        worker = LocalWorker(AdoptedProcess(process, self._grace_s), gpus)
        # What it takes was its driver's to know; nobody joins it.
        self._placed.append(_Placed(worker, Demand(self._num_devices, alone=True), gpus))
        return worker

    def close(self) -> None:
        """Ends the fork server; its workers go on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _forked(self, folder: RunFolder, gpus: Sequence[int], job: Job) -> Process | None:
        """A worker from the fork server; None where there is none yet, or none any more.

        The server is started beside the first worker that has had one before it: a single run needs none.
        """
        if not self._may_fork:
            return None
        if self._server is None and not self._has_started:
            self._has_started = True
            return None
        try:
            if self._server is None:
                common = os.environ | worker_environment(job.num_threads)
                self._server = ForkServer(common, self._module)
            if not self._server.is_ready and not self._server.is_lost:
                return None
            own = {
                name: value for name, value in self._environment(gpus, job.num_threads).items() if name in PER_WORKER
            }
            return self._server.start(folder.job_json, own, folder.log, self._grace_s)
        except ForkServerError:
            if self._server is None or self._server.is_lost:
                self._may_fork = False
            return None

    def _spawned(self, folder: RunFolder, gpus: Sequence[int], job: Job) -> Process:
        with open(folder.log, "ab") as log:
            process = subprocess.Popen(
                [*self._command, str(folder.job_json)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | self._environment(gpus, job.num_threads),
                start_new_session=True,
            )
        return LocalProcess(process, self._grace_s)

    def _forget_ended(self) -> None:
        self._placed = [placed for placed in self._placed if placed.worker.poll() is None]

    def _fits_host(self, demand: Demand) -> bool:
        if self._host_gib is None or not self._placed:
            return True
        taken = sum(placed.demand.host_gib or 0.0 for placed in self._placed)
        return (taken + (demand.host_gib or 0.0)) * MARGIN <= self._host_gib * SHARE

    def _free_gpus(self, demand: Demand) -> list[int]:
        """The GPUs with room for a run, by their places; those that hold least come first."""
        held = {gpu: [placed for placed in self._placed if gpu in placed.gpus] for gpu in range(len(self._gpus))}
        if self._slots is not None:  # who gives a number of slots shares the GPUs evenly among them
            return sorted(held, key=lambda gpu: (len(held[gpu]), gpu))
        free = [gpu for gpu, others in held.items() if self._fits_gpu(demand, [other.demand for other in others])]
        return sorted(free, key=lambda gpu: (len(held[gpu]), gpu))

    def _fits_gpu(self, demand: Demand, others: Sequence[Demand]) -> bool:
        if not others:
            return True
        everybody = [demand, *others]
        if self._gpu_gib is None or any(one.alone or one.device_gib is None for one in everybody):
            return False
        return sum(one.device_gib or 0.0 for one in everybody) * MARGIN <= self._gpu_gib * SHARE

    def _environment(self, gpus: Sequence[int], num_threads: int) -> dict[str, str]:
        environment = worker_environment(num_threads)
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self._gpus[place] for place in gpus)
        return environment


def worker_environment(num_threads: int) -> dict[str, str]:
    """What every worker finds in its environment, wherever it runs.

    Args:
        num_threads: CPU threads of each of its processes.
    """
    return {
        "OMP_NUM_THREADS": str(num_threads),
        "MKL_NUM_THREADS": str(num_threads),
        "TOKENIZERS_PARALLELISM": "false",
        # A worker that dies without a word leaves its last lines, and the place of a crash, in its log.
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        **SINGLE_THREADED,
    }
