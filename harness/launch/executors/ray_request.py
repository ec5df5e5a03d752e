"""What a run asks of a Ray cluster, in Ray's resources: CPU cores, GPUs or a part of one, bytes of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.launch.executor import Demand
from harness.launch.executors.local import MARGIN, SHARE
from harness.spec.executor import ExecutorSettings

HOST_MARGIN = 1.25
"""Of a measured peak of host memory, which files in the system's cache add to."""
CPUS_PER_DEVICE = 2
GRAIN = 1e-4
"""Ray counts in ten-thousandths."""

Resources = Mapping[str, float]
"""Of a node, or asked of one: Ray's name -> amount."""


@dataclass(frozen=True)
class Request:
    """What one run holds while it lives.

    Attributes:
        cpus: Cores.
        gpus: GPUs; a part of one for a run that shares it.
        memory: Bytes; 0 for nothing that is counted.
    """

    cpus: int
    gpus: float
    memory: int

    @property
    def resources(self) -> Resources:
        """As Ray's resources, without those that nothing is asked of."""
        amounts = {"CPU": float(self.cpus), "GPU": self.gpus, "memory": float(self.memory)}
        return {name: amount for name, amount in amounts.items() if amount}

    def fits(self, room: Resources) -> bool:
        """Whether there is as much of everything."""
        return all(room.get(name, 0.0) + GRAIN / 2 >= amount for name, amount in self.resources.items())

    def times(self, room: Resources) -> int:
        """How often it fits beside itself."""
        return min(int((room.get(name, 0.0) + GRAIN / 2) // amount) for name, amount in self.resources.items())


def request_for(
    demand: Demand, settings: ExecutorSettings, nodes: Iterable[Resources], gpu_gib: float | None, *, on_gpus: bool
) -> Request:
    """What to ask for a run.

    Host memory that was measured is asked for with a margin, and never more than a whole node has: it ran on one.

    Args:
        demand: What it needs.
        settings: `cpus` and `memory_gib` in place of what is measured.
        nodes: What the nodes have in all.
        gpu_gib: The memory of the smallest GPU that has been seen; None before one has.
        on_gpus: Whether runs are for GPUs.
    """
    if settings.memory_gib is not None:
        memory = settings.memory_gib
    else:
        largest = max((node.get("memory", 0.0) for node in nodes), default=0.0) / 2**30
        memory = min((demand.host_gib or 0.0) * HOST_MARGIN, largest)
    return Request(
        cpus=settings.cpus or CPUS_PER_DEVICE * demand.devices,
        gpus=_gpus(demand, gpu_gib) if on_gpus else 0.0,
        memory=int(memory * 2**30),
    )


def _gpus(demand: Demand, gpu_gib: float | None) -> float:
    """Ray gives away parts of one GPU alone; who needs several has them whole."""
    if demand.devices > 1 or demand.alone or demand.device_gib is None or gpu_gib is None:
        return float(demand.devices)
    share = demand.device_gib * MARGIN / (gpu_gib * SHARE)
    return min(1.0, max(GRAIN, math.ceil(share / GRAIN) * GRAIN))


def shortage(request: Request, nodes: Iterable[Resources]) -> str:
    """One sentence: what is asked for and what the largest node has."""
    largest = max(nodes, key=lambda node: tuple(node.get(name, 0.0) for name in ("GPU", "CPU", "memory")), default={})
    return (
        f"a run asks for {_in_words(request.resources)}, but the largest node of the Ray cluster has "
        f"{_in_words(largest)}: see execution.devices, executor.cpus and executor.memory_gib"
    )


def _in_words(resources: Resources) -> str:
    cpus, gpus, memory = (resources.get(name, 0.0) for name in ("CPU", "GPU", "memory"))
    words = [f"{gpus:g} GPU{'s' if gpus > 1 else ''}"] if gpus else []
    words += [f"{cpus:g} CPU core{'' if cpus == 1 else 's'}"]
    words += [f"{memory / 2**30:.1f} GiB of memory"] if memory else []
    return ", ".join(words)
