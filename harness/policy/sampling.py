"""Completions of a batch of prompts: one prefill per prompt, a cache shared by its group, ended rows dropped.

Randomness comes in as one uniform number per token, so a completion depends on its own numbers and not on what else is
in the batch, when rows are dropped, or the device's generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.policy.cache import CacheShape, KeyValueCache
from harness.policy.decoding import decoder
from harness.policy.drawing import Drawing
from harness.policy.families import Family, Plain
from harness.policy.policy import Policy
from harness.policy.prompt import PromptBatch

PADDING_FRAC = 0.25
"""The largest share of a prompt's row that may be padding while prompts are run; shorter ones are run apart."""


@dataclass(frozen=True)
class Completions:
    """G completions of each of N prompts.

    Attributes:
        ids: Long [N, G, T], padded behind each completion's end.
        lengths: Long [N, G], tokens with the end of turn, where it was reached.
        log_probs: Float32 [N, G, T] of the sampled tokens, at the sampling temperature; 0 at padding.
        finished: Bool [N, G], whether the end of turn was reached within the length limit.
    """

    ids: Tensor
    lengths: Tensor
    log_probs: Tensor
    finished: Tensor

    @property
    def mask(self) -> Tensor:
        """Bool [N, G, T], True at the completions' tokens (TRL's completion_mask)."""
        return torch.arange(self.ids.shape[2], device=self.ids.device) < self.lengths[..., None]

    @staticmethod
    def joined(parts: Sequence[Completions]) -> Completions:
        """The completions of several batches of prompts with groups of one size, as of one batch."""
        if len(parts) == 1:
            return parts[0]
        longest = max(part.ids.shape[2] for part in parts)

        def padded(states: Tensor, value: float) -> Tensor:
            return F.pad(states, (0, longest - states.shape[2]), value=value)

        pad = next((int(part.ids[~part.mask][0]) for part in parts if not part.mask.all()), 0)
        return Completions(
            ids=torch.cat([padded(part.ids, pad) for part in parts]),
            lengths=torch.cat([part.lengths for part in parts]),
            log_probs=torch.cat([padded(part.log_probs, 0.0) for part in parts]),
            finished=torch.cat([part.finished for part in parts]),
        )


@torch.no_grad()
def sample(
    policy: Policy,
    batch: PromptBatch,
    features: Tensor,
    *,
    max_new_tokens: int,
    uniforms: Tensor | None = None,
    temperature: float = 1.0,
) -> Completions:
    """Samples, or decodes greedily.

    A token is drawn by inverting the cumulative distribution at the given uniform number. Vision tokens have
    probability 0, and the kept log-probs are those of the distribution drawn from.

    Args:
        policy: The model.
        batch: N prompts.
        features: Their image features, from :meth:`Policy.encode_images`.
        max_new_tokens: Tokens at which a completion is cut.
        uniforms: Float32 [N, G, max_new_tokens] in [0, 1); None decodes greedily with G = 1.
        temperature: Logits are divided by it; ignored when greedy.
    """
    if isinstance(policy.family, Plain):
        return policy.family.sample(
            policy, batch, max_new_tokens=max_new_tokens, uniforms=uniforms, temperature=temperature
        )
    family = policy.family
    num_prompts = len(batch)
    group_size = 1 if uniforms is None else uniforms.shape[1]
    shape = CacheShape(
        num_layers=family.num_layers,
        num_heads=family.blocks[0].layer.self_attn.k_proj.out_features // family.head_dim,
        head_dim=family.head_dim,
        num_prompts=num_prompts,
        prompt_length=batch.ids.shape[1],
        group_size=group_size,
        capacity=max_new_tokens,
    )
    drawing = Drawing(
        temperature=None if uniforms is None else temperature,
        end_token_ids=policy.end_token_ids,
        banned_token_ids=family.vision_token_ids,
        pad_token_id=policy.pad_token_id,
    )
    # On small models it is the calls that take the time, and without a thought to gradients each takes less.
    with torch.inference_mode(), decoder(family, shape, drawing) as decode:
        hidden = _prefill(family, batch, features.split(policy.num_image_tokens(batch)), decode.cache)
        steps = torch.arange(max_new_tokens, device=hidden.device)
        positions = (batch.next_position[:, None] + steps).expand(len(batch.positions), -1, -1)
        decode.start(hidden, family.rotation(positions, hidden), batch.padding, uniforms)
        longest = decode.run()
        ids, log_probs = decode.ids[:, :longest], decode.log_probs[:, :longest]
    ids, log_probs = ids.clone(), log_probs.clone()  # as tensors that a backward pass may keep
    stops = torch.isin(ids, torch.tensor(policy.end_token_ids, device=ids.device))
    finished = stops.any(dim=1)
    lengths = torch.where(finished, stops.int().argmax(dim=1) + 1, longest)
    longest = int(lengths.max())
    groups = (num_prompts, group_size)
    return Completions(
        ids=ids[:, :longest].reshape(*groups, longest),
        lengths=lengths.reshape(groups),
        log_probs=log_probs[:, :longest].reshape(*groups, longest),
        finished=finished.reshape(groups),
    )


def _prefill(family: Family, batch: PromptBatch, features: Sequence[Tensor], cache: KeyValueCache) -> Tensor:
    """Puts the prompts into the cache, those of about one length at a time; the states behind them [N, D]."""
    lengths = batch.lengths.tolist()
    passes = _passes(lengths)
    found = []
    for places in passes:
        rows = torch.tensor(places, device=batch.ids.device)
        start = batch.ids.shape[1] - max(lengths[place] for place in places)
        found.append(
            family.run(
                batch.ids[rows, start:],
                batch.positions[:, rows, start:],
                cache.prefill(rows, batch.padding[rows, start:]),
                torch.cat([features[place] for place in places]),
                wanted=(torch.arange(len(places), device=rows.device), torch.full_like(rows, -1)),
            )
        )
    order = torch.tensor([place for places in passes for place in places], device=batch.ids.device)
    return torch.cat(found)[order.argsort()]


def _passes(lengths: Sequence[int]) -> list[list[int]]:
    """Places of prompts that go through the model together, so that the shortest of them is not much padding."""
    passes: list[list[int]] = []
    longest = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if not passes or lengths[place] < longest * (1 - PADDING_FRAC):
            passes.append([])
            longest = lengths[place]
        passes[-1].append(place)
    return [sorted(places) for places in passes]
