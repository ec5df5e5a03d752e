"""Completions of a batch of prompts: one prefill per prompt, a cache shared out to the group, finished rows retired.

Randomness comes in as one uniform number per token, so a completion depends on its own numbers and not on what else is
in the batch, how rows are retired, or the device's generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.policy.attention import KeyValueCache
from harness.policy.policy import Policy
from harness.policy.prompt import PromptBatch

RETIRE_FRAC = 0.125
"""Finished rows are dropped from the cache once they are this share of it; copying it for each one would cost more."""


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
    device = batch.ids.device
    num_prompts = len(batch)
    group_size = 1 if uniforms is None else uniforms.shape[1]
    num_rows = num_prompts * group_size
    draws = None if uniforms is None else uniforms.to(device).reshape(num_rows, -1)
    ids = torch.full((num_rows, max_new_tokens), policy.pad_token_id, device=device)
    log_probs = torch.zeros((num_rows, max_new_tokens), device=device)
    lengths = torch.full((num_rows,), max_new_tokens, device=device)
    ended = torch.zeros(num_rows, dtype=torch.bool, device=device)
    ends = torch.tensor(policy.end_token_ids, device=device)
    banned = torch.tensor(policy.family.vision_token_ids, device=device)

    cache = KeyValueCache(batch.padding, policy.family.num_layers, group_size, max_new_tokens)
    last = (torch.arange(num_prompts, device=device), torch.full((num_prompts,), -1, device=device))
    hidden = policy.family.run(batch.ids, batch.positions, cache.prefill, features, wanted=last)
    cache.start()
    hidden = hidden.repeat_interleave(group_size, dim=0)
    position = batch.next_position.repeat_interleave(group_size)
    rows = torch.arange(num_rows, device=device)
    running = torch.ones(num_rows, dtype=torch.bool, device=device)

    for step in range(max_new_tokens):
        logits = policy.family.lm_head(hidden).float()
        logits[:, banned] = -torch.inf
        uniform = None if draws is None else draws[rows, step]
        token, log_prob = _draw(logits, uniform, temperature)
        live = rows[running]
        ids[live, step] = token[running]
        log_probs[live, step] = log_prob[running]
        stops = torch.isin(token, ends) & running
        lengths[rows[stops]] = step + 1
        ended[rows[stops]] = True
        running = running & ~stops
        num_running = int(running.sum())
        if num_running == 0 or step + 1 == max_new_tokens:
            break
        if num_running <= len(rows) * (1 - RETIRE_FRAC):
            kept = running.nonzero()[:, 0]
            cache.keep(kept)
            rows, position, token, running = rows[kept], position[kept], token[kept], running[kept]
        places = position.expand(len(batch.positions), -1)[..., None]
        hidden = policy.family.run(token[:, None], places, cache.decode)[:, 0]
        cache.advance()
        position = position + 1

    longest = int(lengths.max())
    shape = (num_prompts, group_size)
    return Completions(
        ids=ids[:, :longest].reshape(*shape, longest),
        lengths=lengths.reshape(shape),
        log_probs=log_probs[:, :longest].reshape(*shape, longest),
        finished=ended.reshape(shape),
    )


def _draw(logits: Tensor, uniform: Tensor | None, temperature: float) -> tuple[Tensor, Tensor]:
    """One token [R] and its log-prob [R] from logits [R, V]."""
    if uniform is None:
        log_probs = logits.log_softmax(dim=-1)
        best = log_probs.max(dim=-1)
        return best.indices, best.values
    log_probs = (logits / temperature).log_softmax(dim=-1)
    cumulative = log_probs.exp().cumsum(dim=-1)
    # Scaled to the last value, which rounding leaves a little off 1; `right` never picks a token of probability 0.
    threshold = (uniform[:, None] * cumulative[:, -1:]).clamp(max=cumulative[:, -1:] * (1 - 1e-7))
    token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[1] - 1)
    return token[:, 0], log_probs.gather(1, token)[:, 0]
