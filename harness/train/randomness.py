"""Every random number of a run, as a function of what it is for.

A stream is named by (seed, purpose, step, place). No generator is carried from step to step, so a resumed run draws
what an uninterrupted one would have drawn, and a prompt draws the same whatever else is in its batch.
"""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The random stream of a purpose.

    Args:
        seed: The run's.
        purpose: What the numbers are for, such as ``"rollout"``.
        place: Whatever numbers tell one use from another, such as step and prompt.
    """
    entropy = [seed, zlib.crc32(purpose.encode()), *place]
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
