"""How often a driver was asked to stop: by signals, or by `harness stop` from anywhere."""

from __future__ import annotations

import contextlib
import signal
import time
from types import FrameType, TracebackType
from typing import Any, Self

from harness.launch.presence import Presence

REPEAT_S = 1.0
"""Signals that follow faster are one wish to stop: a terminal and a launcher may both pass on one Ctrl-C."""


class StopRequests:
    """Counts requests in place of dying of them, within a `with` block; only a main thread gets signals.

    Args:
        presence: The driver's, where others ask it to stop.
    """

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._signals = 0
        self._last = -REPEAT_S
        self._before: dict[int, Any] = {}

    @property
    def count(self) -> int:
        """Requests so far."""
        return max(self._signals, int(self._presence.stop_requested))

    def __enter__(self) -> Self:
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup is a wish to go on
            numbers.append(signal.SIGHUP)
        with contextlib.suppress(ValueError):
            for number in numbers:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, previous in self._before.items():
            signal.signal(number, previous)

    def _note(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last >= REPEAT_S:
            self._signals = self.count + 1
        self._last = now
