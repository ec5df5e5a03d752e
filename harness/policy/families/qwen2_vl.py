"""Qwen2-VL: a plain image tower and M-RoPE in sections (arXiv 2409.12191)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from harness.policy.attention import scaled_dot_product
from harness.policy.families.family import Family, check_one_image, rotate
from harness.policy.prompt import Grid, Prompt


class Qwen2VL(Family):
    """An adapter around `Qwen2VLForConditionalGeneration`.

    Args:
        model: The transformers model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__(model, model.model.language_model, model.model.visual)
        config = model.config
        self.merge_size: int = config.vision_config.spatial_merge_size
        self.image_token_id = config.image_token_id
        self.vision_token_ids = tuple(
            token
            for name in ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
            if (token := getattr(config, name, None)) is not None
        )
        self._sections: list[int] = list(config.get_text_config().rope_parameters.get("mrope_section", [16, 24, 24]))

    def num_image_tokens(self, grid: Grid) -> int:
        """How many text positions an image takes."""
        return grid[0] * grid[1] * grid[2] // self.merge_size**2

    def prompt(self, image: Image.Image, text: str, tokenizer: Any, image_processor: Any) -> Prompt:
        """One user turn; the image's single placeholder becomes one per feature."""
        inputs = image_processor(images=[image.convert("RGB")], return_tensors="pt")
        frames, rows, columns = (int(size) for size in inputs["image_grid_thw"][0])
        grid = (frames, rows, columns)
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        tokens = tokenizer(chat, add_special_tokens=False)["input_ids"]
        check_one_image(tokens.count(self.image_token_id), tokenizer.convert_ids_to_tokens(self.image_token_id))
        ids: list[int] = []
        for token in tokens:
            ids += [token] * (self.num_image_tokens(grid) if token == self.image_token_id else 1)
        return Prompt(torch.tensor(ids), self.positions(ids, [grid]), inputs["pixel_values"], grid)

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Features [sum of image tokens, D] of patches [sum of patches, patch width]."""
        if len(set(grids)) == 1:
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
            attended = scaled_dot_product(rotate(queries, cos, sin), rotate(keys, cos, sin), values, None)
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
                rest = range(index, len(ids))
                behind = next((place for place in rest if ids[place] == self.image_token_id), len(ids))
                parts.append(torch.arange(start, start + behind - index).expand(3, -1))
                start += behind - index
                index = behind
        return torch.cat(parts, dim=1)

    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """M-RoPE: each axis turns its own section of the frequencies; the sections sum to half a head's width."""
        rotary = self.text.rotary_emb
        angles = positions[..., None].float() * rotary.inv_freq.float()
        mixed = torch.cat([part[i % 3] for i, part in enumerate(angles.split(self._sections, dim=-1))], dim=-1)
        scale = rotary.attention_scaling
        return (mixed.cos() * scale)[:, None].to(like.dtype), (mixed.sin() * scale)[:, None].to(like.dtype)
