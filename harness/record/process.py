"""Which process something is, so that nobody takes another one for it: a number alone is given away again.

A process is named by host, boot, pid namespace, number and start time, by Linux's /proc. Elsewhere than on the same
boot of the same machine nothing can be said about it; :mod:`harness.record.pulse` then goes by its heartbeat.
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
PID_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True)
class ProcessId:
    """One process among all that were and will be.

    Attributes:
        host: The machine's name, for people; two containers may share it.
        boot_id: Of the machine since it was started; None where unknown.
        pid_namespace: Containers on one machine count their processes apart; None where unknown.
        pid: Its number.
        started: Its start in clock ticks since the boot, which no clock that is set changes; None where unknown.
    """

    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    started: int | None

    @classmethod
    def of(cls, pid: int) -> Self:
        """A process on this machine."""
        return cls(socket.gethostname(), boot_id(), _namespace(os.getpid()), pid, _started(pid))

    @classmethod
    def this(cls) -> Self:
        """The calling process."""
        return cls.of(os.getpid())

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """From what :meth:`as_json` gave.

        Raises:
            TypeError: It is something else.
        """
        return cls(**record)

    def as_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, on this boot of this machine and counted as ours are."""
        return (
            self.boot_id is not None
            and (self.host, self.boot_id) == (socket.gethostname(), boot_id())
            and self.pid_namespace == _namespace(os.getpid())
        )

    @property
    def is_alive(self) -> bool | None:
        """Whether it lives, which one that waits for its parent to look does not; None where nobody here can know."""
        if not self.is_here:
            return None
        status = _status(self.pid)
        if status is None:
            return False
        return status[0] not in "ZX" and (self.started is None or status[1] == self.started)


def age_s() -> float | None:
    """Seconds since the calling process was made, its interpreter's start included; None where unknown."""
    started = _started(os.getpid())
    if started is None:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")


def boot_id() -> str | None:
    """What tells one boot of this machine from the next; None if unknown."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


@lru_cache(maxsize=4)
def _namespace(pid: int) -> str | None:
    """Of the calling process; asked with its number, for a fork may be in another."""
    try:
        return os.readlink(PID_NAMESPACE)
    except OSError:
        return None


def _started(pid: int) -> int | None:
    status = _status(pid)
    return None if status is None else status[1]


def _status(pid: int) -> tuple[str, int] | None:
    """State letter and start time of a process; None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
