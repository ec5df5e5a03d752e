"""Qwen3-VL: interleaved M-RoPE, normalised queries and keys, and DeepStack (arXiv 2511.21631, section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.errors import ModelError
from harness.policy.families.qwen2_vl import Qwen2VL
from harness.policy.prompt import Grid


class Qwen3VL(Qwen2VL):
    """An adapter around `Qwen3VLForConditionalGeneration`.

    An image's positions are Qwen2-VL's: only videos are counted in another way.

    Args:
        model: The transformers model.

    Raises:
        ModelError: More layers of the tower feed the text stack than the stack can take.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        depths = model.config.vision_config.deepstack_visual_indexes
        # The last layer ends with the states that are asked for, where no image feature can be added any more.
        if len(depths) >= self.num_layers:
            raise ModelError(
                f"config.json names {len(depths)} deepstack_visual_indexes; with {self.num_layers} text layers, "
                f"at most {self.num_layers - 1} are allowed"
            )
        # Axes take turns at the frequencies, the frames' first; what is left over at the end is the frames' too.
        axes = torch.zeros(self.head_dim // 2, dtype=torch.long)
        for axis in (1, 2):
            axes[axis : self.text.rotary_emb.mrope_section[axis] * 3 : 3] = axis
        self._axes = axes

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Features [sum of image tokens, D * (1 + K)]: the tower's last, then those for the text's first K layers."""
        grid_thw = torch.tensor(grids, device=pixels.device)
        seen = self.visual(pixels.to(self.visual.dtype), grid_thw=grid_thw)
        return torch.cat([seen.pooler_output, *seen.deepstack_features], dim=-1)

    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Interleaved M-RoPE: neighbouring frequencies turn with different axes."""
        rotary = self.text.rotary_emb
        chosen = positions[self._axes.to(positions.device)].movedim(0, -1)
        angles = chosen.float() * rotary.inv_freq.float()
        scale = rotary.attention_scaling
        return (angles.cos() * scale)[:, None].to(like.dtype), (angles.sin() * scale)[:, None].to(like.dtype)
