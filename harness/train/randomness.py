"""Same run, same numbers: every random number as a function of what it is for, and sums in a fixed order.

A stream is named by (seed, purpose, step, place). No generator is carried from step to step, so a resumed run draws
what an uninterrupted one would have drawn, and a prompt draws the same whatever else is in its batch.
"""

from __future__ import annotations

import os
import zlib

import numpy as np
import torch


def stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The random stream of a purpose.

    Args:
        seed: The run's.
        purpose: What the numbers are for, such as ``"rollout"``.
        place: Whatever numbers tell one use from another, such as step and prompt.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *place]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))


def repeatable() -> None:
    """Makes torch give the same bits for the same work, for the rest of the process; to be called before CUDA starts.

    Without it threads race to add up the gradient of an index (an embedding, an image feature that several groups
    share), on a CPU as on a GPU, and two runs of one spec part in the last bit. An operation that cannot be made
    repeatable warns.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Filling fresh memory would cost time and hide nothing: nothing here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
