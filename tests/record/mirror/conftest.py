"""Runs as a worker records them, and the environment that W&B works in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import recorded_run
import wandb
from wandb_server import Server

from harness.record import RunFolder
from harness.spec import Job, RunSpec

Work = Callable[..., "subprocess.CompletedProcess[str]"]

RECORD = Path(recorded_run.__file__)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    spec = RunSpec(model="Qwen/Qwen2-VL-2B-Instruct", method={"type": "grpo"}, source="counting", seed=3)
    return Job(spec=spec, targets=("counting", "geometry"), results=str(tmp_path / "results"), sweep="quickstart")


@pytest.fixture
def folder(job: Job) -> RunFolder:
    return RunFolder(job.results, job.spec.run_id)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An environment where nobody is logged in to W&B, for this process and for workers."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb_config"))
    wandb.teardown()  # it would keep what the environment said the first time
    yield
    wandb.teardown()


@pytest.fixture
def work(environment: None) -> Work:
    """Records training steps `first` to `stop` in a process of its own, and how the attempt ends."""

    def work(
        job: Job, first: int = 0, stop: int = 4, end: str = "completed", **more: str
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(RECORD), job.model_dump_json(), str(first), str(stop), end]
        return subprocess.run(
            command, env={**os.environ, **more}, capture_output=True, text=True, timeout=100, check=False
        )

    return work


@pytest.fixture
def server(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that one is logged in to."""
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        yield server
        assert server.unknown == []
