"""What is left of a worker that died without a word: its exit code and the end of its log."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from harness.record.folder import RunFolder
from harness.record.state import RunState, mark_failed

TAIL_BYTES = 16384
SIGNAL_HINTS = {
    "SIGKILL": "killed by hand or for memory",
    "SIGSEGV": "a crash in native code",
    "SIGABRT": "a crash in native code",
    "SIGBUS": "a crash in native code, or the disk is full",
}


def record_silent_end(folder: RunFolder, code: int, log_lines: Sequence[str]) -> RunState:
    """Marks the run failed, with the end of its log in place of a traceback.

    Args:
        folder: The run's.
        code: The exit code; minus the signal's number where a signal ended the worker.
        log_lines: The last lines of its log.

    Returns:
        The state written.
    """
    return mark_failed(folder, end_sentence(code, log_lines), detail="\n".join(log_lines) or None)


def end_sentence(code: int, log_lines: Sequence[str]) -> str:
    """How a worker ended, such as ``"the worker was ended by SIGKILL (killed by hand or for memory)"``.

    Args:
        code: As :func:`record_silent_end` has it.
        log_lines: The last one is quoted where no signal explains the end.
    """
    if code < 0:
        name = signal_name(-code)
        hint = SIGNAL_HINTS.get(name)
        return f"the worker was ended by {name}" + (f" ({hint})" if hint else "")
    sentence = f"the worker ended with exit code {code} and left no complete summary"
    return sentence + (f"; its last words: {log_lines[-1].strip()}" if log_lines else "")


def signal_name(number: int) -> str:
    """Such as ``"SIGKILL"``; a number that this system does not name stays a number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def log_tail(path: Path, start: int = 0, num_lines: int = 20) -> list[str]:
    """The last lines that are not blank of a log, from a byte offset on; empty where there is no log."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(start, os.fstat(stream.fileno()).st_size - TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-num_lines:]
