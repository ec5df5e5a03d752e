"""Group-relative advantages."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

STD_EPSILON = 1e-4
"""Added to the standard deviation (R1-V, TRL)."""


def group_advantages(rewards: Tensor, scale: Literal["std", "none"] = "std") -> Tensor:
    """How much better each completion is than the others of its group (OThink-MR1, Eq. 2).

        std   A = (r - mean(r)) / (std(r) + 1e-4)    with the sample standard deviation (n - 1), as R1-V and TRL
        none  A = r - mean(r)                        as Dr.GRPO, arXiv 2503.20783

    A group whose rewards are all equal has advantages of exactly 0.

    Args:
        rewards: Float [N, G], G at least 2.
        scale: Whether to divide by the group's standard deviation.

    Returns:
        Float [N, G].
    """
    centred = rewards - rewards.mean(dim=1, keepdim=True)
    # Equal rewards may differ from their rounded mean; the difference is not a signal.
    equal = (rewards == rewards[:, :1]).all(dim=1, keepdim=True)
    centred = torch.where(equal, 0.0, centred)
    if scale == "none":
        return centred
    return centred / (rewards.std(dim=1, keepdim=True, correction=1) + STD_EPSILON)
