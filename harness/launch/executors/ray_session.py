"""The connection to a Ray cluster: to one that is there, or to one that is started on this machine and ends with it."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from harness.errors import UserError
from harness.launch.executors.devices import num_cores

NAMESPACE = "harness"
CONNECT_S = 10.0
"""Ray itself tries for minutes to reach an address where nobody listens."""
OBJECT_STORE_BYTES = 80 << 20
"""Nothing is kept there; Ray wants 75 MB at least."""

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # a node's death comes with pages on the standard output, log_to_driver or not
}
_LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Ray's own switch for a cluster of one machine that listens on no address but the loopback."""


def import_ray() -> Any:
    """Ray, which is an extra.

    Raises:
        UserError: It is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"the ray executor needs Ray, which cannot be imported ({error}): pip install 'grpo-d-harness[ray]'"
        ) from error
    return ray


def open_session(address: str | None, *, with_gpus: bool) -> bool:
    """Connects to a cluster, or starts one here where no address is given and `RAY_ADDRESS` is not set.

    Args:
        address: As Ray takes it.
        with_gpus: Whether a cluster that is started here shall have the GPUs that are visible.

    Returns:
        Whether the session is the caller's to close; a connection that was there is used as it is.

    Raises:
        UserError: Ray is missing, or no cluster can be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with _environment(_QUIET | (_LOCAL if address == "local" else {})):
        ray = import_ray()
        if ray.is_initialized():
            return False
        options: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
        if address == "local":
            options |= _one_machine(with_gpus)
        else:
            _look_for(address)
        with _same_signals():
            try:
                ray.init(address, **options)
            except (OSError, RuntimeError, ValueError) as error:
                reason = str(error).strip().partition("\n")[0]
                raise UserError(f"no Ray cluster can be used at address '{address}': {reason}") from error
    # Said when an answer that nobody waits for any more is an error, as after the end of a node.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    return True


def _one_machine(with_gpus: bool) -> dict[str, Any]:
    return {
        "include_dashboard": False,
        "num_cpus": num_cores(),
        "num_gpus": None if with_gpus else 0,
        "object_store_memory": OBJECT_STORE_BYTES,
        "_system_config": {
            "prestart_worker_first_driver": False,  # a process per core, which no worker of ours is
            # Ray ends a process before memory runs out, without a word to it; the worker and its log tell more.
            "memory_monitor_refresh_ms": 0,
        },
    }


def _look_for(address: str) -> None:
    """Fails quickly where nobody listens.

    Raises:
        UserError: Nobody does, or this is no address.
    """
    if address == "auto":
        return
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UserError(f"'{address}' is no address of a Ray cluster: it is HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host, port), timeout=CONNECT_S).close()
    except OSError as error:
        raise UserError(f"no Ray cluster can be used at address '{address}': {error}") from error


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Sets variables that Ray reads at its import and start, but for those that the user has set."""
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _same_signals() -> Iterator[None]:
    """Keeps this process's answer to SIGTERM, which Ray puts its own in the place of."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
