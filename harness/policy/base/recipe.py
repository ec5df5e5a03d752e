"""The embedded policy's architecture and how it is trained, as one frozen record that its card repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IMAGE_SIZE = 112
"""Pixels; with patches of 14 merged 2 x 2, an image takes 16 text positions."""


@dataclass(frozen=True)
class Recipe:
    """Settings of `harness base build`; the defaults made the policy in the package."""

    seed: int = 0
    num_per_task: int = 25_000
    """Distinct training examples of each task."""
    num_steps: int = 5_000
    batch_size: int = 64
    lr: float = 1.5e-3
    """Peak, of AdamW, after the warm-up and before a cosine to a tenth of it."""
    warmup_steps: int = 200
    weight_decay: float = 0.05
    max_grad_norm: float = 1.0
    vocab_size: int = 1024
    """At most; merging stops where the corpus has nothing left to merge."""
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_key_value_heads: int = 2
    intermediate_size: int = 384
    vision_depth: int = 4
    vision_width: int = 128
    vision_heads: int = 4


def model_config(recipe: Recipe, vocab_size: int, token_ids: dict[str, int]) -> Any:
    """Qwen2-VL's configuration at the recipe's size.

    Args:
        recipe: The sizes.
        vocab_size: Tokens of the tokenizer as it was learnt.
        token_ids: Ids of the special tokens.
    """
    from transformers import Qwen2VLConfig

    half_head = recipe.hidden_size // recipe.num_heads // 2
    # Qwen2-VL's own proportions: 16, 24 and 24 of 64.
    frames = half_head // 4
    rows = (half_head - frames) // 2
    return Qwen2VLConfig(
        text_config={
            "vocab_size": vocab_size,
            "hidden_size": recipe.hidden_size,
            "intermediate_size": recipe.intermediate_size,
            "num_hidden_layers": recipe.num_layers,
            "num_attention_heads": recipe.num_heads,
            "num_key_value_heads": recipe.num_key_value_heads,
            "max_position_embeddings": 2048,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10_000.0,
                "mrope_section": [frames, rows, half_head - frames - rows],
            },
            "bos_token_id": token_ids["<|endoftext|>"],
            "eos_token_id": token_ids["<|im_end|>"],
            "pad_token_id": token_ids["<|endoftext|>"],
        },
        vision_config={
            "depth": recipe.vision_depth,
            "embed_dim": recipe.vision_width,
            "hidden_size": recipe.hidden_size,
            "num_heads": recipe.vision_heads,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
        image_token_id=token_ids["<|image_pad|>"],
        video_token_id=token_ids["<|video_pad|>"],
        vision_start_token_id=token_ids["<|vision_start|>"],
        vision_end_token_id=token_ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
