"""A process of this machine that is watched and stopped: one's own child, or one that an earlier driver left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import Protocol

from harness.launch.executor import End
from harness.record.process import ProcessId


class Process(Protocol):
    """A process that leads a session of its own: a terminal's Ctrl-C reaches the driver alone."""

    @property
    def id(self) -> ProcessId:
        """Which one."""

    @property
    def pid(self) -> int:
        """The process id; also the id of its group."""

    def poll(self) -> End | None:
        """How it ended; None while it lives."""

    def stop(self) -> None:
        """SIGTERM; SIGKILL to its whole group when the grace is over or on a second call."""


class AdoptedProcess:
    """One that is no child of this process: that it has ended can be seen, its exit code cannot.

    Args:
        process: Which one.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, process: ProcessId, grace_s: float) -> None:
        self.id = process
        self._grace_s = grace_s
        self._deadline: float | None = None

    @property
    def pid(self) -> int:
        """The process id; also the id of its group."""
        return self.id.pid

    def poll(self) -> End | None:
        """How it ended; kills a worker that outlived its grace."""
        if not self.id.is_alive:
            return End(None, "")
        if self._deadline is not None and time.monotonic() > self._deadline:
            self._kill_group()
        return None

    def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        if not self.id.is_alive:
            return
        if self._deadline is None:
            self._deadline = time.monotonic() + self._grace_s
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        else:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class LocalProcess(AdoptedProcess):
    """A child of this process.

    Args:
        process: The child.
        grace_s: Seconds between SIGTERM and SIGKILL.
    """

    def __init__(self, process: subprocess.Popen[bytes], grace_s: float) -> None:
        super().__init__(ProcessId.of(process.pid), grace_s)
        self._child = process
        self._end: End | None = None

    def poll(self) -> End | None:
        """How it ended; kills a worker that outlived its grace, and what a killed worker had started."""
        if self._end is None:
            code = self._child.poll()
            if code is None:
                super().poll()
                return None
            if code < 0:
                self._kill_group()
            self._end = End(code)
        return self._end
