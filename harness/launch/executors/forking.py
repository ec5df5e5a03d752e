"""Workers forked from a process that has imported torch once; where that cannot be had, the caller starts them plainly.

A forked worker runs the same module with the same arguments, environment, session and log as one started by
``python -m``, and its results are the same to the bit. Only for Linux: elsewhere the system's own libraries may have
threads that a fork does not survive.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.launch.executor import End
from harness.launch.executors.fork_server import MAX_BYTES
from harness.launch.executors.local_process import AdoptedProcess
from harness.record.process import ProcessId
from harness.spec.names import METHODS, PROTOCOLS, TASKS

WORKER = "harness.worker"

PRELOADED = (
    WORKER,
    "harness.evaluate",
    "harness.policy",
    "harness.policy.families.qwen2_vl",
    "harness.policy.learning",
    "harness.tasks.example_pictures",
    "harness.train.loop",
    *sorted({place.split(":")[0] for names in (METHODS, TASKS, PROTOCOLS) for place in names.values()}),
    # What transformers brings in when it is asked for a model.
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.qwen2_vl.image_processing_pil_qwen2_vl",
    "transformers.models.qwen2_vl.modeling_qwen2_vl",
    "PIL.ImageDraw",
    "PIL.ImageFont",
)
"""What a worker comes to import on its way to the first step; one that is missing here costs time and nothing else.

wandb is none of them: it makes a temporary folder when it is imported, and the first child to end would remove it.
"""

SINGLE_THREADED: Mapping[str, str] = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy's OpenBLAS starts its threads when it is imported, and a process with threads must not be forked. Nothing here
computes with it; a plain worker gets the same, so that both are alike."""

PER_WORKER = frozenset({"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS"})
"""The variables that one worker may have otherwise than the next: no import has used them up, or a child makes up for
it."""

PATIENCE_S = 30.0
"""For the answer to an order and the word of a worker's end, which take milliseconds; no longer is waited for a server
that somebody stopped."""


class ForkServerError(Exception):
    """Nothing was forked and nothing will be of this order; the worker can be started plainly."""


class ForkServer:
    """The server's end in the driver; for one thread. It starts at once and is ready seconds later.

    Args:
        environment: What every worker has in its environment.
        module: What a worker runs.
        preloaded: What the server imports first; by default the module, and for the worker :data:`PRELOADED`.

    Raises:
        ForkServerError: Not on this system.
    """

    def __init__(
        self, environment: Mapping[str, str], module: str = WORKER, preloaded: Sequence[str] | None = None
    ) -> None:
        if not hasattr(os, "pidfd_open"):
            raise ForkServerError(f"workers are forked on Linux only, not on {sys.platform}")
        if preloaded is None:
            preloaded = PRELOADED if module == WORKER else (module,)
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - read when the server fails
        self._ready = self._lost = False
        self._children: dict[int, ForkedProcess] = {}
        self._answer: dict[str, Any] | None = None
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "harness.launch.executors.fork_server",
                    str(theirs.fileno()),
                    module,
                    *preloaded,
                ],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**environment, **SINGLE_THREADED},
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def is_ready(self) -> bool:
        """Whether it has imported everything and lives, as far as is known."""
        self._listen()
        return self._ready and not self._lost

    @property
    def is_lost(self) -> bool:
        """Whether it has ended; it is not started again."""
        self._listen()
        return self._lost

    def wait(self, timeout_s: float = 120.0) -> None:
        """Returns once it is ready.

        Raises:
            ForkServerError: It has ended, or is not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self._ready and not self._lost and time.monotonic() < deadline:
            self._hear(max(0.0, deadline - time.monotonic()))
        if not self.is_ready:
            raise ForkServerError(self._reason())

    def start(self, job_json: Path, changes: Mapping[str, str], log: Path, grace_s: float) -> ForkedProcess:
        """Forks a worker.

        Args:
            job_json: Its only argument.
            changes: What it has in its environment beside what all have: some of :data:`PER_WORKER`.
            log: Where its output is appended.
            grace_s: As :class:`harness.launch.executors.local_process.AdoptedProcess` has it.

        Raises:
            ForkServerError: The server is not ready, has ended or must not fork.
        """
        if not changes.keys() <= PER_WORKER:
            raise ValueError(f"a worker's own variables are {sorted(PER_WORKER)}, not {sorted(changes)}")
        if not self.is_ready:
            raise ForkServerError(self._reason())
        order = {"arguments": [str(job_json)], "environment": dict(changes), "log": str(log)}
        self._answer = None
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.send(json.dumps(order).encode())
        except OSError as error:
            raise ForkServerError(f"the fork server cannot be reached: {error}") from error
        deadline = time.monotonic() + PATIENCE_S
        while self._answer is None and not self._lost:
            if not self._hear(max(0.0, deadline - time.monotonic())):
                self._process.kill()  # or it might carry out the order after all
        if self._answer is None:
            raise ForkServerError(self._reason())
        if "error" in self._answer:
            raise ForkServerError(str(self._answer["error"]))
        worker = ForkedProcess(self, ProcessId.from_json(self._answer["process"]), grace_s)
        self._children[worker.pid] = worker
        return worker

    def close(self) -> None:
        """Ends the server and leaves its children alone."""
        if not self._lost:
            self._lose()
        self._output.close()

    def _listen(self) -> None:
        while not self._lost and self._hear(0.0):
            pass

    def _hear(self, timeout_s: float) -> bool:
        """Takes in one message, or the server's end; False where none of them came in time."""
        self._socket.settimeout(timeout_s)
        try:
            data = self._socket.recv(MAX_BYTES)
        except (TimeoutError, BlockingIOError):
            return False
        except ConnectionResetError:
            data = b""
        if not data:
            self._lose()
            return True
        message = json.loads(data)
        if "ready" in message:
            self._ready = True
        elif "code" in message:
            self._children.pop(message["pid"]).code = message["code"]
        else:
            self._answer = message
        return True

    def _lose(self) -> None:
        self._lost = True
        self._socket.close()
        self._process.kill()  # its children are no part of it
        self._process.wait()

    def _reason(self) -> str:
        if not self._lost:
            return "the fork server is not ready"
        if self._output.closed:
            return "the fork server was closed"
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {self._process.returncode}")
        return f"the fork server has ended: {last}"


class ForkedProcess(AdoptedProcess):
    """A worker that the fork server started; made by :meth:`ForkServer.start`.

    Args:
        server: Which one.
        process: Itself.
        grace_s: Seconds between SIGTERM and SIGKILL.

    Attributes:
        code: Its exit code, minus the signal's number where a signal ended it; None until the server has told.
    """

    def __init__(self, server: ForkServer, process: ProcessId, grace_s: float) -> None:
        super().__init__(process, grace_s)
        self.code: int | None = None
        self._server = server
        self._end: End | None = None
        self._gone_since: float | None = None

    def poll(self) -> End | None:
        """How it ended, with no code where the server ended before it; kills what a killed worker had started."""
        if self._end is None:
            gone = super().poll()  # looked at first: whoever is gone by now has been told of, if there was a server
            is_lost = self._server.is_lost
            if self.code is not None:
                if self.code < 0:
                    self._kill_group()
                self._end = End(self.code)
            elif gone is not None:
                self._gone_since = self._gone_since or time.monotonic()
                if is_lost or time.monotonic() - self._gone_since > PATIENCE_S:
                    self._end = End(None, "the fork server told nothing of its end")
        return self._end
