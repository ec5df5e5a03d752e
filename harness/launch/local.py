"""Worker processes on this machine: one slot is the devices of one run and a budget of CPU threads.

A run on several devices is still one worker here: it starts its further processes itself (harness/train/group.py), in
its own process group and with its lock.

GPUs are counted without torch, by `CUDA_VISIBLE_DEVICES` where it is set and by `nvidia-smi -L` elsewhere, so a driver
starts quickly and holds no GPU memory. An executor only starts, watches and stops workers: what their end means is the
driver's to decide.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from harness.errors import UserError
from harness.launch.lock import RunLock
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.spec import Execution, Job


class WorkerProcess(Protocol):
    """One worker that was started."""

    def poll(self) -> int | None:
        """The exit code, minus the signal's number where a signal ended it; None while the worker lives."""

    def stop(self) -> None:
        """Asks the worker to save and end; asked again, ends it at once. Returns without waiting."""


class Executor(Protocol):
    """A place where workers run."""

    @property
    def num_slots(self) -> int:
        """Workers that fit at the same time."""

    def start(self, job: Job, folder: RunFolder, lock: RunLock) -> WorkerProcess:
        """Writes `job.json` and starts its worker, which inherits the lock."""


class LocalProcess:
    """A worker on this machine, in a session of its own: a terminal's Ctrl-C reaches the driver alone."""

    def __init__(self, process: subprocess.Popen[bytes], grace_s: float) -> None:
        self._process = process
        self._grace_s = grace_s
        self._deadline: float | None = None

    @property
    def pid(self) -> int:
        """The process id; also the id of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code or None; kills a worker that outlived its grace."""
        code = self._process.poll()
        if code is None:
            if self._deadline is not None and time.monotonic() > self._deadline:
                self._kill_group()
        elif code < 0:
            self._kill_group()  # what a killed worker had started is nobody's now
        return code

    def stop(self) -> None:
        """SIGTERM to the worker, SIGKILL to its whole group when the grace is over or on a second call."""
        if self._process.poll() is not None:
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
            self._process.send_signal(signal.SIGTERM)
        else:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class LocalExecutor:
    """Slots on this machine.

    Args:
        slots: Workers at the same time; by default as many as there are GPUs for, else one per two CPU cores. More than
            that share GPUs.
        command: What is started, with the path of a `job.json` added; by default the installed worker.
        grace_s: Seconds between SIGTERM and SIGKILL; a worker needs them to finish its step and save.
        execution: Of the runs to come: their devices.

    Raises:
        UserError: `slots` is below 1, or a run wants more devices than there are.
    """

    def __init__(
        self,
        slots: int | None = None,
        command: Sequence[str] | None = None,
        grace_s: float = 30.0,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> None:
        if slots is not None and slots < 1:
            raise UserError(f"slots must be at least 1, not {slots}")
        self._gpus = () if execution.device == "cpu" else visible_gpus(os.environ)
        self._num_devices = execution.devices
        cores = num_cores()
        if self._num_devices > (len(self._gpus) or cores):
            there = f"{len(self._gpus)} GPUs" if self._gpus else f"no GPU for them and {cores} CPU cores"
            raise UserError(f"execution.devices is {self._num_devices}, but this machine has {there}")
        by_default = len(self._gpus) // self._num_devices or max(1, cores // max(2, self._num_devices))
        self._num_slots = slots or by_default
        self._num_threads = max(1, cores // self._num_slots // self._num_devices)
        self._command = tuple(command or (sys.executable, "-m", "harness.worker"))
        self._grace_s = grace_s
        self._workers: dict[int, LocalProcess] = {}

    @property
    def num_slots(self) -> int:
        """Workers that fit at the same time."""
        return self._num_slots

    def start(self, job: Job, folder: RunFolder, lock: RunLock) -> LocalProcess:
        """Writes `job.json` with the threads of each process and starts the worker, its output appended to the log.

        Args:
            job: What to do; a `num_threads` above 0 is kept.
            folder: Where it goes.
            lock: Held by the caller; the worker shares it from here on.

        Raises:
            RuntimeError: Every slot is taken.
        """
        slot = next((slot for slot in range(self._num_slots) if self._is_free(slot)), None)
        if slot is None:
            raise RuntimeError(f"all {self._num_slots} slots are taken")
        job = job.model_copy(update={"num_threads": job.num_threads or self._num_threads})
        write_json(folder.job_json, job.model_dump(mode="json"))
        with open(folder.log, "ab") as log:
            process = subprocess.Popen(
                [*self._command, str(folder.job_json)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(slot, job.num_threads),
                start_new_session=True,
                pass_fds=(lock.fileno(),),
            )
        self._workers[slot] = LocalProcess(process, self._grace_s)
        return self._workers[slot]

    def _is_free(self, slot: int) -> bool:
        return slot not in self._workers or self._workers[slot].poll() is not None

    def _environment(self, slot: int, num_threads: int) -> dict[str, str]:
        environment = dict(os.environ)
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(num_threads)
        environment["TOKENIZERS_PARALLELISM"] = "false"
        # A worker that dies without a word leaves its last lines, and the place of a crash, in its log.
        environment["PYTHONUNBUFFERED"] = environment["PYTHONFAULTHANDLER"] = "1"
        if self._gpus:
            first = slot * self._num_devices
            chosen = [self._gpus[place % len(self._gpus)] for place in range(first, first + self._num_devices)]
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        return environment


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that workers may use, each as a value for `CUDA_VISIBLE_DEVICES`.

    Args:
        environment: Environment variables. As CUDA reads it, `CUDA_VISIBLE_DEVICES` ends at its first empty or
            negative entry.

    Returns:
        The entries of `CUDA_VISIBLE_DEVICES` where it is set, else the UUIDs that `nvidia-smi -L` lists (an index
        would depend on CUDA's order of devices), else nothing.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        try:
            listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return ()
        return listed_gpus(listing.stdout)
    entries: list[str] = []
    for entry in chosen.split(","):
        entry = entry.strip()
        if not entry or entry.startswith("-"):
            break
        entries.append(entry)
    return tuple(entries)


def listed_gpus(listing: str) -> tuple[str, ...]:
    """The UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG devices is given as those devices."""
    devices: list[str] = []
    for line in listing.splitlines():
        found = re.search(r"UUID: ([\w/-]+)\)", line)
        if found is None:
            continue
        if found[1].startswith("MIG-") and devices and devices[-1].startswith("GPU-"):
            devices.pop()
        devices.append(found[1])
    return tuple(devices)


def num_cores() -> int:
    """CPU cores that this process may use, at least 1: its affinity mask, bounded by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)
