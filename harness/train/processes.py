"""The processes that share a run: which device each has, and how they add up what each one computed.

Data parallelism is over prompts. Each process takes every n-th prompt of a step, losses are divided by the counts of
the whole step, and gradients are added; so n processes make the step that one would make, to rounding.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # torch names it in no stub

from harness.errors import ModelError

CONTEXT_GIB = 0.6
"""Memory of a CUDA context beside torch's allocator, to its order of magnitude; no process is told its own."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for one another: the first may be busy with a large checkpoint, and a dead one is noticed
otherwise."""


class Processes:
    """A run's processes, over accelerate.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:<n>`.
        listener: The file descriptor of a socket that listens at `MASTER_PORT`, on which this process then keeps the
            store where all meet; None where somebody else keeps it.

    Raises:
        ModelError: The device is not to be had here.
    """

    def __init__(self, device: str = "auto", listener: int | None = None) -> None:
        has_gpu = torch.cuda.is_available()
        if device.startswith("cuda") and not has_gpu:
            raise ModelError(f"device '{device}' was asked for, but torch sees no GPU here; use 'cpu' or 'auto'")
        count = int(os.environ.get("WORLD_SIZE", "1"))
        # Left to itself, accelerate takes each of several processes without a GPU for a run of its own.
        cpu = device == "cpu" or (count > 1 and not has_gpu)
        if listener is not None:
            self._store = TCPStore(
                os.environ["MASTER_ADDR"],
                int(os.environ["MASTER_PORT"]),
                count,
                is_master=True,
                wait_for_workers=False,
                master_listen_fd=listener,
            )
        if count > 1 and not dist.is_initialized():
            if not cpu:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            dist.init_process_group("gloo" if cpu else "nccl", timeout=PATIENCE)
        self.accelerator = Accelerator(cpu=cpu)
        self.device: torch.device = torch.device(device) if ":" in device else self.accelerator.device

    @property
    def rank(self) -> int:
        """This process's place, from 0."""
        return self.accelerator.process_index

    @property
    def count(self) -> int:
        """How many share the run."""
        return self.accelerator.num_processes

    @property
    def is_main(self) -> bool:
        """Whether this one keeps the record."""
        return self.accelerator.is_main_process

    def add(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes, key by key; every process passes the same keys."""
        if self.count == 1:
            return dict(values)
        numbers = torch.tensor([values[key] for key in sorted(values)], dtype=torch.float64, device=self.device)
        total = self.accelerator.reduce(numbers, reduction="sum")
        return dict(zip(sorted(values), total.tolist(), strict=True))

    def add_ragged(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over processes of which some may lack a key, as those whose prompts had no signal do."""
        if self.count == 1:
            return dict(values)
        total: dict[str, float] = {}
        for process in gather_object([dict(values)]):
            for key, value in process.items():
                total[key] = total.get(key, 0.0) + value
        return total

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up gradients in place; a parameter without one counts as zero everywhere."""
        if self.count == 1:
            return
        held = [parameter for parameter in parameters if parameter.grad is not None]
        gradients: list[Tensor] = [parameter.grad for parameter in held if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        flat = self.accelerator.reduce(flat, reduction="sum")
        for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(total.view_as(gradient))

    def gather(self, rows: list[Any]) -> list[Any]:
        """The processes' rows, one after another, on every process."""
        return rows if self.count == 1 else list(gather_object(rows))

    @property
    def device_name(self) -> str:
        """What the first process computes on, such as ``"NVIDIA H200"``; ``"cpu"`` without an accelerator."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"

    def own_peak_memory(self) -> dict[str, float | None]:
        """The most memory that this process took so far, in GiB.

        Returns:
            peak_host_gib: its highest resident size; peak_device_gib: what torch's allocator held on its device and its
            context needs; None without one.
        """
        device = None
        if self.device.type == "cuda":
            device = torch.cuda.max_memory_reserved(self.device) / 2**30 + CONTEXT_GIB
        # Linux counts in KiB.
        host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        return {"peak_host_gib": host, "peak_device_gib": device}

    def peak_memory(self) -> dict[str, float | None]:
        """As :meth:`own_peak_memory`, of all processes: host memory together, the fullest device. All must call it."""
        every = self.gather([self.own_peak_memory()])
        devices = [one["peak_device_gib"] for one in every if one["peak_device_gib"] is not None]
        return {
            "peak_host_gib": sum(one["peak_host_gib"] for one in every),
            "peak_device_gib": max(devices, default=None),
        }

    def wait(self) -> None:
        """Returns once every process is here."""
        self.accelerator.wait_for_everyone()

    def end(self) -> None:
        """Lets go of the others; nothing can be shared any more."""
        self.accelerator.end_training()
