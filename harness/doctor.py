"""Can this machine run a sweep? Looks, changes nothing, and tells each finding in one line."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.spec.run import embedded_folder, weights_digest

REQUIRED = ("torch", "transformers", "accelerate", "numpy", "pillow", "pydantic", "math-verify", "safetensors", "typer")
OPTIONAL = ("wandb", "pandas", "scipy", "datasets", "optuna", "matplotlib", "peft", "tensorboard")
"""What a part of the harness needs: tables, figures, searches, data of the hub, LoRA, event files."""
MIN_FREE_GIB = 2.0
"""Less free disk than this counts as a problem; a choice, not a measurement."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: What.
        detail: What was found.
        is_problem: Whether a run would fail for it.
    """

    name: str
    detail: str
    is_problem: bool = False

    def line(self) -> str:
        """One line of text; a problem is marked with an exclamation mark."""
        return f"{'!' if self.is_problem else ' '} {self.name:<12} {self.detail}"


def examine(results: Path) -> Iterator[Finding]:
    """Looks at the installation and the machine, quick things first.

    Args:
        results: The results folder, which need not exist.
    """
    from harness import __version__

    python = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("python", python, is_problem=sys.version_info < (3, 11))
    yield Finding("harness", __version__)
    yield from _packages()
    yield _disk(results)
    yield _wandb()
    yield _embedded_policy(embedded_folder())
    yield from _executors()
    yield from _devices()


def _packages() -> Iterator[Finding]:
    for name in (*REQUIRED, *OPTIONAL):
        try:
            yield Finding(name, version(name))
        except PackageNotFoundError:
            yield Finding(name, "not installed", is_problem=name in REQUIRED)


def _disk(results: Path) -> Finding:
    folder = results.absolute()
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Finding("results", f"{results}: cannot be written: {error.strerror}", is_problem=True)
    free = shutil.disk_usage(folder).free / 2**30
    return Finding("results", f"{results}: writable, {free:.1f} GiB free", is_problem=free < MIN_FREE_GIB)


def _wandb() -> Finding:
    from harness.record.mirror.login import is_logged_in

    if "WANDB_MODE" in os.environ:
        return Finding("W&B", f"{os.environ['WANDB_MODE']}, by WANDB_MODE")
    return Finding("W&B", "online: logged in" if is_logged_in() else "offline: not logged in")


def _executors() -> Iterator[Finding]:
    """Where a sweep's workers could run beside this machine; none of it is needed."""
    try:
        cluster = f", RAY_ADDRESS is {os.environ['RAY_ADDRESS']}" if "RAY_ADDRESS" in os.environ else ""
        yield Finding("ray", version("ray") + cluster)
    except PackageNotFoundError:
        yield Finding("ray", "not installed: pip install 'grpo-d-harness[ray]'")
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        yield Finding("slurm", "no sbatch on this machine")
        return
    try:
        yield Finding("slurm", f"{sbatch}, submitit {version('submitit')}")
    except PackageNotFoundError:
        yield Finding("slurm", f"{sbatch}; without submitit: pip install 'grpo-d-harness[slurm]'")


def _embedded_policy(folder: Path) -> Finding:
    """Whether the weights are those that the card, and so every run id, tells of."""
    name = "embedded"
    if not (folder / "card.json").is_file() or not any(folder.glob("*.safetensors")):
        return Finding(name, "no weights in this installation: run `harness base build`", is_problem=True)
    digest = weights_digest(folder)
    expected = json.loads((folder / "card.json").read_text())["sha256"]
    if digest != expected:
        detail = f"the weights' SHA-256 is {digest[:16]}, but the card says {expected[:16]}"
        return Finding(name, detail, is_problem=True)
    return Finding(name, f"intact, SHA-256 {expected[:16]}")


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # a broken installation raises anything, from ImportError to OSError
        yield Finding("devices", f"torch cannot be imported: {error}", is_problem=True)
        return
    yield Finding("cpu", f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, {_bf16('cpu')}")
    if not torch.cuda.is_available():
        yield Finding("cuda", "no GPU: the embedded policy needs none, larger models do")
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        detail = f"{device.name}, {device.total_memory / 2**30:.0f} GiB, {_bf16(f'cuda:{index}')}"
        yield Finding(f"cuda:{index}", detail)

    yield _kernels()
    if torch.cuda.device_count() > 1:
        nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
        yield Finding("nccl", "several GPUs can share a run" if nccl else "missing: a run has one GPU", not nccl)


def _kernels() -> Finding:
    """What block-sparse attention is compiled with."""
    try:
        return Finding("triton", f"{version('triton')}, compiles block-sparse attention")
    except PackageNotFoundError:
        return Finding("triton", "not installed: on a GPU, block-sparse attention cannot be compiled", is_problem=True)


def compare(device: str) -> Iterator[Finding]:
    """Holds a device's numbers beside the CPU's, see :mod:`harness.device_check`.

    Args:
        device: As in a sweep's `execution.device`.
    """
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        yield Finding(device, "torch sees no GPU here", is_problem=True)
        return
    import transformers

    from harness.device_check import check_device

    transformers.utils.logging.disable_progress_bar()
    for what, detail, is_right in check_device(device):
        yield Finding(what, f"{detail} ({device})", is_problem=not is_right)


def _bf16(device: str) -> str:
    """Tries a product in bf16; a claim of support is not taken on trust."""
    import torch

    ones = torch.ones(2, 2, dtype=torch.bfloat16)
    try:
        product = (ones.to(device) @ ones.to(device)).float().cpu()
    except RuntimeError as error:
        return f"no bf16: {str(error).splitlines()[0]}"
    return "bf16 works" if bool((product == 2).all()) else "bf16 gives wrong products"
