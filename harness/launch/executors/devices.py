"""What this machine has, without torch: GPUs with their memory, CPU cores, host memory, and what the kernel took back.

GPUs are counted by `CUDA_VISIBLE_DEVICES` where it is set and by `nvidia-smi` elsewhere, so a driver starts quickly and
holds no GPU memory.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

TIMEOUT_S = 20


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that workers may use, each as a value for `CUDA_VISIBLE_DEVICES`.

    Args:
        environment: Environment variables. As CUDA reads it, `CUDA_VISIBLE_DEVICES` ends at its first empty or
            negative entry.

    Returns:
        The entries of `CUDA_VISIBLE_DEVICES` where it is set, else the UUIDs that `nvidia-smi -L` lists (an index
        would depend on CUDA's order of devices), else nothing.
    """
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return listed_gpus(_nvidia_smi("-L"))
    entries: list[str] = []
    for entry in chosen.split(","):
        entry = entry.strip()
        if not entry or entry.startswith("-"):
            break
        entries.append(entry)
    return tuple(entries)


def listed_gpus(listing: str) -> tuple[str, ...]:
    """The UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG devices is given as those devices."""
    devices: list[str] = []
    for line in listing.splitlines():
        found = re.search(r"UUID: ([\w/-]+)\)", line)
        if found is None:
            continue
        if found[1].startswith("MIG-") and devices and devices[-1].startswith("GPU-"):
            devices.pop()
        devices.append(found[1])
    return tuple(devices)


def gpu_memory_gib(gpus: tuple[str, ...]) -> float | None:
    """The memory of the smallest of some GPUs in GiB; None where `nvidia-smi` does not tell it, as of MIG devices."""
    listing = _nvidia_smi("--query-gpu=index,uuid,memory.total", "--format=csv,noheader,nounits") if gpus else ""
    known: dict[str, float] = {}
    for line in listing.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[2].isdecimal():
            known[fields[0]] = known[fields[1]] = float(fields[2]) / 1024
    sizes = [known.get(gpu) for gpu in gpus]
    return None if not sizes or None in sizes else min(size for size in sizes if size is not None)


def gpu_name(gpus: tuple[str, ...]) -> str | None:
    """The name of the first of some GPUs, such as ``"NVIDIA H200"``; None where `nvidia-smi` does not tell it."""
    listing = _nvidia_smi("--query-gpu=index,uuid,name", "--format=csv,noheader") if gpus else ""
    for line in listing.splitlines():
        index, _, rest = line.partition(", ")
        uuid, _, name = rest.partition(", ")
        if name and gpus[0] in (index, uuid):
            return name
    return None


def _nvidia_smi(*arguments: str) -> str:
    try:
        done = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def num_cores() -> int:
    """CPU cores that this process may use, at least 1: its affinity mask, bounded by a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = min(cores, int(quota) // int(period))
    return max(1, cores)


def host_memory_gib() -> float | None:
    """Memory that all processes here may take in GiB: the machine's, bounded by a container's; None where unknown."""
    sizes = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        sizes.append(int(Path("/proc/meminfo").read_text().split("MemTotal:")[1].split()[0]) / 2**20)
    with contextlib.suppress(OSError, ValueError):
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()) / 2**30)
    return min(sizes, default=None)


def num_out_of_memory() -> int:
    """How many processes the kernel has ended for want of memory, on this machine and in this container."""
    count = 0
    for path in ("/proc/vmstat", "/sys/fs/cgroup/memory.events"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(path).read_text().splitlines():
                name, _, number = line.partition(" ")
                count += int(number) if name == "oom_kill" else 0
    return count
