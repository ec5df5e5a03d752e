"""One safetensors file that a run can go on from: weights, optimiser state, and what the method remembers.

The file is written under another name and moved into place, so it is whole or absent. Names are those of
`named_parameters`; a tied weight is kept once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

FILE = "checkpoint.safetensors"


def save_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int, state: Mapping[str, float]
) -> None:
    """Replaces the folder's checkpoint.

    Args:
        folder: The run's checkpoint folder; made where it is missing.
        model: Its named parameters are kept.
        optimizer: AdamW over those parameters.
        step: Steps done.
        state: The method's own.
    """
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight/{name}"] = parameter.detach()
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{key}/{name}"] = value.detach()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.tmp"
    metadata = {"step": str(step), "state": json.dumps(dict(state))}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    os.replace(temporary, folder / FILE)


def load_checkpoint(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, float]] | None:
    """Puts weights and optimiser back as they were.

    Returns:
        The steps done and the method's state; None where there is no checkpoint.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        keys = set(file.keys())
        for name, parameter in model.named_parameters():
            with torch.no_grad():
                parameter.copy_(file.get_tensor(f"weight/{name}"))
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}/{name}" in keys:
                    # The fused optimiser wants its step counter beside the weights too.
                    optimizer.state[parameter][key] = file.get_tensor(f"{key}/{name}").to(parameter.device)
    return int(metadata["step"]), json.loads(metadata["state"])
