"""What runs on a node of a Ray cluster: an actor that starts one worker, tells how it ended, and takes it along."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from harness.launch.executors import bound_process
from harness.launch.executors.devices import gpu_memory_gib, num_out_of_memory, visible_gpus


@dataclass(frozen=True)
class Order:
    """What an actor is to start.

    Attributes:
        command: The program with its arguments; a first word ``""`` stands for the node's own Python.
        log: The file that its output is appended to.
        folder: The working directory, for paths that are relative to it.
        environment: Added to the node's.
        grace_s: Seconds between SIGTERM and SIGKILL.
        keep_s: Seconds for which the end is there to be asked for, where no driver has removed the actor by then.
    """

    command: Sequence[str]
    log: str
    folder: str
    environment: Mapping[str, str]
    grace_s: float
    keep_s: float


@dataclass(frozen=True)
class Spot:
    """Where an actor is.

    Attributes:
        node: The id of its node.
        ip: The node's address.
        gpus: Its devices, as `CUDA_VISIBLE_DEVICES` has them.
        gpu_gib: The memory of the smallest of them; None where unknown.
    """

    node: str
    ip: str
    gpus: tuple[str, ...]
    gpu_gib: float | None


class WorkerActor:
    """Starts a worker and watches it; its methods are called through Ray, as many at a time as there are drivers.

    Args:
        order: What to start.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._process: subprocess.Popen[bytes] | None = None
        self._is_over = False
        self._lock = threading.Lock()
        self._end: Future[tuple[int | None, str, bool]] = Future()
        self._has_begun = threading.Event()
        threading.Thread(target=self._run, daemon=True, name="worker").start()
        self._has_begun.wait()  # a request to stop finds somebody to stop

    async def where(self) -> Spot:
        """Where it runs."""
        import ray

        context = ray.get_runtime_context()
        gpus = visible_gpus(os.environ) if context.get_accelerator_ids().get("GPU") else ()
        gib = await asyncio.to_thread(gpu_memory_gib, gpus)
        return Spot(context.get_node_id(), ray.util.get_node_ip_address(), gpus, gib)

    async def end(self) -> tuple[int | None, str, bool]:
        """Waits for the worker's end.

        Returns:
            The fields of :class:`harness.launch.executor.End`.
        """
        return await asyncio.shield(asyncio.wrap_future(self._end))

    async def stop(self, now: bool) -> None:
        """Asks the worker to save and end, and ends it when the grace is over.

        Args:
            now: Whether there is no grace.
        """
        if now:
            self._signal(signal.SIGKILL)
            return
        self._signal(signal.SIGTERM)
        timer = threading.Timer(self._order.grace_s, self._signal, [signal.SIGKILL])
        timer.daemon = True
        timer.start()

    def _run(self) -> None:
        """The life of the worker. The thread that starts it is the one it is bound to, so this one sees its end."""
        starved_before = num_out_of_memory()
        try:
            self._process = self._start()
        except OSError as error:
            self._end.set_result((None, f"the worker could not be started: {error}", False))
        finally:
            self._has_begun.set()
        if self._process is not None:
            code = self._reap(self._process)
            starved = num_out_of_memory() > starved_before
            words = "the kernel ended processes there for want of memory" if starved else ""
            self._end.set_result((code, words, starved and code in (None, -signal.SIGKILL)))
        time.sleep(self._order.keep_s)
        self._leave()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [word or sys.executable for word in self._order.command]
        # What Ray tells its own processes is not for the worker, which is none.
        node = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        with open(self._order.log, "ab") as log:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", bound_process.__file__, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._order.folder,
                env=node | dict(self._order.environment),
                start_new_session=True,
            )

    def _reap(self, process: subprocess.Popen[bytes]) -> int | None:
        """The exit code; None where somebody else has taken it, as a process that ignores its children lets happen."""
        try:
            # Left for a moment as it is, so that no signal can reach another process that was given its number.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._is_over = True
                code = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        except ChildProcessError:
            self._is_over, code = True, None
        process.returncode = 0 if code is None else code
        if code is None or code < 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what a killed worker had started is nobody's now
        return code

    def _signal(self, number: signal.Signals) -> None:
        with self._lock:
            if self._process is None or self._is_over:
                return
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if number == signal.SIGKILL:
                    os.killpg(self._process.pid, number)
                else:
                    os.kill(self._process.pid, number)

    def _leave(self) -> None:
        """Gives back what the actor holds, when its driver has died and no other has come."""
        import ray

        ray.kill(ray.get_runtime_context().current_actor)
