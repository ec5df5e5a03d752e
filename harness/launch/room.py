"""Room on the disk of a results folder: a sweep that runs out of it waits, and goes on once there is some again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from harness.record.failures import is_disk_full

LOOK_S = 2.0
LONGEST_S = 60.0
ENOUGH_BYTES = 64 << 20
"""Free bytes below which a full disk is not worth another try; a quota is found out by writing that much."""


class Room:
    """Whether there is room.

    Args:
        results: The results folder.
        enough_bytes: What is room.
    """

    def __init__(self, results: Path, enough_bytes: int = ENOUGH_BYTES) -> None:
        self._results = results
        self._enough = min(enough_bytes, shutil.disk_usage(results).total // 4)
        self._next_look = 0.0
        self._patience_s = LOOK_S
        self._ran_out_at = -LONGEST_S
        self.waiting = False

    def ran_out(self, tell: Callable[[str], None]) -> None:
        """A write has failed for want of room: nothing is started until there is some.

        Args:
            tell: Takes one line, the first time.
        """
        if self.waiting:
            return
        now = time.monotonic()
        # Room that is soon gone again is looked for less and less often.
        again = now - self._ran_out_at < 2 * LONGEST_S
        self._patience_s = min(2 * self._patience_s, LONGEST_S) if again else LOOK_S
        self._ran_out_at = now
        self._next_look = now + self._patience_s
        tell(f"paused: the disk of {self._results} is full; the sweep goes on by itself once there is room")
        self.waiting = True

    def is_there(self, tell: Callable[[str], None]) -> bool:
        """Whether workers may be started.

        Args:
            tell: Takes one line, when there is room again.
        """
        if self.waiting and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self._patience_s
            if self._can_write():
                self.waiting = False
                tell("going on: there is room on the disk again")
        return not self.waiting

    def _can_write(self) -> bool:
        if shutil.disk_usage(self._results).free < self._enough:
            return False
        probe = self._results / f".room.{os.getpid()}"
        try:
            with probe.open("wb") as stream:
                for _ in range(self._enough >> 20):
                    stream.write(bytes(1 << 20))
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if not is_disk_full(error):
                raise
            return False
        finally:
            probe.unlink(missing_ok=True)
        return True
