"""A cluster of this machine for the time of a sweep, and addresses where there is none."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from harness.errors import UserError
from harness.launch.executor import Launch
from harness.launch.executors.ray import RayExecutor
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

from .conftest import CLUSTER_ENVIRONMENT, HERE, about, lives, wait_until


@pytest.fixture
def driver(launch: Callable[..., Launch]) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any], Launch]]:
    """A driver with a cluster of its own and one worker, what it told, and that worker's launch."""
    one = launch("alone", num_threads=1)
    one.files.write_json(one.folder.job_json, one.job.model_dump(mode="json"))
    command = [sys.executable, str(HERE / "drive.py"), "", str(one.folder.job_json)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = CLUSTER_ENVIRONMENT["PYTHONPATH"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        try:
            yield process, json.loads(process.stdout.readline()), one
        finally:
            process.kill()


def agents_of(driver: int) -> set[int]:
    """The two processes of Ray that outlive its head for a while; none until both have taken their names."""
    children = psutil.Process(driver).children(recursive=True)
    agents = {child.pid for child in children if "Agent" in " ".join(child.cmdline())}
    return agents if len(agents) == 2 else set()


@pytest.mark.slow
def test_a_cluster_for_the_sweep_ends_with_it_and_nobody_else_can_reach_it(driver: Any) -> None:
    process, told, one = driver
    assert told["keeps_signals"] and "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in told["new"]
    started = psutil.Process(process.pid).children(recursive=True)
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for one_of_them in (psutil.Process(process.pid), *started)
        for connection in one_of_them.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 3 and set(listening) == {"127.0.0.1"}
    pids = {about(one)["pid"], *(one_of_them.pid for one_of_them in started)}
    output, _ = process.communicate()
    assert (process.returncode, output) == (0, "")
    wait_until(lambda: not any(map(lives, pids)))


@pytest.mark.slow
def test_nothing_is_left_of_a_driver_that_was_killed_with_a_cluster_of_its_own(driver: Any) -> None:
    process, _, one = driver
    agents = wait_until(lambda: agents_of(process.pid))
    pids = {about(one)["pid"], *(child.pid for child in psutil.Process(process.pid).children(recursive=True))} - agents
    assert len(pids) >= 4
    process.kill()
    wait_until(lambda: not any(map(lives, pids)))
    for pid in agents:  # they try to tell the head of the cluster for a minute
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()


def test_an_address_where_nobody_listens_is_refused_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    for address, said in ((f"127.0.0.1:{port}", "Connection refused"), ("somewhere", "HOST:PORT, ray://HOST:PORT")):
        with pytest.raises(UserError, match=said):
            RayExecutor(ExecutorSettings(type="ray", address=address), Execution(device="cpu"))
    assert time.monotonic() - began < 10


def test_a_machine_without_ray_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'grpo-d-harness\[ray\]'"):
        RayExecutor(ExecutorSettings(type="ray"), Execution(device="cpu"))
