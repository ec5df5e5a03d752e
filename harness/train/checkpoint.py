"""One safetensors file that a run can go on from: weights, optimiser state, and what the method remembers.

The file is written under another name and moved into place, so it is whole or absent; a run's owner says how, lest
somebody who has lost the run replaces it. It holds the weights that learn, in float32, by their names in the model; a
tied weight is kept once.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from harness.train.optimizer import Optimizer

FILE = "checkpoint.safetensors"

Replacing = Callable[[Path], AbstractContextManager[Path]]
"""Gives a path to write a file at, which takes the place of another at the end of the block."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """For a folder that nobody else writes to."""
    temporary = path.with_name(f".{path.name}.tmp")
    yield temporary
    os.replace(temporary, path)


def save_checkpoint(
    folder: Path,
    optimizer: Optimizer,
    step: int,
    state: Mapping[str, float],
    *,
    write: bool = True,
    replacing: Replacing = replacing,
) -> None:
    """Replaces the folder's checkpoint, by one that any number of processes can go on from.

    Args:
        folder: The run's checkpoint folder; made where it is missing.
        optimizer: With the weights that learn.
        step: Steps done.
        state: The method's own.
        write: Whether this process writes; the others only give their shares of the weights.
        replacing: How the file comes into place.
    """
    tensors = optimizer.state()
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"step": str(step), "state": json.dumps(dict(state))}
    with replacing(folder / FILE) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())


def load_checkpoint(folder: Path, optimizer: Optimizer) -> tuple[int, dict[str, float]] | None:
    """Puts weights and optimiser back as they were.

    Returns:
        The steps done and the method's state; None where there is no checkpoint.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        optimizer.load_state(_Tensors(file))
    return int(metadata["step"]), json.loads(metadata["state"])


class _Tensors(Mapping[str, Tensor]):
    """A file's tensors, each read when it is asked for: a process may keep no more than its share of them."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._names: list[str] = list(file.keys())

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
