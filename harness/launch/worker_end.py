"""What is left of a worker that died without a word: its exit code and the end of its log."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

MEMORY_WORDS = ("oom_kill", "oom-kill", "out of memory: killed process", "memory cgroup out of memory")
TAIL_BYTES = 16384
SIGNAL_HINTS = {
    "SIGKILL": "killed by hand or for memory",
    "SIGSEGV": "a crash in native code",
    "SIGABRT": "a crash in native code",
    "SIGBUS": "a crash in native code, or the disk is full",
}


def end_sentence(code: int | None, log_lines: Sequence[str], words: str = "") -> str:
    """How a worker ended, such as ``"the worker was ended by SIGKILL (killed by hand or for memory)"``.

    Args:
        code: The exit code; minus the signal's number where a signal ended the worker; None where nobody knows it.
        log_lines: The last one is quoted where no signal explains the end.
        words: What the executor heard about it.
    """
    if code is None:
        return "the worker was lost" + (f": {words}" if words else "")
    if code < 0:
        name = signal_name(-code)
        hint = words or SIGNAL_HINTS.get(name)
        return f"the worker was ended by {name}" + (f" ({hint})" if hint else "")
    sentence = f"the worker ended with exit code {code} and left no complete summary"
    return sentence + (f"; its last words: {log_lines[-1].strip()}" if log_lines else "")


def tells_of_memory(log_lines: Sequence[str]) -> bool:
    """Whether the end of a log says that a process was ended for want of memory, as the kernel and SLURM put it."""
    return any(word in line.lower() for line in log_lines for word in MEMORY_WORDS)


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
