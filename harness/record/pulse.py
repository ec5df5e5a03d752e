"""Whether somebody still lives: by the process where it is ours to see, elsewhere by a file that it touches.

Clocks of two machines differ and are set back, so no time of another is compared with ours: a watcher notes when *it*
saw the file change last, by its own monotonic clock, and calls silent who has not changed it for as long as agreed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from harness.record.process import ProcessId


def beat(path: Path) -> None:
    """Shows a sign of life, by the file server's clock.

    Raises:
        FileNotFoundError: The file is gone: somebody else has taken over.
    """
    os.utime(path)


class Watch:
    """Remembers when files were last seen to change."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[int, float]] = {}
        self._changed: set[Path] = set()

    def silent_s(self, path: Path) -> float:
        """Seconds for which a file has been watched without changing; 0 at the first look, infinite where it is gone.

        Opens the file: a network file system may answer a mere look from its cache.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return float("inf")
        try:
            changed = os.fstat(descriptor).st_mtime_ns
        finally:
            os.close(descriptor)
        now = time.monotonic()
        before = self._seen.get(path)
        if before is None or before[0] != changed:
            if before is not None:
                self._changed.add(path)
            self._seen[path] = (changed, now)
            return 0.0
        return now - before[1]

    def has_changed(self, path: Path) -> bool:
        """Whether a file was seen to change while it was watched: somebody lives."""
        return path in self._changed

    def is_gone(self, process: ProcessId, pulse: Path, timeout_s: float) -> bool:
        """Whether a process is dead, or has been silent for so long that it may be taken for dead.

        Args:
            process: Who; known to be dead at once where it was one of this machine.
            pulse: The file that it touches.
            timeout_s: The silence that was agreed on, in seconds.
        """
        return process.is_alive is False or self.silent_s(pulse) > timeout_s


def seems_gone(process: ProcessId, pulse: Path, timeout_s: float) -> bool:
    """A guess at :meth:`Watch.is_gone` from one look, by the clocks; only to be shown, never to act on."""
    if process.is_alive is not None:
        return not process.is_alive
    try:
        return time.time() - pulse.stat().st_mtime > 2 * timeout_s
    except FileNotFoundError:
        return True


class Heart:
    """Beats in a thread of its own, for as long as the process runs at all.

    Args:
        path: The file to touch.
        every_s: Between two beats, in seconds.
        lost: Called once, in that thread, when the file is gone.
        look: Called at every beat, such as to find a request.
    """

    def __init__(
        self,
        path: Path,
        every_s: float,
        lost: Callable[[], object] | None = None,
        look: Callable[[], object] | None = None,
    ) -> None:
        self._path = path
        self._every_s = every_s
        self._lost = lost
        self._look = look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heart")
        self._thread.start()

    def stop(self) -> None:
        """No further beat."""
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(self._every_s):
            try:
                beat(self._path)
            except FileNotFoundError:
                if self._lost is not None:
                    self._lost()
                return
            except OSError:  # a full or failing disk: others may find this process silent, and they may be right
                pass
            if self._look is not None:
                self._look()
