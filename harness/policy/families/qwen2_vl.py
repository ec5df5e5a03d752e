"""The Qwen2-VL and Qwen2.5-VL family: image tower, M-RoPE positions and the text stack, over transformers' own modules.

The weights and every submodule are transformers'; what is ours is the order in which they are called. The text stack
takes attention as an argument, so that prefill, cached decoding and the shared-prefix forward are one loop over the
layers. Equality with transformers' own forward is tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.policy.attention import Attend, scaled_dot_product

Grid = tuple[int, int, int]
"""Patches of an image: frames, rows, columns."""


class Qwen2VL:
    """An adapter around `Qwen2VLForConditionalGeneration` or `Qwen2_5_VLForConditionalGeneration`.

    Args:
        model: The transformers model; its parameters are used in place, so gradients reach them.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        text_config = config.get_text_config()
        self.visual: Any = model.model.visual
        self.text: Any = model.model.language_model
        self.lm_head: nn.Linear = model.lm_head
        self.num_layers: int = text_config.num_hidden_layers
        self.head_dim: int = text_config.hidden_size // text_config.num_attention_heads
        self.merge_size: int = config.vision_config.spatial_merge_size
        self.image_token_id: int = config.image_token_id
        self.vision_token_ids: tuple[int, ...] = tuple(
            token
            for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
            if (token := getattr(config, name, None)) is not None
        )
        """Ids that stand for pictures and so may never be sampled (R1-V issue 91)."""
        self._sections: list[int] = list(text_config.rope_parameters.get("mrope_section", [16, 24, 24]))
        # Windowed attention (Qwen2.5-VL) reorders patches; only the plain tower is run batched.
        self._plain_tower = config.model_type == "qwen2_vl"

    def num_image_tokens(self, grid: Grid) -> int:
        """How many text positions an image takes."""
        return grid[0] * grid[1] * grid[2] // self.merge_size**2

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Image features in the text's embedding space.

        Args:
            pixels: Float [sum of patches, patch width], all images in a row, as the image processor gives them.
            grids: One per image.

        Returns:
            [sum of image tokens, D], in the order of the images.
        """
        if self._plain_tower and len(set(grids)) == 1:
            return self._encode_alike(pixels, grids[0], len(grids))
        grid_thw = torch.tensor(grids, device=pixels.device)
        features: Tensor = self.visual(pixels.to(self.visual.dtype), grid_thw=grid_thw).pooler_output
        return features

    def _encode_alike(self, pixels: Tensor, grid: Grid, num_images: int) -> Tensor:
        """Images of one size as one batch; transformers attends to them one by one."""
        visual = self.visual
        length = grid[0] * grid[1] * grid[2]
        # A convolution whose stride is its kernel is one matrix product over flattened patches.
        kernel = visual.patch_embed.proj.weight
        hidden = F.linear(pixels.to(kernel.dtype), kernel.flatten(1)).view(num_images, length, -1)
        cos, sin = self._patch_rotation(grid, hidden.device)
        for block in visual.blocks:
            attention = block.attn
            qkv = attention.qkv(block.norm1(hidden)).view(num_images, length, 3, attention.num_heads, -1)
            queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
            attended = scaled_dot_product(_rotate(queries, cos, sin), _rotate(keys, cos, sin), values, None)
            hidden = hidden + attention.proj(attended.transpose(1, 2).reshape(num_images, length, -1))
            hidden = hidden + block.mlp(block.norm2(hidden))
        merged: Tensor = visual.merger(hidden.view(num_images * length, -1))
        return merged

    def _patch_rotation(self, grid: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
        """Cosine and sine [patches, d / 2] of the tower's two-axis rotary embedding, in merge order."""
        frames, rows, columns = grid
        merge = self.merge_size
        row = torch.arange(rows).view(rows // merge, 1, merge, 1).expand(-1, columns // merge, -1, merge)
        column = torch.arange(columns).view(1, columns // merge, 1, merge).expand(rows // merge, -1, merge, -1)
        place = torch.stack([row.reshape(-1), column.reshape(-1)], dim=-1).repeat(frames, 1).float()
        width = self.visual.blocks[0].attn.head_dim // 2
        inverse = 1.0 / (10000.0 ** (torch.arange(0, width, 2).float() / width))
        angles = (place[:, :, None] * inverse).flatten(1)
        angles = angles.to(device)
        return angles.cos(), angles.sin()

    def positions(self, ids: Sequence[int], grids: Sequence[Grid]) -> Tensor:
        """M-RoPE positions of a prompt (Qwen2-VL, arXiv 2409.12191, section 2.1).

        Text counts up on all three axes; an image's tokens count frames, rows and columns from where it starts, and
        the text behind it goes on after the largest of them.

        Args:
            ids: Token ids [P] with each image's placeholder already expanded.
            grids: The images' grids in order.

        Returns:
            Long [3, P].
        """
        parts: list[Tensor] = []
        start, index, remaining = 0, 0, list(grids)
        while index < len(ids):
            if ids[index] == self.image_token_id:
                frames, rows, columns = remaining.pop(0)
                shape = (frames, rows // self.merge_size, columns // self.merge_size)
                places = torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape), indexing="ij"))
                parts.append(places.flatten(1) + start)
                index += shape[0] * shape[1] * shape[2]
                start += max(shape)
            else:
                parts.append(torch.full((3, 1), start))
                index += 1
                start += 1
        return torch.cat(parts, dim=1)

    def embed(self, ids: Tensor, features: Tensor | None) -> Tensor:
        """Token embeddings [R, L, D], with image features [sum of image tokens, D] at the placeholders."""
        hidden: Tensor = self.text.embed_tokens(ids)
        if features is None:
            return hidden
        places = (ids == self.image_token_id)[..., None].expand_as(hidden)
        return hidden.masked_scatter(places, features.to(hidden.dtype))

    def run(
        self, hidden: Tensor, positions: Tensor, attend: Attend, wanted: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """The text stack.

        Args:
            hidden: Embeddings [R, L, D].
            positions: Long [3, R, L].
            attend: How the layers attend, see :mod:`harness.policy.attention`.
            wanted: Long [M] rows and [M] places of the states that are asked for; None for all. The others end with the
                last layer's keys and values.

        Returns:
            Final hidden states [R, L, D], or [M, D] of those wanted, after the last norm, ready for the output head.
        """
        rows, length, _ = hidden.shape
        cos, sin = self._rotation(hidden, positions)
        for index, layer in enumerate(self.text.layers):
            attention = layer.self_attn
            normed = layer.input_layernorm(hidden)
            queries = attention.q_proj(normed).view(rows, length, -1, self.head_dim).transpose(1, 2)
            keys = attention.k_proj(normed).view(rows, length, -1, self.head_dim).transpose(1, 2)
            values = attention.v_proj(normed).view(rows, length, -1, self.head_dim).transpose(1, 2)
            attended = attend(index, _rotate(queries, cos, sin), _rotate(keys, cos, sin), values)
            attended = attended.transpose(1, 2).reshape(rows, length, -1)
            if wanted is not None and index == self.num_layers - 1:
                attended, hidden = attended[wanted], hidden[wanted]
            hidden = hidden + attention.o_proj(attended)
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        normed = self.text.norm(hidden)
        return normed

    def _rotation(self, hidden: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [R, 1, L, d / 2] of the M-RoPE."""
        rotary = self.text.rotary_emb
        angles = positions[..., None].float() * rotary.inv_freq.float()
        # Each axis turns its own section of the frequencies; the sections sum to half a head's width.
        mixed = torch.cat([part[i % 3] for i, part in enumerate(angles.split(self._sections, dim=-1))], dim=-1)
        scale = rotary.attention_scaling
        return (mixed.cos() * scale)[:, None].to(hidden.dtype), (mixed.sin() * scale)[:, None].to(hidden.dtype)


def _rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [..., L, d]: the halves of d are the coordinates of planes that turn by [..., L, d / 2]."""
    low, high = states.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(states.dtype)
