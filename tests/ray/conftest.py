"""What the tests on a real Ray cluster share: one of a head and two nodes, all on the loopback of this machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness.launch.executor import Demand, End, Launch
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.spec import Execution, Job, RunSpec
from harness.spec.executor import ExecutorSettings

HERE = Path(__file__).parent
CLUSTER_ENVIRONMENT = {
    "PYTHONPATH": str(Path(harness.__file__).parents[1]),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the loopback alone; read when ray is imported, here and in drivers
}


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes with two each; torn down with everything on it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in CLUSTER_ENVIRONMENT.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        # A node that is silent for 1 s may be lost; Ray's own patience is 15 s.
        system = {"prestart_worker_first_driver": False, "health_check_period_ms": 200}
        head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False, "_system_config": system}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            add_node(cluster, "127.0.0.2")
            add_node(cluster, "127.0.0.3")
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Any, ip: str, num_cpus: int = 2) -> Any:
    """Adds a node with an address of its own, so that a driver connects to the head and can lose any of them."""
    return cluster.add_node(num_cpus=num_cpus, node_ip_address=ip, object_store_memory=80 << 20)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def launch(results: Path) -> Callable[..., Launch]:
    """A launch of the small worker, told what to do."""

    def make(behaviour: str, seed: int = 0, demand: Demand | None = None, **fields: Any) -> Launch:
        spec = RunSpec(method="sft", source="counting", seed=seed)
        folder = RunFolder(results, spec.run_id)
        folder.path.mkdir(parents=True)
        (folder.path / "behaviour.txt").write_text(behaviour)
        job = Job(spec=spec, targets=("counting",), results=str(results), sweep="small", **fields)
        return Launch(job, folder, demand or Demand(), Files(folder.path))

    return make


@pytest.fixture
def make_executor(cluster: Any) -> Iterator[Callable[..., Any]]:
    """Executors of the small worker on the cluster, one at a time."""
    from harness.launch.executors.ray import RayExecutor

    made: list[RayExecutor] = []

    def make(devices: int = 1, **settings: Any) -> RayExecutor:
        for executor in made:
            executor.close()
        asked = ExecutorSettings(type="ray", **{"address": cluster.address, **settings})
        made.append(RayExecutor(asked, Execution(device="cpu", devices=devices), ["", str(HERE / "worker.py")]))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Waits for something to come true, and gives it; fails when it does not."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return value


def end_of(worker: Any, seconds: float = 30.0) -> End:
    return wait_until(worker.poll, seconds)


def about(launch: Launch) -> dict[str, Any]:
    """What the small worker told of itself, once it has."""
    path = launch.folder.path / "about.json"
    wait_until(path.exists)
    return json.loads(path.read_text())


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
