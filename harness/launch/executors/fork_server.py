"""A process that has imported what a worker imports, and forks: its children are at work where others still import.

Started by :mod:`harness.launch.executors.forking` as ``python -m harness.launch.executors.fork_server FD MODULE
NAME...``: it imports the names, then runs the module as ``python -m MODULE`` would in a child for every order that it
gets, and tells how each child ended. FD is a Unix socket to the driver; each message is one JSON object::

    driver: {"arguments": [...], "environment": {...}, "log": path}
    server: {"ready": true}                          once, when everything is imported
    server: {"process": {...}} or {"error": reason}  to each order
    server: {"pid": n, "code": c}                    when a child has ended, its code as subprocess has it

It ends with the driver's end of the socket; its children go on.

The standard library's multiprocessing.forkserver is not used: its children unpickle an object in place of running a
module, import the driver's main module again, share the driver's session (and its Ctrl-C), cannot be given a log, and
are waited for or killed when the driver exits.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import socket
import sys
from collections.abc import Mapping
from typing import Any

from harness.record.process import ProcessId

MAX_BYTES = 1 << 17
"""Of one message; an order holds two paths and a few variables."""

Stamps = Mapping[str, "tuple[int, int] | None"]
"""What a change of a file changes, by path; see :func:`stamp`."""


def main() -> None:
    """Imports, then serves; in a child, runs the module and ends as that does."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    module, *names = sys.argv[2:]
    for name in names:
        importlib.import_module(name)
    code = stamps(module.partition(".")[0])
    reason = unfit(code)
    if reason is not None:
        sys.exit(reason)
    # What is there by now stays: a child that collected garbage among it would copy every page of it.
    gc.collect()
    gc.freeze()
    send(connection, {"ready": True})
    order = serve(connection, code)
    if order is not None:
        run_as_main(module, order)


def stamps(package: str) -> Stamps:
    """Of every file that was imported from a package."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == package]
    return {file: stamp(file) for file in (getattr(module, "__file__", None) for module in modules) if file}


def stamp(file: str) -> tuple[int, int] | None:
    """A file's time of change and size; None where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def unfit(code: Stamps) -> str | None:
    """Why this process must not fork; None where it may.

    A child has the forking thread alone, so a lock that another one holds stays locked in it for ever; CUDA cannot be
    used in a child of a process that uses it; and code that was edited since would be mixed with what is imported.
    """
    num_threads = len(os.listdir("/proc/self/task"))
    if num_threads > 1:
        return f"{num_threads} threads run in the fork server"
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return "CUDA was started in the fork server"
    changed = next((file for file, known in code.items() if stamp(file) != known), None)
    return None if changed is None else f"{changed} has changed since the fork server imported it"


def has_lost_cuda() -> bool:
    """Whether this is a child that cannot use CUDA: counting the devices is enough for that, but shows in a child only.

    torch has no public name for it.
    """
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


def send(connection: socket.socket, message: Mapping[str, Any]) -> None:
    """One message."""
    connection.send(json.dumps(message).encode())


def serve(connection: socket.socket, code: Stamps) -> dict[str, Any] | None:
    """Takes orders until the driver is gone; returns None then, and in each child the order that it is for."""
    children: dict[int, int] = {}  # a descriptor that becomes readable with the child's end -> its pid
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            try:
                if descriptor in children:
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    pid = children.pop(descriptor)
                    send(connection, {"pid": pid, "code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])})
                    continue
                message = connection.recv(MAX_BYTES)
                if not message:
                    return None
                order = json.loads(message)
                child = fork(connection, order["log"], code)
            except (BrokenPipeError, ConnectionResetError):
                return None
            if child == 0:
                for other in children:
                    os.close(other)
                return order
            if child is not None:
                watched = os.pidfd_open(child)
                children[watched] = child
                poll.register(watched, select.POLLIN)


def fork(connection: socket.socket, log: str, code: Stamps) -> int | None:
    """Forks a child that leads a session of its own and prints to the end of a log.

    Returns:
        The child's pid; 0 in the child; None where the driver was told why there is none.
    """
    reason = unfit(code)
    if reason is not None:
        send(connection, {"error": reason})
        return None
    ours, theirs = socket.socketpair()
    try:
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        pid = os.fork()
    except OSError as error:
        send(connection, {"error": str(error)})
        return None
    if pid == 0:
        ours.close()
        connection.close()
        os.setsid()
        for standard in (1, 2):
            os.dup2(output, standard)
        os.close(output)
        theirs.send(b"!" if has_lost_cuda() else b".")
        if not theirs.recv(1):
            os._exit(1)  # the server died before anybody was told of this process
        theirs.close()
        return 0
    theirs.close()
    os.close(output)
    word = ours.recv(1)
    if word != b".":
        ours.close()
        os.waitpid(pid, 0)
        send(connection, {"error": "CUDA was started in the fork server" if word else f"the child died, see {log}"})
        return None
    # The child leads its group by now, so whoever knows it may signal that.
    send(connection, {"process": ProcessId.of(pid).as_json()})
    with contextlib.suppress(BrokenPipeError):  # killed already
        ours.send(b".")
    ours.close()
    return pid


def run_as_main(module: str, order: Mapping[str, Any]) -> None:
    """Runs a module as ``python -m`` does, in the order's environment."""
    os.environ.update(order["environment"])
    torch = sys.modules.get("torch")
    if torch is not None and "OMP_NUM_THREADS" in order["environment"]:
        torch.set_num_threads(int(order["environment"]["OMP_NUM_THREADS"]))  # read once, when torch was imported
    sys.argv[1:] = order["arguments"]
    sys.modules.pop(module, None)  # as in a plain start, it is __main__ and nothing else
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
