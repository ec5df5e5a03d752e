"""Is this completion equal to that solution? math_verify's verdict, on text nobody trusts.

A completion may hold a power with more digits than there is memory, or LaTeX that never stops parsing.
math_verify bounds its own time with SIGALRM, which fails off the main thread and cannot interrupt C code, so it runs in
one long-lived child process per :class:`Checker`, bounded from outside.

Departure from R1-V: one bound covers a pair, where R1-V lets math_verify take five seconds for every parse and every
comparison. R1-V caps neither the length of a text nor the memory. The length is not capped here either, because a
shortened text could change a verdict; the child's address space is held to 4 GiB where the system allows it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import RunError

_SCRIPT = Path(__file__).with_name("checker.py")
_START_S = 120.0

# Wall seconds that a pair may take for each second of its bound. The bound itself counts CPU time, so that a busy
# machine changes no verdict; this one catches a child that waits or was stopped.
_WALL_FACTOR = 10.0


class Check(NamedTuple):
    """What math_verify says of one pair.

    Attributes:
        verified: Whether the completion's value equals the solution's.
        extracted: The piece of the completion that was compared; None where nothing was found or the pair was given up.
    """

    verified: bool
    extracted: str | None


class Checker:
    """Runs ``verify(parse(completion), parse(solution))`` in a child process, as R1-V calls it.

    The child starts with :meth:`start` or the first check that needs it, and ends with :meth:`close`, with this object,
    or with this process, however that ends. Threads may share a checker; a forked process that inherits one gets a
    child of its own. An exception inside math_verify means "not verified", as in R1-V.

    Args:
        timeout_s: Bound per pair, in seconds of the child's CPU time, > 0. Ten times as much on the wall clock.
        max_cached: How many results are kept, the least recently used go first.

    Attributes:
        num_timeouts: Pairs given up and so not verified: over the bound, or twice the death of the child.
    """

    def __init__(self, timeout_s: float = 5.0, max_cached: int = 4096) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be > 0, not {timeout_s}")
        self.timeout_s = timeout_s
        self.num_timeouts = 0
        self._max_cached = max_cached
        self._cache: OrderedDict[tuple[str, str], Check] = OrderedDict()
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._ender: weakref.finalize[[], Checker] | None = None
        _checkers.add(self)

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        child = self._child
        return None if child is None else child.process.pid

    def verdicts(self, pairs: Sequence[tuple[str, str]]) -> list[bool]:
        """Whether each completion equals its solution.

        Args:
            pairs: ``(completion, solution)``, each a whole text.

        Returns:
            One verdict per pair, in order.

        Raises:
            RunError: The child cannot be started, for instance because math_verify is not installed.
        """
        return [check.verified for check in self.checks(pairs)]

    def checks(self, pairs: Sequence[tuple[str, str]]) -> list[Check]:
        """As :meth:`verdicts`, with the piece of each completion that was compared."""
        with self._lock:
            unknown = [pair for pair in dict.fromkeys(pairs) if pair not in self._cache]
            results = dict(zip(unknown, self._ask(unknown), strict=True))
            for pair in pairs:
                if pair not in results:
                    results[pair] = self._cache[pair]
                self._cache[pair] = results[pair]
                self._cache.move_to_end(pair)
            while len(self._cache) > self._max_cached:
                self._cache.popitem(last=False)
            return [results[pair] for pair in pairs]

    def start(self) -> None:
        """Starts the child and does not wait for it: math_verify takes longer to import than the first rollout."""
        with self._lock:
            if self._child is None:
                self._start_child()

    def close(self) -> None:
        """Ends the child; a later check starts another one."""
        with self._lock:
            self._end_child()

    def __enter__(self) -> Checker:
        """Returns itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Closes."""
        self.close()

    def _ask(self, pairs: Sequence[tuple[str, str]]) -> list[Check]:
        checks: list[Check] = []
        deaths = 0
        while len(checks) < len(pairs):
            child = self._ready_child()
            try:
                child.send(pairs[len(checks) :])
                while len(checks) < len(pairs):
                    verified, extracted = child.receive(self.timeout_s * _WALL_FACTOR)
                    checks.append(Check(verified, extracted))
                    deaths = 0
            except _ChildEndedError as ended:
                self._end_child()
                deaths += 1
                # A death of another cause may be a stray kill: the pair gets a second child.
                if ended.timed_out or deaths == 2:
                    self.num_timeouts += 1
                    checks.append(Check(False, None))
                    deaths = 0
            except BaseException:
                # Answers are still under way: the next caller must not read them as its own.
                self._end_child()
                raise
        return checks

    def _start_child(self) -> _Child:
        self._child = _Child(self.timeout_s)
        self._ender = weakref.finalize(self, self._child.end)
        return self._child

    def _ready_child(self) -> _Child:
        for _ in range(2):
            child = self._child or self._start_child()
            if child.is_ready:
                return child
            try:
                hello = child.receive(_START_S)
            except _ChildEndedError:
                self._end_child()
                continue
            except BaseException:
                self._end_child()
                raise
            if "error" in hello:
                self._end_child()
                raise RunError(f"the answer checker cannot start: {hello['error']}")
            child.is_ready = True
            return child
        raise RunError(f"the answer checker died twice before its first answer ({sys.executable} {_SCRIPT.name})")

    def _end_child(self) -> None:
        if self._ender is not None:
            self._ender()
        self._child = self._ender = None

    def _after_fork(self) -> None:
        # Another thread of the parent may have held the lock.
        self._lock = threading.Lock()
        if self._child is not None and self._ender is not None:
            self._ender.detach()
            self._child.forget()
        self._child = self._ender = None


class _ChildEndedError(Exception):
    def __init__(self, timed_out: bool) -> None:
        self.timed_out = timed_out


class _Child:
    """One child process and the two pipes to it."""

    def __init__(self, timeout_s: float) -> None:
        self._owner = os.getpid()
        self._buffer = b""
        self.is_ready = False
        # A fixed hash seed, because the order of sympy's sets follows it; -P keeps this folder off the child's path.
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_SCRIPT), str(timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._requests, self._answers = self.process.stdin, self.process.stdout
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN | select.POLLHUP)

    def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Sends a whole batch; the child answers nothing before it has read all of it, so neither side can block."""
        data = memoryview(json.dumps(pairs).encode() + b"\n")
        try:
            while data:
                data = data[os.write(self._requests.fileno(), data) :]
        except BrokenPipeError:
            raise _ChildEndedError(timed_out=False) from None

    def receive(self, wall_s: float) -> Any:
        """The next answer.

        Raises:
            _ChildEndedError: The child has died or has not answered in time.
        """
        deadline = time.monotonic() + wall_s
        pieces = [self._buffer]
        while b"\n" not in pieces[-1]:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                raise _ChildEndedError(timed_out=True)
            piece = os.read(self._answers.fileno(), 1 << 16)
            if not piece:
                raise _ChildEndedError(timed_out=self.process.wait() == -signal.SIGPROF)
            pieces.append(piece)
        line, _, self._buffer = b"".join(pieces).partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        """Kills the child and waits for it; harmless when repeated, and in a process that did not start it."""
        if os.getpid() != self._owner:
            return
        self.process.kill()
        self.process.wait()
        self._requests.close()
        self._answers.close()

    def forget(self) -> None:
        """Drops a fork's copies of the pipes; the child belongs to the parent."""
        self._requests.close()
        self._answers.close()
        # Popen would warn that its child is still running.
        self.process.returncode = 0


_checkers: weakref.WeakSet[Checker] = weakref.WeakSet()


def _after_fork() -> None:
    for checker in list(_checkers):
        checker._after_fork()


os.register_at_fork(after_in_child=_after_fork)

_default = Checker()


def default_checker() -> Checker:
    """The checker that this process shares; its child starts with the first check."""
    return _default
