"""Counted operations are those that torch counts while transformers and the harness compute; bytes are by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.operations import (
    Shapes,
    Sizes,
    causal_pairs,
    decode_bytes,
    decode_operations,
    head_operations,
    patch_operations,
    prefill_bytes,
    prefill_operations,
    text_operations,
    tower_operations,
    update_bytes,
    update_operations,
)
from benchmarks.random_weights import config_of
from harness.policy import Policy, completion_log_probs, load_policy
from harness.tasks.base import load_task

TOKEN_IDS = {
    "<|endoftext|>": 0,
    "<|im_end|>": 1,
    "<|image_pad|>": 2,
    "<|video_pad|>": 3,
    "<|vision_start|>": 4,
    "<|vision_end|>": 5,
}

TINY = Sizes(
    layers=2,
    width=4,
    heads=2,
    key_value_heads=1,
    head_dim=2,
    mlp_width=3,
    vocabulary=5,
    is_tied=True,
    tower_layers=1,
    tower_width=2,
    tower_mlp_width=8,
    patch_width=6,
    merge=4,
)


def counted(work: Callable[[], Any]) -> int:
    """Operations that torch sees; its fused attention on a CPU is not among those that it knows."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    total: int = counter.get_total_flops()
    return total


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy("embedded")


@pytest.fixture(scope="module")
def sizes(policy: Policy) -> Sizes:
    return Sizes.of(policy.model.config.to_dict())


@pytest.fixture(scope="module")
def inputs(policy: Policy) -> dict[str, torch.Tensor]:
    """A question with its picture as transformers takes it."""
    example = load_task("counting").example("validation", 0)
    prompt = policy.prompt(example.image, example.question)
    return {
        "input_ids": prompt.ids[None],
        "mm_token_type_ids": (prompt.ids == policy.family.image_token_id).int()[None],
        "pixel_values": prompt.pixels,
        "image_grid_thw": torch.tensor([prompt.grid]),
    }


def hidden_pairs(sizes: Sizes, tokens: int, pairs: int) -> int:
    """Operations of a dense square of attention beyond the pairs that see each other."""
    return text_operations(sizes, tokens, tokens * tokens) - text_operations(sizes, tokens, pairs)


@pytest.mark.parametrize("scale", ["2b", "small"])
def test_parameters_are_the_models(scale: str) -> None:
    from transformers import Qwen2VLForConditionalGeneration
    from transformers.initialization import no_init_weights

    config = config_of(scale, TOKEN_IDS)
    with no_init_weights(), torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config)
        model.tie_weights()
    found = Sizes.of(config.to_dict())
    assert found.parameters == sum(weight.numel() for weight in model.parameters())
    assert found.tower_parameters == sum(weight.numel() for weight in model.model.visual.parameters())


def test_prefill_is_what_transformers_computes(policy: Policy, sizes: Sizes, inputs: dict[str, torch.Tensor]) -> None:
    length, patches = inputs["input_ids"].shape[1], len(inputs["pixel_values"])
    with torch.no_grad():
        found = counted(lambda: policy.model(**inputs, use_cache=False, logits_to_keep=1))
    # transformers runs every token through the last layer, and a dense square of attention.
    expected = tower_operations(sizes, [patches]) + text_operations(sizes, length, length**2)
    assert found == expected + head_operations(sizes, 1)
    needed = prefill_operations(sizes, Shapes([length], [[1]], [patches]))
    last = text_operations(sizes, length, 0) - text_operations(sizes, length, 0, ends=1)
    assert found - needed == last + hidden_pairs(sizes, length, causal_pairs(length))


def test_decoding_is_what_transformers_computes(policy: Policy, sizes: Sizes, inputs: dict[str, torch.Tensor]) -> None:
    from transformers import DynamicCache

    length, cache = inputs["input_ids"].shape[1], DynamicCache()
    with torch.no_grad():
        policy.model(**inputs, past_key_values=cache, use_cache=True)
        token = torch.tensor([[7]])
        found = [counted(lambda: policy.model(input_ids=token, past_key_values=cache)) for _ in range(2)]
    assert sum(found) == decode_operations(sizes, Shapes([length], [[3]], [0]))


def test_a_plain_update_is_what_transformers_computes(
    policy: Policy, sizes: Sizes, inputs: dict[str, torch.Tensor]
) -> None:
    length, patches, completion = inputs["input_ids"].shape[1], len(inputs["pixel_values"]), torch.tensor([[7, 8, 9]])
    total = length + 3
    longer = inputs | {
        "input_ids": torch.cat([inputs["input_ids"], completion], dim=1),
        "mm_token_type_ids": torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, 3, dtype=torch.int)], dim=1),
    }
    predicting = torch.arange(length - 1, total - 1)

    def work() -> None:
        policy.model(**longer, use_cache=False, logits_to_keep=predicting).logits.sum().backward()

    found = counted(work)
    policy.model.zero_grad()
    needed = update_operations(sizes, Shapes([length], [[3]], [patches]), is_shared=False)
    assert found - needed == 3 * hidden_pairs(sizes, total, causal_pairs(total))


def test_a_shared_update_is_what_the_harness_computes(policy: Policy, sizes: Sizes) -> None:
    example = load_task("counting").example("validation", 0)
    prompt = policy.prompt(example.image, example.question)
    batch, lengths = policy.batch([prompt]), torch.tensor([[3, 5]])
    with sdpa_kernel(SDPBackend.MATH):
        features = policy.encode_images(batch)
    ids = torch.full((1, 2, 5), 7)
    found = counted(lambda: completion_log_probs(policy, batch, features, ids, lengths).sum().backward())
    policy.model.zero_grad()
    length = len(prompt.ids)
    needed = update_operations(sizes, Shapes([length], [[3, 5]], [len(prompt.pixels)]), is_shared=True)
    pairs = causal_pairs(length) + causal_pairs(2, length) + causal_pairs(4, length)
    # A dense square of attention and what else a kernel wastes, but nothing that grows with the layers' widths.
    assert needed <= found <= needed + 3 * hidden_pairs(sizes, length + 6, pairs)


def test_operations_by_hand() -> None:
    # Per layer: q, k, v 4 x (4 + 2 + 2) = 32, o 4 x 4 = 16, MLP 3 x 4 x 3 = 36; a pair takes 2 x 4 products.
    assert text_operations(TINY, tokens=3, pairs=6) == 2 * (2 * 3 * (32 + 16 + 36) + 2 * 6 * 2 * 4)
    assert text_operations(TINY, tokens=3, pairs=6, ends=1) == text_operations(TINY, 3, 6) - 2 * 2 * (16 + 36)
    assert head_operations(TINY, 3) == 2 * 3 * 20
    assert patch_operations(TINY, 4) == 2 * 4 * 12
    # One layer of 4 patches: 4 x 4 for qkv and projection, 2 x 2 x 8 for the MLP; 16 pairs; a merger 8 -> 8 -> 4.
    assert tower_operations(TINY, [4]) == 96 + 2 * 4 * (16 + 32) + 4 * 2 * 16 + 2 * (64 + 32)
    assert causal_pairs(3) == 6
    assert causal_pairs(2, before=10) == 10 + 1 + 10 + 2


def test_a_group_of_one_saves_only_what_nobody_asks_for() -> None:
    shapes = Shapes([10], [[4]], [4])
    shared, plain = (update_operations(TINY, shapes, is_shared=is_shared) for is_shared in (True, False))
    last_token = text_operations(TINY, 1, 14)
    unasked = text_operations(TINY, 13, 0) - text_operations(TINY, 13, 0, ends=4)
    assert plain - shared == 3 * (last_token + unasked) + tower_operations(TINY, [4])


def test_decoding_reads_a_prompt_once_for_its_group() -> None:
    shapes = Shapes([10, 6], [[3, 1], [2, 4]], [4, 4])
    # Runs: 2 and 0 tokens, 1 and 3 tokens; the longest completion makes three steps.
    weights = 3 * TINY.decoded_parameters
    own = (1 + 2) + 1 + (1 + 2 + 3)
    per_token = 2 * 2 * 1 * 2
    shared = 10 * 2 + 6 * 3
    copied = 10 * 2 + 6 * (1 + 3)
    assert TINY.cache_elements == per_token
    assert decode_bytes(TINY, shapes, "float32", is_shared=True) == 4 * (weights + per_token * (own + shared))
    assert decode_bytes(TINY, shapes, "bf16", is_shared=False) == 2 * (weights + per_token * (own + copied))
    # Layer: q, k, v (4 + 1) x 8, o 16, MLP 36, norms 8; then the last norm and the head.
    assert TINY.decoded_parameters == 2 * (40 + 16 + 36 + 8) + 4 + 20
    assert prefill_bytes(TINY, shapes, "bf16") == 2 * (TINY.tower_parameters + TINY.decoded_parameters + 16 * per_token)


def test_a_rollout_of_single_tokens_has_no_decoding() -> None:
    shapes = Shapes([10], [[1, 1]], [4])
    assert decode_bytes(TINY, shapes, "float32", is_shared=True) == 0
    assert decode_operations(TINY, shapes) == 0


def test_bytes_of_an_update_by_hand() -> None:
    # float32: forward 4, backward 4, gradient 4; norm 4; AdamW reads 16, writes 12.
    assert update_bytes(1, "float32") == 44
    # bf16: 2 + 2 and a float32 gradient of 4; norm 4; AdamW 28 on float32 masters; the rounded weight 2.
    assert update_bytes(1, "bf16") == 42
    # A second pass: weights twice more, gradient read and written.
    assert update_bytes(10, "bf16", num_passes=2) == 10 * (42 + 4 + 8)
