"""Image features of a step's prompts: encoded with the step, or kept where the tower never changes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.policy import Policy, PromptBatch
from harness.policy.learning import learns_vision

STORE_BYTES = 4 * 1024**3
"""Features kept in host memory; what is over it is encoded again."""


class ImageEncoder:
    """The policy's image features.

    With a frozen tower each image is encoded once in a run, alone, so that its features do not depend on the step in
    which it came up first; rollout, policy and reference share them.

    Args:
        policy: Its tower.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.is_frozen = not learns_vision(policy)
        self._kept: dict[str, Tensor] = {}
        self._kept_bytes = 0

    def encode(self, batch: PromptBatch, example_ids: Sequence[str]) -> Tensor:
        """Features [sum of image tokens, D'], differentiable where the tower learns.

        Args:
            batch: N prompts.
            example_ids: Of the prompts' images.
        """
        if not self.is_frozen:
            return self.policy.encode_images(batch)
        return torch.cat([self._frozen(batch, row, name) for row, name in enumerate(example_ids)])

    @torch.no_grad()
    def _frozen(self, batch: PromptBatch, row: int, example_id: str) -> Tensor:
        if example_id in self._kept:
            return self._kept[example_id].to(batch.ids.device)
        features = self.policy.encode_images(batch.select([row]))
        size = features.numel() * features.element_size()
        if self._kept_bytes + size <= STORE_BYTES:
            self._kept[example_id] = features.cpu()
            self._kept_bytes += size
        return features
