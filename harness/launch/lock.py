"""Who works on a run: an exclusive lock on its folder, so that no two drivers train one run at the same time.

The lock is an flock on `<run folder>/lock`. The worker inherits the open file, so the lock stays held while either the
driver or the worker lives: a worker whose driver was killed is still seen as running. The kernel drops the lock with
the last process, so nothing stale is ever left to clean up. The file itself stays and is empty.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

LOCK_FILE = "lock"


class RunLock:
    """A lock that is held; made by :func:`take_lock`."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def fileno(self) -> int:
        """The open file, for a worker to inherit."""
        return self._fd

    def release(self) -> None:
        """Lets go of this process's share; a worker that inherited the lock keeps its own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def take_lock(run_folder: Path) -> RunLock | None:
    """The lock of a run folder, which is made where it is missing; None while another process holds the lock."""
    run_folder.mkdir(parents=True, exist_ok=True)
    fd = os.open(run_folder / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return RunLock(fd)


def is_locked(run_folder: Path) -> bool:
    """Whether some process holds the lock of a run folder; looks without writing."""
    try:
        fd = os.open(run_folder / LOCK_FILE, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two onlookers never see each other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
