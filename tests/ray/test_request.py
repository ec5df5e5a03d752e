"""What a run asks of a cluster, by hand-made demands and nodes."""

from __future__ import annotations

import pytest

from harness.launch.executor import Demand
from harness.launch.executors.ray_request import Request, request_for, shortage
from harness.spec.executor import ExecutorSettings

GIB = 2**30
NODES = [{"CPU": 8.0, "GPU": 2.0, "memory": 40.0 * GIB}, {"CPU": 64.0, "memory": 20.0 * GIB}]


def ask(demand: Demand, gpu_gib: float | None = None, *, on_gpus: bool = True, **settings: float) -> Request:
    return request_for(demand, ExecutorSettings(type="ray", **settings), NODES, gpu_gib, on_gpus=on_gpus)


def test_two_cores_per_device_and_measured_memory_with_a_margin() -> None:
    assert ask(Demand()) == Request(2, 1.0, 0)
    assert ask(Demand(devices=4, host_gib=8.0)) == Request(8, 4.0, 10 * GIB)
    assert ask(Demand(devices=4, host_gib=8.0), on_gpus=False) == Request(8, 0.0, 10 * GIB)
    assert ask(Demand(host_gib=8.0), cpus=3, memory_gib=1.5) == Request(3, 1.0, 3 * GIB // 2)


def test_memory_that_was_measured_on_a_node_is_never_more_than_a_node_has() -> None:
    assert ask(Demand(host_gib=36.0)).memory == 40 * GIB
    assert ask(Demand(host_gib=36.0), memory_gib=50).memory == 50 * GIB


@pytest.mark.parametrize(
    ("demand", "gpu_gib", "gpus"),
    [
        (Demand(device_gib=10.0), 80.0, 0.1514),  # 10 * 1.15 / (80 * 0.95) = 0.15132, rounded up
        (Demand(device_gib=10.0), None, 1.0),  # no GPU has been seen yet
        (Demand(device_gib=70.0), 80.0, 1.0),  # 1.06: it ran, so it has the whole
        (Demand(device_gib=10.0, alone=True), 80.0, 1.0),
        (Demand(devices=2, device_gib=10.0), 80.0, 2.0),
        (Demand(), 80.0, 1.0),
    ],
)
def test_a_part_of_a_gpu_once_memory_is_known(demand: Demand, gpu_gib: float | None, gpus: float) -> None:
    assert ask(demand, gpu_gib).gpus == pytest.approx(gpus, abs=1e-9)


def test_as_many_fit_on_a_node_as_its_scarcest_resource_allows() -> None:
    request = Request(2, 0.3, 10 * GIB)
    assert [request.times(node) for node in NODES] == [4, 0]  # 4 of 8 cores, 6 of 2 GPUs, 4 of 40 GiB
    assert [request.fits(node) for node in NODES] == [True, False]
    assert Request(64, 0.0, 0).fits(NODES[1]) and not Request(65, 0.0, 0).fits(NODES[1])
    assert Request(1, 0.1, 0).times({"CPU": 100.0, "GPU": 0.3}) == 3  # in floats, 0.3 / 0.1 is below 3


def test_what_is_short_is_told_in_one_sentence() -> None:
    assert shortage(Request(2, 4.0, 10 * GIB), NODES) == (
        "a run asks for 4 GPUs, 2 CPU cores, 10.0 GiB of memory, but the largest node of the Ray cluster has 2 GPUs, "
        "8 CPU cores, 40.0 GiB of memory: see execution.devices, executor.cpus and executor.memory_gib"
    )
    assert "has 0 CPU cores:" in shortage(Request(1, 0.0, 0), [])
