"""The child process that runs math_verify on text nobody trusts; :mod:`harness.tasks.checking` starts it as a script.

Standard input: one JSON list of ``[completion, solution]`` pairs per line. Standard output: ``{"ready": true}`` or
``{"error": text}`` once, then one JSON line ``[verified, extracted]`` per pair, in order. It ends when its input ends.
It imports nothing of this package, so it starts in the time that math_verify needs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

_MEMORY_BYTES = 4 * 1024**3

# Sent to a whole process group or SLURM step: the parent decides when to stop, and closes our input.
_PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """Answers requests until the input ends; the first argument is the bound per pair in CPU seconds."""
    limit_s = float(sys.argv[1])
    for number in _PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # The default action ends the process even inside C code, where a Python handler would never get its turn.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    _bound_memory()
    answers = _private_stdout()
    try:
        check = _load_check()
    except Exception as error:
        _send(answers, {"error": f"{type(error).__name__}: {error}"})
        return
    _send(answers, {"ready": True})
    for request in sys.stdin.buffer:
        for completion, solution in json.loads(request):
            signal.setitimer(signal.ITIMER_PROF, limit_s)
            try:
                answer = check(completion, solution)
            except Exception:
                answer = (False, None)
            signal.setitimer(signal.ITIMER_PROF, 0)
            _send(answers, answer)


def _bound_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MEMORY_BYTES)
    # macOS has the name but refuses the limit.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _private_stdout() -> int:
    """Keeps the answer pipe to ourselves: what a library prints goes to standard error."""
    answers = os.dup(1)
    os.dup2(2, 1)
    return answers


def _load_check() -> Callable[[str, str], tuple[bool, str | None]]:
    from math_verify import parse, verify

    # math_verify's own bounds raise inside Python code only; the timer in main() bounds everything.
    read: Callable[[str], list[Any]] = functools.partial(parse, parsing_timeout=None)
    read_solution = functools.lru_cache(maxsize=256)(read)

    def check(completion: str, solution: str) -> tuple[bool, str | None]:
        found = read(completion)
        # R1-V's order: the completion stands where math_verify expects the gold answer.
        verified = bool(verify(found, read_solution(solution), timeout_seconds=None))
        # The text that was matched, not str() of the expression: printing a huge power may never end.
        return verified, next((item for item in reversed(found) if isinstance(item, str)), None)

    return check


def _send(answers: int, message: object) -> None:
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(answers, data) :]


if __name__ == "__main__":
    main()
