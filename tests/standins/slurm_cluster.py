"""What the tests against a real SLURM do with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from harness.launch.executor import End, Launch, Worker

HERE = Path(__file__).parents[1] / "slurm"
WORKER = (sys.executable, str(HERE / "worker.py"))


class Cluster:
    """The SLURM of two nodes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def squeue(self, form: str) -> list[str]:
        command = ["squeue", "--states=all", "--array", "--noheader", f"--format={form}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    def submit(self, *options: str) -> str:
        """Queues a job that is none of ours."""
        command = ["sbatch", "--parsable", "--output=/dev/null", *options]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def lose(self, node: str) -> None:
        """What a power cut does to a node: its daemon and all that it started are killed."""
        slurmd = psutil.Process(int((self.folder / f"slurmd-{node}.pid").read_text()))
        ours = [one for one in psutil.process_iter(["environ"]) if _belongs_to(one, node)]
        daemons = {parent for one in ours for parent in one.parents() if parent.name().startswith("slurmstepd")}
        for one in (slurmd, *daemons, *ours):
            try:
                one.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue

    def restore(self, node: str) -> None:
        """Starts a node's daemon again."""
        subprocess.run([HERE / "cluster.sh", "node", self.folder, node], check=True)
        wait_until(lambda: self.is_idle(node), 60)

    def is_idle(self, node: str) -> bool:
        command = ["sinfo", "--noheader", f"--nodes={node}", "--partition=low", "--format=%t"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "idle"


def _belongs_to(process: psutil.Process, node: str) -> bool:
    try:
        return (process.environ() or {}).get("SLURMD_NODENAME") == node
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def attempts(launch: Launch) -> list[dict[str, Any]]:
    """What the worker noted at each of its starts."""
    file = launch.folder.path / "attempts.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def end_of(worker: Worker, seconds: float = 60.0) -> End:
    wait_until(worker.poll, seconds)
    end = worker.poll()
    assert end is not None
    return end
