"""What a model must move for a prefill, a decoded token and an update, counted by hand.

Operations are counted in :mod:`harness.launch.estimate.operations`, where plans need them too.
Bytes are a lower bound: weights, gradients, optimiser state and the key-value cache are counted; activations, which a
kernel may or may not keep on chip, are not.
"""

from __future__ import annotations

from harness.launch.estimate.operations import (
    Shapes,
    Sizes,
    causal_pairs,
    decode_operations,
    head_operations,
    patch_operations,
    prefill_operations,
    text_operations,
    tower_operations,
    update_operations,
)

__all__ = [
    "ELEMENT_BYTES",
    "Shapes",
    "Sizes",
    "causal_pairs",
    "decode_bytes",
    "decode_operations",
    "head_operations",
    "patch_operations",
    "prefill_bytes",
    "prefill_operations",
    "text_operations",
    "tower_operations",
    "update_bytes",
    "update_operations",
]

ELEMENT_BYTES = {"float32": 4, "bf16": 2}


def prefill_bytes(sizes: Sizes, shapes: Shapes, precision: str) -> int:
    """Tower, layers and head read once, the prompts' keys and values written."""
    weights = sizes.tower_parameters + sizes.decoded_parameters
    return ELEMENT_BYTES[precision] * (weights + sizes.cache_elements * sum(shapes.prompts))


def decode_bytes(sizes: Sizes, shapes: Shapes, precision: str, *, is_shared: bool) -> int:
    """Bytes of all of a rollout's decoding steps; step t runs token t of every completion that has a token behind it.

    Each step reads the layers' weights and the head once, and the prompts' keys and values; and of each such completion
    it reads the t - 1 cached tokens and writes the new one.

    Args:
        sizes: The model's.
        shapes: The rollout's.
        precision: Of weights and cache.
        is_shared: Whether a prompt's keys and values are read once for its group (the harness) or once per completion.
    """
    longest = max((length for group in shapes.completions for length in group), default=0)
    tokens = 0
    for prompt, group in zip(shapes.prompts, shapes.completions, strict=True):
        tokens += sum(causal_pairs(length - 1) for length in group if length > 0)
        runs = [max(length - 1, 0) for length in group]
        tokens += prompt * (max(runs, default=0) if is_shared else sum(runs))
    weights = sizes.decoded_parameters * max(longest - 1, 0)
    return ELEMENT_BYTES[precision] * (weights + sizes.cache_elements * tokens)


def update_bytes(parameters: int, precision: str, num_passes: int = 1) -> int:
    """Bytes of an update of all weights.

    Each pass reads the weights forward and backward and writes their float32 gradients, which from the second pass on
    are read to be added to. Clipping reads the gradients (4). AdamW reads gradient, weight and two moments (16) and
    writes the latter three (12), all in float32. A bf16 weight is written once more, rounded.

    Args:
        parameters: How many weights learn.
        precision: Of the weights that compute.
        num_passes: Forward and backward passes.
    """
    element = ELEMENT_BYTES[precision]
    passes = num_passes * (2 * element + 4) + (num_passes - 1) * 4
    rounding = element if precision == "bf16" else 0
    return parameters * (passes + 4 + 16 + 12 + rounding)
