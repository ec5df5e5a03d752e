"""What every family shares: the text stack, over transformers' own modules, and what an adapter has to say.

The weights and every submodule are transformers'; what is ours is the order in which they are called. The text stack
takes attention as an argument, so that prefill, cached decoding and the shared-prefix forward are one loop over the
layers. Equality with transformers' own forward is tested for each family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.errors import DataError
from harness.policy.attention import Attend
from harness.policy.norm import rms_norm
from harness.policy.prompt import Grid, Prompt

LayerAttend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: queries [R, H, L, d], keys and values [R, K, L, d], rotated, to [R, H, L, d]."""

Wanted = tuple[Tensor, Tensor]
"""Long [M] rows and [M] places."""


class Block(nn.Module):
    """One layer of the text stack, called with our attention; also the unit of checkpointing and of sharding.

    Args:
        layer: A decoder layer of the Llama kind; its parameters are used in place.
        head_dim: Width d of a head.
    """

    def __init__(self, layer: Any, head_dim: int) -> None:
        super().__init__()
        self.layer = layer
        self.head_dim = head_dim
        # Qwen3 normalises queries and keys head by head.
        self.query_norm: nn.Module | None = getattr(layer.self_attn, "q_norm", None)
        self.key_norm: nn.Module | None = getattr(layer.self_attn, "k_norm", None)

    def forward(
        self, hidden: Tensor, cos: Tensor, sin: Tensor, attend: LayerAttend, wanted: Wanted | None = None
    ) -> Tensor:
        """Hidden states [R, L, D] to [R, L, D], or to the [M, D] that are wanted."""
        rows, length, _ = hidden.shape
        attention = self.layer.self_attn
        normed = rms_norm(self.layer.input_layernorm, hidden)
        by_head = (rows, length, -1, self.head_dim)
        queries, keys = attention.q_proj(normed).view(by_head), attention.k_proj(normed).view(by_head)
        if self.query_norm is not None:
            queries, keys = rms_norm(self.query_norm, queries), rms_norm(self.key_norm, keys)
        queries, keys = rotate(queries.transpose(1, 2), cos, sin), rotate(keys.transpose(1, 2), cos, sin)
        attended = attend(queries, keys, attention.v_proj(normed).view(by_head).transpose(1, 2))
        attended = attended.transpose(1, 2).reshape(rows, length, -1)
        if wanted is not None:
            attended, hidden = attended[wanted], hidden[wanted]
        hidden = hidden + attention.o_proj(attended)
        out: Tensor = hidden + self.layer.mlp(rms_norm(self.layer.post_attention_layernorm, hidden))
        return out


class Family(ABC):
    """An adapter around a transformers model: how it sees an image, counts positions and runs its text stack.

    A new family is a file with a subclass, and a line in :data:`harness.policy.families.FAMILIES`.

    Args:
        model: The transformers model; its parameters are used in place, so gradients reach them.
        text: Its text decoder.
        visual: Its image tower, with whatever projects into the text's space.

    Attributes:
        image_token_id: The placeholder of an image feature.
        vision_token_ids: Ids that stand for pictures and so may never be sampled (R1-V issue 91).
        checkpointing: Whether a layer's activations are made again in the backward pass instead of kept.
    """

    image_token_id: int
    vision_token_ids: tuple[int, ...]

    def __init__(self, model: Any, text: Any, visual: nn.Module) -> None:
        config = model.config.get_text_config()
        self.text = text
        self.visual: Any = visual
        self.lm_head: nn.Linear = model.lm_head
        self.width: int = config.hidden_size
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.blocks: list[Any] = [Block(layer, self.head_dim) for layer in text.layers]
        self.checkpointing = False

    @property
    def num_layers(self) -> int:
        """Layers of the text stack."""
        return len(self.blocks)

    @abstractmethod
    def prompt(self, image: Image.Image, text: str, tokenizer: Any, image_processor: Any) -> Prompt:
        """One user turn, the image before the text, with the assistant's turn opened behind it."""

    @abstractmethod
    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Image features.

        Args:
            pixels: Float [sum of the images' rows, ...], all images in a row, as in their prompts.
            grids: One per image.

        Returns:
            [sum of image tokens, D'] in the order of the images; D' is D times one more than the layers that get
            features of their own.
        """

    @abstractmethod
    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine [R, 1, L, d / 2] of the rotary embedding, in the type of `like`.

        Args:
            positions: Long [A, R, L], on A axes.
            like: Whose type and device are wanted.
        """

    def run(
        self,
        ids: Tensor,
        positions: Tensor,
        attend: Attend,
        features: Tensor | None = None,
        wanted: Wanted | None = None,
    ) -> Tensor:
        """The text stack.

        Args:
            ids: Long [R, L].
            positions: Long [A, R, L].
            attend: How the layers attend, see :mod:`harness.policy.attention`.
            features: [sum of image tokens, D'] for the placeholders among the ids; None where there are none.
            wanted: Rows and places of the states that are asked for; None for all. The others end with the last layer's
                keys and values.

        Returns:
            Final hidden states [R, L, D], or [M, D] of those wanted, after the last norm, ready for the output head.
        """
        hidden: Tensor = self.text.embed_tokens(ids)
        deep: list[Tensor] = []
        places = (ids == self.image_token_id)[..., None]
        if features is not None:
            first, *deep = features.to(hidden.dtype).split(self.width, dim=-1)
            hidden = hidden.masked_scatter(places, first)
        cos, sin = self.rotation(positions, hidden)
        for index, block in enumerate(self.blocks):

            def here(queries: Tensor, keys: Tensor, values: Tensor, layer: int = index) -> Tensor:
                return attend(layer, queries, keys, values)

            last = wanted if index == self.num_layers - 1 else None
            if self.checkpointing and torch.is_grad_enabled():
                hidden = checkpoint(block, hidden, cos, sin, here, last, use_reentrant=False)
            else:
                hidden = block(hidden, cos, sin, here, last)
            if index < len(deep):
                hidden = hidden + torch.zeros_like(hidden).masked_scatter(places, deep[index])
        return rms_norm(self.text.norm, hidden)


def check_one_image(num_found: int, placeholder: str) -> None:
    """A question with an image's placeholder in its own text would be read as one with a further image.

    Raises:
        DataError: The turn has not exactly one placeholder.
    """
    if num_found != 1:
        raise DataError(
            f"one image and its question hold '{placeholder}' {num_found} times: "
            "take it out of the question's text, the image is put before it"
        )


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [..., L, d]: the halves of d are the coordinates of planes that turn by [..., L, d / 2]."""
    low, high = states.chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(states.dtype)
