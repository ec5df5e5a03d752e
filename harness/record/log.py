"""A log that may fail: what is printed where there is no room is lost, the run that prints it is not."""

from __future__ import annotations

import contextlib
import sys
from typing import Any, TextIO


class _Lenient:
    """A stream of text whose writes never raise for the disk's sake; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def print_leniently() -> None:
    """Has this process's standard output and error lose what cannot be written, instead of raising."""
    sys.stdout = _Lenient(sys.stdout)
    sys.stderr = _Lenient(sys.stderr)
