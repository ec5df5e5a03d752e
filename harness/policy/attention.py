"""The ways the text stack attends within whole sequences: under a mask, and behind a shared prefix.

Each is a function of (layer, queries, keys, values) that a family's text stack calls once a layer, with queries
[R, H, L, d] and keys and values [R, K, L, d] already rotated; H query heads share K key-value heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]

BLOCK_SPARSE_LENGTH = 1024
"""Tokens of a row from which block-sparse attention is taken on a CUDA device.

Below, a dense mask takes at most 1 MiB a row, and a model as small as the embedded one needs no compiler.
"""

BLOCK = 128
"""Queries and keys of a block."""

_NARROWEST_HEAD = 16


def scaled_dot_product(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(queries keys^T / sqrt(d)) values, with key-value heads shared among query heads.

    torch's fused kernel, but for bf16 on a CPU, where its backward pass takes four times as long as plain products.

    Args:
        queries: [R, H, L, d].
        keys: [R, K, S, d] with K a divisor of H.
        values: [R, K, S, d].
        mask: Bool [R, 1, L, S], True where a query sees a key; None for everywhere.
    """
    rows, heads, length, width = queries.shape
    if queries.device.type != "cpu":
        # With a mask and shared heads torch falls back to a kernel that keeps all [L, S] scores of every head
        # (huggingface/transformers#39412); with a copy of the keys and values per head it need not.
        if keys.shape[1] != heads:
            keys, values = (states.repeat_interleave(heads // states.shape[1], dim=1) for states in (keys, values))
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    if queries.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
    shared = queries.reshape(rows, keys.shape[1], -1, length, width)
    scores = (shared * width**-0.5) @ keys[:, :, None].transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], -torch.inf)
    return (scores.softmax(dim=-1) @ values[:, :, None]).reshape(rows, heads, length, width)


def attend_masked(mask: Tensor) -> Attend:
    """Attention within a batch of sequences.

    Args:
        mask: Bool [R, 1, L, L], True where a query (third axis) sees a key (fourth). Every query must see a key.
    """

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return scaled_dot_product(queries, keys, values, mask)

    return attend


def causal_mask(padding: Tensor) -> Tensor:
    """The mask of left-padded sequences.

    A padded query sees itself alone, so that its softmax is defined; nothing else sees it.

    Args:
        padding: Bool [R, L], True at padded positions.

    Returns:
        Bool [R, 1, L, L].
    """
    length = padding.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=padding.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=padding.device)
    return ((causal & ~padding[:, None, :]) | itself)[:, None]


def attend_shared_prefix(segments: Tensor) -> Attend:
    """Attention in rows of prompts with their completions.

    It is block-sparse on a CUDA device, for rows of at least `BLOCK_SPARSE_LENGTH`; else it is under a dense mask.

    Args:
        segments: As in :func:`shared_prefix_mask`.
    """
    if segments.device.type == "cuda" and segments.shape[-1] >= BLOCK_SPARSE_LENGTH:
        return attend_block_sparse(segments)
    return attend_masked(shared_prefix_mask(segments))


def shared_prefix_mask(segments: Tensor) -> Tensor:
    """The mask of rows that hold prompts, each with its completions behind it.

    A completion sees its own prompt and itself; completions do not see one another. A padded position sees itself
    alone.

    Args:
        segments: Long [2, R, L]: the unit of a prompt and its completions, -1 at padding; within it 0 in the prompt,
            g + 1 in completion g. Causal order is the row's order; a unit, and a completion in it, lies in one piece.

    Returns:
        Bool [R, 1, L, L].
    """
    start, end, own = (bounds[..., None] for bounds in _sight(segments))
    places = torch.arange(segments.shape[2], device=segments.device)
    return _sees(start, end, own, places[:, None], places)[:, None]


def _sight(segments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What each place sees: keys from the first bound to before the second, and from the third to itself.

    The first two bounds are the prompt as far as the place, the third is where its completion starts; for a place of a
    prompt nothing is left for it.

    Returns:
        Three times Int32 [R, L].
    """
    units, members = segments
    places = torch.arange(units.shape[1], device=segments.device).expand_as(units)
    before = F.pad(segments, (1, 0), value=-1)[..., :-1]
    new_unit = (units != before[0]) | (units < 0)
    in_prompt = members == 0
    new_member = (members != before[1]) & ~in_prompt
    start = torch.where(new_unit, places, 0).cummax(dim=1).values
    end = torch.where(in_prompt, places + 1, 0).cummax(dim=1).values
    own = torch.where(in_prompt, places + 1, torch.where(new_member, places, 0)).cummax(dim=1).values
    return start.int(), end.int(), own.int()


def _sees(start: Tensor, end: Tensor, own: Tensor, query: Tensor, key: Tensor) -> Tensor:
    return ((key >= start) & (key < end)) | ((key >= own) & (key <= query))


def attend_block_sparse(segments: Tensor, kernel: Callable[..., Tensor] | None = None) -> Attend:
    """Attention in rows of prompts with their completions that reads only the blocks in which a query sees a key.

    Of the scores of G completions with C tokens behind a prompt with P, it works out some P^2 / 2 + G C (P + C / 2) in
    place of (P + G C)^2, and keeps none. Heads narrower than 16 take the dense mask, since the kernel has no such
    widths; those that are no power of 2 are computed at the next one. The kernel is compiled at its first call, which
    needs Triton and a C compiler at run time: without them the call fails with torch's own words for what is missing,
    and nothing is put in its place.

    Args:
        segments: As in :func:`shared_prefix_mask`.
        kernel: What computes it; None for :func:`torch.nn.attention.flex_attention.flex_attention`, compiled.
    """
    blocks = block_mask(segments)
    dense: list[Tensor] = []

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        if queries.shape[-1] < _NARROWEST_HEAD:
            if not dense:
                dense.append(shared_prefix_mask(segments))
            return scaled_dot_product(queries, keys, values, dense[0])
        shared = keys.shape[1] != queries.shape[1]
        return (kernel or _compiled_kernel())(queries, keys, values, block_mask=blocks, enable_gqa=shared)

    return attend


@cache
def _compiled_kernel() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # One kernel for rows of any number and length. A whole graph: where it cannot be compiled it fails, and does not go
    # on uncompiled, with all scores in memory.
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)


def block_mask(segments: Tensor) -> BlockMask:
    """The mask of :func:`shared_prefix_mask` by blocks of `BLOCK` queries and keys, without its L^2 entries.

    torch's `create_block_mask` gives the same (tested) from a mask of all entries.

    Args:
        segments: As in :func:`shared_prefix_mask`.
    """
    from torch.nn.attention.flex_attention import BlockMask

    start, end, own = _sight(segments)
    length = start.shape[1]
    num_blocks = -(-length // BLOCK)
    places = torch.arange(length, dtype=torch.int32, device=segments.device)
    low = torch.arange(num_blocks, dtype=torch.int32, device=segments.device) * BLOCK
    high = low + BLOCK

    def overlap(first: Tensor, behind: Tensor) -> Tensor:
        """How many keys of each block lie between two bounds, [R, L, blocks]."""
        return (behind[..., None].minimum(high) - first[..., None].maximum(low)).clamp(min=0)

    seen = overlap(start, end) + overlap(own, (places + 1).expand_as(own))
    seen = F.pad(seen, (0, 0, 0, num_blocks * BLOCK - length)).unflatten(1, (num_blocks, BLOCK))
    full = (seen == BLOCK).all(dim=2)
    partial = (seen > 0).any(dim=2) & ~full

    def listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
        """Number [R, 1, blocks] and indices [R, 1, blocks, blocks] of the key blocks, those that are meant first."""
        indices = blocks.byte().argsort(dim=-1, descending=True, stable=True)
        return blocks.sum(dim=-1, dtype=torch.int32)[:, None], indices.int()[:, None].contiguous()

    def mask(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return _sees(start[row, query], end[row, query], own[row, query], query, key)

    return BlockMask.from_kv_blocks(
        *listed(partial), *listed(full), BLOCK_SIZE=BLOCK, mask_mod=mask, seq_lengths=(length, length)
    )
