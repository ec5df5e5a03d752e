"""A folder with Qwen2-VL-2B's architecture and random weights, for measuring speed where there is no download.

``python -m benchmarks.random_weights --scale 2b --out FOLDER``. Speed depends on sizes, not on what weights know. The
tokenizer is the embedded policy's, so most of the vocabulary stands for no text; its special tokens have other ids than
Qwen's, and the configuration says which.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch

SCALES: dict[str, dict[str, Any]] = {
    # config.json of Qwen/Qwen2-VL-2B-Instruct.
    "2b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "mrope_section": [16, 24, 24],
        "tower": {"depth": 32, "embed_dim": 1280, "num_heads": 16},
        "image_size": 448,
    },
    "small": {
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 2048,
        "mrope_section": [2, 3, 3],
        "tower": {"depth": 2, "embed_dim": 64, "num_heads": 2},
        "image_size": 112,
    },
}
"""Sizes by name; `image_size` bounds the pixels of an image, as a user would who wants it no larger."""


def config_of(scale: str, token_ids: dict[str, int]) -> Any:
    """A transformers configuration.

    Args:
        scale: A name of :data:`SCALES`.
        token_ids: Ids of Qwen2-VL's special tokens.
    """
    from transformers import Qwen2VLConfig

    sizes = SCALES[scale]
    text = {key: value for key, value in sizes.items() if key not in ("mrope_section", "tower", "image_size")}
    return Qwen2VLConfig(
        text_config={
            **text,
            "max_position_embeddings": 32_768,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1_000_000.0,
                "mrope_section": sizes["mrope_section"],
            },
            "bos_token_id": token_ids["<|endoftext|>"],
            "eos_token_id": token_ids["<|im_end|>"],
            "pad_token_id": token_ids["<|endoftext|>"],
        },
        vision_config={
            **sizes["tower"],
            "hidden_size": sizes["hidden_size"],
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


def build(folder: Path, scale: str, device: str = "cpu") -> None:
    """Writes weights (bf16 safetensors), configuration, tokenizer and image processor.

    Args:
        folder: Is made.
        scale: A name of :data:`SCALES`.
        device: Where the numbers are drawn; minutes on one CPU core at the scale of 2B, seconds on a GPU.
    """
    from transformers import Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from harness.policy import Policy, load_policy
    from harness.policy.base.tokenizer import SPECIAL_TOKENS

    tokenizer = load_policy("embedded").tokenizer
    token_ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    torch.manual_seed(0)
    with torch.device(device):
        model = Qwen2VLForConditionalGeneration._from_config(
            config_of(scale, token_ids), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model.generation_config.eos_token_id = token_ids["<|im_end|>"]
    model.generation_config.pad_token_id = token_ids["<|endoftext|>"]
    side = SCALES[scale]["image_size"]
    Policy(model, tokenizer, Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=side * side)).save(folder)


def main() -> None:
    """Builds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=tuple(SCALES), default="small")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the numbers are drawn")
    arguments = parser.parse_args()
    build(arguments.out, arguments.scale, arguments.device)


if __name__ == "__main__":
    main()
