from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask

from harness.policy.attention import (
    BLOCK,
    Attend,
    attend_block_sparse,
    attend_masked,
    attend_shared_prefix,
    block_mask,
    causal_mask,
    scaled_dot_product,
    shared_prefix_mask,
)


def test_causal_mask_of_left_padding_by_hand() -> None:
    mask = causal_mask(torch.tensor([[True, False, False], [False, False, False]]))
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_shared_prefix_mask_by_hand() -> None:
    mask = shared_prefix_mask(torch.tensor([[[-1, 0, 0, 0, 0, 0, 4, 4, 4, -1]], [[0, 0, 0, 1, 1, 2, 0, 1, 3, 0]]]))
    assert mask.shape == (1, 1, 10, 10)
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
    ]


def random_segments(num_rows: int, length: int, seed: int = 0) -> Tensor:
    """Units of random prompts and completions, with padding at both ends and between some."""
    rng = random.Random(seed)
    segments = torch.stack([torch.full((num_rows, length), -1), torch.zeros((num_rows, length), dtype=torch.long)])
    for row in range(num_rows):
        place = rng.choice([0, 3])
        for unit in range(1, 9):
            sizes = [rng.randint(1, length // 3), *(rng.randint(0, length // 8) for _ in range(3))]
            if place + sum(sizes) > length:
                continue
            for member, size in enumerate(sizes):
                segments[0, row, place : place + size] = unit
                segments[1, row, place : place + size] = member
                place += size
            place += rng.choice([0, 0, 2])
    return segments


def test_what_a_place_sees_is_what_the_rules_say() -> None:
    segments = random_segments(4, 70)
    units, members = segments
    same = units[:, :, None] == units[:, None, :]
    own = (members[:, None, :] == 0) | (members[:, :, None] == members[:, None, :])
    wanted = same & own & (units >= 0)[:, :, None] & torch.ones(70, 70).tril().bool() | torch.eye(70).bool()
    assert torch.equal(shared_prefix_mask(segments)[:, 0], wanted)


@pytest.mark.parametrize("length", [60, 2 * BLOCK, 5 * BLOCK + 17])
def test_blocks_are_those_that_torch_finds_in_the_whole_mask(length: int) -> None:
    segments = random_segments(3, length)
    mask = shared_prefix_mask(segments)
    ours = block_mask(segments)
    torchs = create_block_mask(lambda row, head, query, key: mask[row, 0, query, key], 3, 1, length, length, "cpu")
    assert ours.shape == torchs.shape
    for name in ("kv", "full_kv", "q", "full_q"):
        num, indices = getattr(ours, f"{name}_num_blocks"), getattr(ours, f"{name}_indices")
        assert torch.equal(num, getattr(torchs, f"{name}_num_blocks")), name
        assert torch.equal(indices, getattr(torchs, f"{name}_indices")), name
    places = torch.arange(length)
    rows = torch.arange(3)[:, None, None]
    assert torch.equal(ours.mask_mod(rows, rows, places[:, None], places), mask[:, 0])


def test_blocks_between_completions_are_left_out() -> None:
    members = torch.arange(9).repeat_interleave(BLOCK)[None]
    blocks = block_mask(torch.stack([torch.zeros_like(members), members]))
    # Each completion reads the prompt's block whole, and half of its own; the prompt half of its own.
    assert blocks.full_kv_num_blocks.tolist() == [[[0] + [1] * 8]]
    assert blocks.kv_num_blocks.tolist() == [[[1] * 9]]
    members[0, BLOCK - 1] = 9
    almost = block_mask(torch.stack([torch.zeros_like(members), members]))
    assert not almost.full_kv_num_blocks.any()
    assert almost.kv_num_blocks.tolist() == [[[1] + [2] * 8]]


def attended(attend: Attend, states: list[Tensor], weights: Tensor) -> list[Tensor]:
    """What comes out, and the gradients of a weighted sum of it."""
    inputs = [state.clone().requires_grad_() for state in states]
    out = attend(0, *inputs)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), inputs)]


@pytest.mark.parametrize("num_key_heads", [4, 2])
@pytest.mark.parametrize("width", [16, 24, 8])
def test_block_sparse_attention_is_that_under_the_dense_mask(
    uncompiled_kernel: Callable[..., Tensor], num_key_heads: int, width: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    segments = random_segments(2, 150)
    states = [torch.randn(2, heads, 150, width, generator=generator) for heads in (4, num_key_heads, num_key_heads)]
    weights = torch.randn(2, 4, 150, width, generator=generator)
    wanted = attended(attend_masked(shared_prefix_mask(segments)), states, weights)
    got = attended(attend_block_sparse(segments, uncompiled_kernel), states, weights)
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the compiled kernel needs a CUDA device")
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("width", [16, 24, 128])
def test_the_compiled_kernel_is_chosen_for_long_rows_and_agrees(width: int) -> None:
    generator = torch.Generator().manual_seed(0)
    for num_rows, length in ((1, 1200), (2, 1531), (3, 2048)):
        segments = random_segments(num_rows, length).cuda()
        states = [torch.randn(num_rows, heads, length, width, generator=generator).cuda() for heads in (4, 2, 2)]
        weights = torch.randn(num_rows, 4, length, width, generator=generator).cuda()
        wanted = attended(attend_masked(shared_prefix_mask(segments)), states, weights)
        got = attended(attend_shared_prefix(segments), states, weights)
        for one, other in zip(got, wanted, strict=True):
            assert (one - other).norm() < 1e-4 * other.norm()


def test_on_a_cpu_the_mask_is_dense() -> None:
    segments = random_segments(1, 2000)
    states = [torch.randn(1, 1, 2000, 16, generator=torch.Generator().manual_seed(number)) for number in range(3)]
    wanted = scaled_dot_product(states[0], states[1], states[2], shared_prefix_mask(segments))
    assert torch.equal(attend_shared_prefix(segments)(0, *states), wanted)


def test_two_keys_by_hand() -> None:
    queries = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    keys = torch.tensor([[2**0.5, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    attended = scaled_dot_product(queries, keys, values, None)
    first = 1 / (1 + torch.tensor(-2.0).exp())
    torch.testing.assert_close(attended[0, 0, 0], torch.stack([first, 1 - first]))
    torch.testing.assert_close(attended[0, 0], attended[0, 1])


def test_products_of_bf16_agree_with_the_kernel_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8))
    states = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    weights = torch.randn((2, 4, 5, 8), generator=generator)
    for mask in (None, causal_mask(torch.tensor([[True, True, False, False, False], [False] * 5]))):
        exact = [state.float().requires_grad_() for state in states]
        coarse = [state.clone().requires_grad_() for state in states]
        wanted = scaled_dot_product(*exact, mask)
        got = scaled_dot_product(*coarse, mask)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), wanted, rtol=0.02, atol=0.02)
        (wanted * weights).sum().backward()
        (got.float() * weights).sum().backward()
        for one, other in zip(coarse, exact, strict=True):
            assert one.grad is not None and other.grad is not None
            assert (one.grad.float() - other.grad).norm() < 0.02 * other.grad.norm()
