"""The processes of a run on several devices: who starts them, where they meet, and that none outlives the others.

The process that was started as the worker is the first; it starts the others. They inherit its log and its process
group, so whoever starts, stops or kills a worker need not know how many processes it has, and its exit code is the
run's. torchrun would put each process into a session of its own, where a kill of the worker's group misses it, and turn
every exit code into 1; processes that it started by hand are taken as they are.
"""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from harness.errors import ProcessLostError

MEMBER = "HARNESS_MEMBER"
"""Set in the environment of processes that another one started here."""

NEWS_S = 5.0
"""A process whose peer died learns it from a broken connection a moment before that peer's exit code is there."""

GRACE_S = 15.0
"""Some connections never break; a first process that has not noticed the end of another by then is ended."""

REGULAR = (0, 128 + signal.SIGTERM)


class Group:
    """A run's processes on this machine, as one of them sees them; made by :func:`open_group`.

    Args:
        listener: In the first process, the socket at which all meet; else None.
        members: In the first process, the others.
    """

    def __init__(
        self,
        listener: socket.socket | None = None,
        members: Sequence[subprocess.Popen[bytes]] = (),
        *,
        led: bool = False,
    ) -> None:
        self._listener = listener
        self._members = members
        self._led = led
        self._ends: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._noticed = threading.Event()
        for rank, member in enumerate(members, start=1):
            threading.Thread(target=self._watch, args=(rank, member), daemon=True).start()
        if led:
            threading.Thread(target=_end_with_leader, daemon=True).start()

    def take_listener(self) -> int | None:
        """The file descriptor of the listening socket, whose owner the caller becomes; None where there is none."""
        return None if self._listener is None else self._listener.detach()

    def reason(self, error: Exception) -> Exception:
        """What ended a process that caught an error: the end of another, where that is behind a broken connection.

        In a process that was started by the first and has lost it, this does not return.
        """
        if not isinstance(error, RuntimeError):
            self._noticed.set()
            return error
        if self._led:
            time.sleep(NEWS_S)  # long enough for the other thread to see the first process gone
        if not self._members:
            return error
        try:
            rank, code = self._ends.get(timeout=NEWS_S)
        except queue.Empty:
            return error
        finally:
            self._noticed.set()
        return ProcessLostError(self._end_sentence(rank, code))

    def close(self) -> None:
        """Ends the other processes and waits for them; to be called last."""
        self._noticed.set()
        for member in self._members:
            assert member.stdin is not None
            member.stdin.close()
        for member in self._members:
            try:
                member.wait(timeout=NEWS_S)
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()

    def _watch(self, rank: int, member: subprocess.Popen[bytes]) -> None:
        code = member.wait()
        if code in REGULAR:
            return
        self._ends.put((rank, code))
        if not self._noticed.wait(GRACE_S):
            print(self._end_sentence(rank, code), file=sys.stderr, flush=True)
            os._exit(1)

    def _end_sentence(self, rank: int, code: int) -> str:
        end = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"process {rank} of 0 to {len(self._members)} {end}"


def open_group(num_processes: int, command: Sequence[str]) -> Group:
    """Starts the other processes of a run, where that is for this process to do.

    Each learns its place from the variables that torch reads: `RANK`, `WORLD_SIZE`, `MASTER_PORT` and their like.

    Args:
        num_processes: Processes that share the run.
        command: What a process is started with.
    """
    if os.environ.pop(MEMBER, None):
        return Group(led=True)
    if num_processes == 1 or "RANK" in os.environ:
        return Group()
    # Bound here and listening until it is used, so that no other run on this machine can get the same port.
    listener = socket.create_server(("127.0.0.1", 0), backlog=num_processes)
    os.environ |= {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(listener.getsockname()[1]),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the store is there, on the listener; nobody shall open a second one
    }
    members = []
    for rank in range(1, num_processes):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), MEMBER: "1"}
        # The pipe closes when the first process ends, however it does.
        members.append(subprocess.Popen([*command], stdin=subprocess.PIPE, env=os.environ | place))
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0"}
    return Group(listener, members)


def _end_with_leader() -> None:
    """Waits for the end of the first process, then ends this one at once: it may be waiting for the first forever."""
    # Not by `sys.stdin`, whose lock a thread that waits there would keep from an interpreter that shuts down.
    while os.read(0, 1):
        pass
    os._exit(1)
