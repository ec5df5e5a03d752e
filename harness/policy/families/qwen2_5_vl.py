"""Qwen2.5-VL: Qwen2-VL's text and positions behind a tower with windowed attention (arXiv 2502.13923)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.policy.families.qwen2_vl import Qwen2VL
from harness.policy.prompt import Grid


class Qwen25VL(Qwen2VL):
    """An adapter around `Qwen2_5_VLForConditionalGeneration`."""

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Features [sum of image tokens, D]; windows reorder the patches, so the tower is transformers' own."""
        grid_thw = torch.tensor(grids, device=pixels.device)
        features: Tensor = self.visual(pixels.to(self.visual.dtype), grid_thw=grid_thw).pooler_output
        return features
