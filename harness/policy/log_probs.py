"""Log-probs of completions under a model, in one forward: each prompt once, its completions behind it.

A plain forward runs the prompt with each of its G completions, G * (P + C) tokens. Here a prompt and its completions
take P + G * C: the completions see the prompt and themselves, not one another, and each counts its positions on from
the prompt. The values and gradients are those of the plain forward (tested to 1e-5 in float32).
"""

from __future__ import annotations

from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from harness.errors import ModelError
from harness.policy.attention import attend_shared_prefix
from harness.policy.families import Plain
from harness.policy.packing import pack
from harness.policy.policy import Policy
from harness.policy.prompt import PromptBatch

MAX_LOGITS = 1 << 26
"""Logits alive at once; above it they are made and remade in parts of the vocabulary, so that memory does not grow."""

_NEVER = -1e30
"""The logit of a banned id. Its probability is 0, as it would be at minus infinity, and 0 times it is not NaN."""


@overload
def completion_log_probs(
    policy: Policy,
    batch: PromptBatch,
    features: Tensor,
    ids: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: Literal[False] = False,
) -> Tensor: ...


@overload
def completion_log_probs(
    policy: Policy,
    batch: PromptBatch,
    features: Tensor,
    ids: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: Literal[True],
) -> tuple[Tensor, Tensor]: ...


def completion_log_probs(
    policy: Policy,
    batch: PromptBatch,
    features: Tensor,
    ids: Tensor,
    lengths: Tensor,
    *,
    temperature: float = 1.0,
    with_entropy: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Log-probs of each completion's tokens, differentiable in the model's weights and in `features`.

    Args:
        policy: The model.
        batch: N prompts.
        features: Their image features, from :meth:`Policy.encode_images`.
        ids: Completions [N, G, T], anything at padding.
        lengths: Their tokens [N, G].
        temperature: Logits are divided by it, as in sampling.
        with_entropy: Whether the entropies of the distributions that the tokens are drawn from are asked for too.

    Returns:
        Float32 [N, G, T]; 0 at padding. Vision tokens have probability 0, as in sampling. With `with_entropy` also the
        entropies, of the same shape, in nats and without a gradient.
    """
    if isinstance(policy.family, Plain):
        log_probs, entropy = policy.family.completion_log_probs(
            policy, batch, ids, lengths, temperature=temperature, with_entropy=with_entropy
        )
        return log_probs if entropy is None else (log_probs, entropy)
    packing = pack(batch, ids, lengths)
    if packing.order != tuple(range(len(batch))):
        by_prompt = features.split(policy.num_image_tokens(batch))
        features = torch.cat([by_prompt[prompt] for prompt in packing.order])
    mask = torch.arange(ids.shape[2], device=ids.device) < lengths[..., None]
    rows = packing.rows[:, None, None].expand_as(ids)[mask]
    chosen = policy.family.run(
        packing.ids,
        packing.positions,
        attend_shared_prefix(packing.segments),
        features,
        wanted=(rows, packing.sources[mask]),
    )
    log_probs, entropy = token_log_probs(
        chosen,
        ids[mask],
        policy.family.lm_head,
        policy.family.vision_token_ids,
        temperature,
        with_entropy=with_entropy,
    )

    def laid_out(values: Tensor) -> Tensor:
        return values.new_zeros(ids.shape).masked_scatter(mask, values)

    return laid_out(log_probs) if entropy is None else (laid_out(log_probs), laid_out(entropy))


def token_log_probs(
    hidden: Tensor,
    ids: Tensor,
    head: Any,
    banned: tuple[int, ...] = (),
    temperature: float = 1.0,
    *,
    with_entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of one token per hidden state.

    Args:
        hidden: [M, D].
        ids: Long [M].
        head: The output head, [M, D] -> [M, V].
        banned: Ids of probability 0.
        temperature: Logits are divided by it.
        with_entropy: Whether the entropy of each state's distribution is asked for too.

    Returns:
        Float32 [M], and the entropies in nats, float32 [M] without a gradient, or None.

    Raises:
        ModelError: The logits are too many to be made at once, and the head is no linear layer to take in parts.
    """
    if len(ids) * head.weight.shape[0] > MAX_LOGITS:
        return _in_parts_of_the_vocabulary(hidden, ids, head, banned, temperature, with_entropy)
    # Written for few passes over [M, V], in both directions: each costs about as much as the product does on a CPU.
    logits = head(hidden).float()
    if temperature != 1:
        logits = logits / temperature
    never = torch.tensor(banned, dtype=torch.long, device=hidden.device)
    every = F.log_softmax(logits.index_fill_(1, never, _NEVER), dim=-1)
    log_probs = every.gather(1, ids[:, None])[:, 0] + _impossible(ids, never)
    if not with_entropy:
        return log_probs, None
    every = every.detach()
    return log_probs, -torch.linalg.vecdot(every.exp(), every)


def _in_parts_of_the_vocabulary(
    hidden: Tensor, ids: Tensor, head: Any, banned: tuple[int, ...], temperature: float, with_entropy: bool
) -> tuple[Tensor, Tensor | None]:
    if not isinstance(head, nn.Linear):
        raise ModelError(
            f"{len(ids)} tokens' logits are too many at once, and only an output head that is a torch.nn.Linear can be "
            f"taken in parts, not a {type(head).__name__}: set a smaller execution.micro_batch_tokens"
        )
    weight: Tensor = head.weight
    bias: Tensor | None = head.bias
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    log_probs, entropy = _TokenLogProbs.apply(hidden, weight, bias, ids, banned, temperature, with_entropy)
    return log_probs, entropy


class _TokenLogProbs(torch.autograd.Function):
    """Log-probs and entropies from a linear head, a part of the vocabulary at a time in both directions.

    The forward pass keeps the log of the sum of exponentials of the parts so far, and the mean log-prob in them, which
    is the entropy's negative.
    The backward pass makes the logits again. Each part of the weight's gradient is one product over all tokens, summed
    in float32 inside of it and rounded once; the hidden states' gradient is summed over the parts in float32.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        ids: Tensor,
        banned: tuple[int, ...],
        temperature: float,
        with_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        ctx.banned, ctx.temperature = banned, temperature
        whole = hidden.new_full(ids.shape, _NEVER, dtype=torch.float32)
        negentropy, chosen = torch.zeros_like(whole), torch.zeros_like(whole)
        for start, stop in _parts(len(ids), len(weight)):
            logits = _logits(hidden, weight, bias, start, stop, banned, temperature)
            inside = (ids >= start) & (ids < stop)
            place = (ids - start).clamp(0, stop - start - 1)
            chosen = torch.where(inside, logits.gather(1, place[:, None])[:, 0], chosen)
            part = logits.logsumexp(dim=1)
            before, whole = whole, torch.logaddexp(whole, part)
            if with_entropy:
                logits.sub_(part[:, None])
                of_part = logits.exp().mul_(logits).sum(dim=1)
                share, part_share = before - whole, part - whole
                negentropy = share.exp() * (negentropy + share) + part_share.exp() * (of_part + part_share)
        ctx.save_for_backward(hidden, weight, bias, ids, whole)
        log_probs = chosen - whole + _impossible(ids, torch.tensor(banned, dtype=torch.long, device=ids.device))
        if not with_entropy:
            return log_probs, None
        entropy = -negentropy
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, ids, whole = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        to_hidden = torch.zeros_like(hidden, dtype=torch.float32) if needs_hidden else None
        to_weight = torch.empty_like(weight) if needs_weight else None
        to_bias = torch.empty_like(bias) if needs_bias else None
        slope = (gradient / ctx.temperature)[:, None]
        for start, stop in _parts(len(ids), len(weight)):
            # The gradient of a log-prob in its logits: 1 at the token, less the probabilities.
            logits = _logits(hidden, weight, bias, start, stop, ctx.banned, ctx.temperature)
            logits.sub_(whole[:, None]).exp_().mul_(-slope)
            inside = (ids >= start) & (ids < stop)
            place = (ids - start).clamp(0, stop - start - 1)
            logits.scatter_add_(1, place[:, None], torch.where(inside[:, None], slope, 0.0))
            _set_banned(logits, start, ctx.banned, 0.0)
            logits = logits.to(hidden.dtype)
            if to_hidden is not None:
                to_hidden += logits @ weight[start:stop]
            if to_weight is not None:
                torch.mm(logits.t(), hidden, out=to_weight[start:stop])
            if to_bias is not None:
                to_bias[start:stop] = logits.sum(dim=0)
        return None if to_hidden is None else to_hidden.to(hidden.dtype), to_weight, to_bias, None, None, None, None


def _parts(num_tokens: int, vocab_size: int) -> list[tuple[int, int]]:
    """Bounds of the parts of the vocabulary."""
    width = max(1, MAX_LOGITS // num_tokens)
    return [(start, min(start + width, vocab_size)) for start in range(0, vocab_size, width)]


def _logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    start: int,
    stop: int,
    banned: tuple[int, ...],
    temperature: float,
) -> Tensor:
    """Logits of a part of the vocabulary, float32 and a tensor of its own."""
    logits = F.linear(hidden, weight[start:stop], None if bias is None else bias[start:stop]).float().div_(temperature)
    _set_banned(logits, start, banned, _NEVER)
    return logits


def _impossible(ids: Tensor, banned: Tensor) -> Tensor:
    """Minus infinity where an id is banned, else 0."""
    return torch.where(torch.isin(ids, banned), -torch.inf, 0.0)


def _set_banned(logits: Tensor, start: int, banned: tuple[int, ...], value: float) -> None:
    for token in banned:
        if start <= token < start + logits.shape[1]:
            logits[:, token - start] = value
