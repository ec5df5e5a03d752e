"""Log-probs of completions under a model, in one forward per prompt: the prompt once, its completions behind it.

A plain forward runs the prompt with each of its G completions, G * (P + C) tokens. Here a row holds P + G * C: the
completions see the prompt and themselves, not one another, and each counts its positions on from the prompt. The values
and gradients are those of the plain forward (tested to 1e-5 in float32).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from harness.policy.attention import attend_masked, shared_prefix_mask
from harness.policy.policy import Policy
from harness.policy.prompt import PromptBatch

MAX_LOGITS = 1 << 26
"""Logits alive at once; above it they are made and remade in chunks of tokens, so that memory does not grow."""


@dataclass(frozen=True)
class Packing:
    """Where the tokens of prompts and completions lie in the packed rows.

    Attributes:
        ids: Long [N, L].
        positions: Long [A, N, L].
        segments: Long [N, L]: 0 in the prompt, g + 1 in completion g, -1 at padding.
        sources: Long [N, G, T]: the packed place whose hidden state predicts a completion's token; 0 at padding.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    sources: Tensor


def pack(batch: PromptBatch, ids: Tensor, lengths: Tensor) -> Packing:
    """Lays each prompt's completions behind it.

    The last token of a completion predicts nothing, so it is left out of the row.

    Args:
        batch: N prompts.
        ids: Completions [N, G, T].
        lengths: Their tokens [N, G].
    """
    num_prompts, group_size, longest = ids.shape
    device = ids.device
    prompt_length = batch.ids.shape[1]
    inputs = (lengths - 1).clamp(min=0)
    starts = prompt_length + inputs.cumsum(dim=1) - inputs
    total = prompt_length + int(inputs.sum(dim=1).max())

    steps = torch.arange(longest, device=device).expand_as(ids)
    held = steps < inputs[..., None]
    row = torch.arange(num_prompts, device=device)[:, None, None].expand_as(ids)[held]
    place = (starts[..., None] + steps)[held]
    group = torch.arange(1, group_size + 1, device=device)[None, :, None].expand_as(ids)[held]

    packed = batch.ids.new_zeros(num_prompts, total)
    packed[:, :prompt_length] = batch.ids
    packed[row, place] = ids[held]
    positions = batch.positions.new_zeros(len(batch.positions), num_prompts, total)
    positions[..., :prompt_length] = batch.positions
    positions[:, row, place] = batch.next_position[row] + steps[held]
    segments = torch.full_like(packed, -1)
    segments[:, :prompt_length] = -batch.padding.long()
    segments[row, place] = group

    before = torch.where(steps == 0, prompt_length - 1, starts[..., None] + steps - 1)
    sources = torch.where(steps < lengths[..., None], before, 0)
    return Packing(packed, positions, segments, sources)


def completion_log_probs(
    policy: Policy,
    batch: PromptBatch,
    features: Tensor,
    ids: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Log-probs of each completion's tokens, differentiable in the model's weights and in `features`.

    Args:
        policy: The model.
        batch: N prompts.
        features: Their image features, from :meth:`Policy.encode_images`.
        ids: Completions [N, G, T], anything at padding.
        lengths: Their tokens [N, G].
        temperature: Logits are divided by it, as in sampling.

    Returns:
        Float32 [N, G, T]; 0 at padding. Vision tokens have probability 0, as in sampling.
    """
    packing = pack(batch, ids, lengths)
    mask = torch.arange(ids.shape[2], device=ids.device) < lengths[..., None]
    rows = torch.arange(ids.shape[0], device=ids.device)[:, None, None].expand_as(ids)[mask]
    chosen = policy.family.run(
        packing.ids,
        packing.positions,
        attend_masked(shared_prefix_mask(packing.segments)),
        features,
        wanted=(rows, packing.sources[mask]),
    )
    values = token_log_probs(chosen, ids[mask], policy.family.lm_head, policy.family.vision_token_ids, temperature)
    return values.new_zeros(ids.shape).masked_scatter(mask, values)


def token_log_probs(
    hidden: Tensor, ids: Tensor, head: Any, banned: tuple[int, ...] = (), temperature: float = 1.0
) -> Tensor:
    """Log-prob of one token per hidden state.

    Args:
        hidden: [M, D].
        ids: Long [M].
        head: The output head, [M, D] -> [M, V].
        banned: Ids of probability 0.
        temperature: Logits are divided by it.

    Returns:
        Float32 [M].
    """
    excluded = torch.tensor(banned, dtype=torch.long, device=hidden.device)

    def chunk(states: Tensor, tokens: Tensor) -> Tensor:
        logits = head(states).float() / temperature
        logits = logits.index_fill(1, excluded, -torch.inf)
        return -F.cross_entropy(logits, tokens, reduction="none")

    size = max(1, MAX_LOGITS // head.weight.shape[0])
    if len(ids) <= size:
        return chunk(hidden, ids)
    parts = [
        checkpoint(chunk, states, tokens, use_reentrant=False)
        for states, tokens in zip(hidden.split(size), ids.split(size), strict=True)
    ]
    return torch.cat(parts)
