"""What the tests against a real SLURM share. `make test-slurm` starts one of two nodes, `n1` and `n2`, by `cluster.sh`;
`HARNESS_SLURM_TEST` is its folder. Where that is not set they are skipped."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import WORKER, Cluster, wait_until

import harness
from harness.launch.executor import Demand, Launch
from harness.launch.executors.slurm import SlurmExecutor
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.spec import Execution, Job, RunSpec
from harness.spec.executor import ExecutorSettings

CLUSTER = os.environ.get("HARNESS_SLURM_TEST")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("slurm") and not CLUSTER:
            item.add_marker(pytest.mark.skip(reason="needs a SLURM that is started for it: make test-slurm"))


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs find the package whether or not it is installed."""
    monkeypatch.setenv("PYTHONPATH", str(Path(harness.__file__).parents[1]))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Empty before and after, with both nodes there."""
    assert CLUSTER
    cluster = Cluster(Path(CLUSTER))

    def clear() -> None:
        subprocess.run(["scancel", "--me"], check=True)
        wait_until(lambda: cluster.is_idle("n1") and cluster.is_idle("n2"), 60)

    clear()
    yield cluster
    clear()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def launch(results: Path) -> Callable[..., Launch]:
    """A launch of the small worker, told what to do."""

    def make(seed: int, behaviour: str, host_gib: float | None = None, **fields: Any) -> Launch:
        spec = RunSpec(method="sft", source="counting", seed=seed)
        folder = RunFolder(results, spec.run_id)
        folder.path.mkdir(parents=True)
        (folder.path / "behaviour.txt").write_text(behaviour)
        job = Job(spec=spec, targets=("counting",), results=str(results), sweep="small", **fields)
        return Launch(job, folder, Demand(host_gib=host_gib), Files(folder.path))

    return make


@pytest.fixture
def make_executor() -> Iterator[Callable[..., SlurmExecutor]]:
    """Executors of the small worker."""
    made: list[SlurmExecutor] = []

    def make(**settings: Any) -> SlurmExecutor:
        settings = ExecutorSettings(type="slurm", **{"cpus": 2, "grace_s": 5, **settings})
        made.append(SlurmExecutor(settings, Execution(device="cpu"), WORKER))
        return made[-1]

    yield make
    for executor in made:
        executor.close()
