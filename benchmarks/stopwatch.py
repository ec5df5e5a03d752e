"""How long the parts of a step take, how much memory a process came to hold, and with which versions."""

from __future__ import annotations

import platform
import resource
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Stopwatch:
    """Times steps and their parts; on CUDA it waits for the device, whose work goes on behind Python's back.

    Args:
        device: `cpu` or `cuda`.

    Attributes:
        steps: A row per finished step: `step_s`, the parts' seconds by name, and what else was handed in.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[dict[str, float]] = []
        self._parts: dict[str, float] = {}
        self._before = 0.0

    def now(self) -> float:
        """Seconds, once the device has nothing left to do."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def timed(self, part: str, work: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        """The same work, whose time is added to a part of the step in which it runs."""

        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            started = self.now()
            result = work(*args, **kwargs)
            self._parts[part] = self._parts.get(part, 0.0) + self.now() - started
            return result

        return run

    def start(self) -> None:
        """The first step begins; what was timed before it does not count."""
        self._parts = {}
        self._before = self.now()

    def step_done(self, counts: Callable[[], dict[str, float]]) -> None:
        """A step is over; what it held is counted before the next one begins."""
        elapsed = self.now() - self._before
        if "collect_s" not in self._parts:
            raise RuntimeError("the step was not seen to collect a batch: what is timed has another name by now")
        update_s = elapsed - self._parts["collect_s"]
        self.steps.append({"step_s": elapsed, "update_s": update_s, **self._parts, **counts()})
        self._parts = {}
        self._before = self.now()


def loaded_gib(device: str) -> float:
    """Memory held now: of the process on the CPU, of tensors on CUDA."""
    return torch.cuda.memory_allocated() / 2**30 if device == "cuda" else resident_gib("VmRSS")


def peak_gib(device: str) -> float:
    """The most memory held so far: of the process on the CPU, of tensors on CUDA."""
    return torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else resident_gib("VmHWM")


def resident_gib(field: str) -> float:
    """Memory of this process in GiB: `VmRSS` now, `VmHWM` at its highest."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        # Elsewhere only the highest is known, in bytes on macOS.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if platform.system() == "Darwin" else 2**20)
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 2**20


def versions() -> dict[str, Any]:
    """The distributions that matter to either side, where installed."""
    found = {}
    for name in ("torch", "transformers", "accelerate", "trl", "datasets", "torchvision"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
