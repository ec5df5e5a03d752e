"""The losses, as functions of log-probs. Every choice that "GRPO" leaves open is an argument."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


def kl_estimate(log_probs: Tensor, reference_log_probs: Tensor, estimator: Literal["k1", "k2", "k3"] = "k3") -> Tensor:
    """Per-token estimate of KL(policy || reference) from tokens that the policy sampled.

    With d = reference - policy log-prob:

        k3 = exp(d) - d - 1    (OThink-MR1, Eq. 5; never negative, unbiased)
        k2 = d^2 / 2           (never negative, biased, low variance)
        k1 = -d                (unbiased, either sign)

    The estimate is not multiplied by the importance ratio (TRL: `use_bias_correction_kl=False`).

    Args:
        log_probs: Any shape.
        reference_log_probs: The same shape.
        estimator: Which of the three.
    """
    difference = reference_log_probs - log_probs
    if estimator == "k1":
        return -difference
    if estimator == "k2":
        return difference.square() / 2
    return difference.exp() - difference - 1


@dataclass(frozen=True)
class LossTerms:
    """A loss and what it is made of.

    Attributes:
        loss: Scalar, differentiable.
        kl_sum: The KL estimate summed over tokens; 0 without a reference.
        clipped_sum: Tokens at which the clip decides the surrogate.
        num_tokens: Tokens of the completions.
    """

    loss: Tensor
    kl_sum: Tensor
    clipped_sum: Tensor
    num_tokens: Tensor


def grpo_loss(
    log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    beta: float,
    num_completions: int,
    num_tokens: int,
    max_completion_length: int,
    old_log_probs: Tensor | None = None,
    reference_log_probs: Tensor | None = None,
    clip_epsilon: float = 0.2,
    normalizer: Literal["sequence", "batch_tokens", "constant"] = "sequence",
    kl_estimator: Literal["k1", "k2", "k3"] = "k3",
) -> LossTerms:
    """The clipped surrogate with the KL in the loss (OThink-MR1, Eq. 4 and 5).

    With ratio = exp(log_prob - old_log_prob), for each token

        l = -min(ratio * A, clip(ratio, 1 - e, 1 + e) * A) + beta * kl

    and over tokens and completions

        sequence      mean over each completion's tokens, then mean over completions   (the paper, R1-V)
        batch_tokens  sum / num_tokens                                                 (DAPO)
        constant      sum / max_completion_length, then mean over completions          (Dr.GRPO)

    The counts are those of the whole step, so that the losses of its parts add up to its loss. A completion without
    tokens contributes 0. On-policy (no `old_log_probs`) the ratio is exactly 1 and its gradient that of the log-prob.

    Args:
        log_probs: Float [N, G, T], differentiable.
        advantages: Float [N, G].
        mask: Bool [N, G, T], True at tokens of completions.
        beta: The KL coefficient of this step.
        num_completions: Completions in the whole step.
        num_tokens: Tokens of completions in the whole step.
        max_completion_length: The limit of sampling, in tokens.
        old_log_probs: Float [N, G, T] of the policy that sampled; None when that is the policy itself.
        reference_log_probs: Float [N, G, T]; needed where beta is above 0.
        clip_epsilon: e above.
        normalizer: How tokens are averaged.
        kl_estimator: See :func:`kl_estimate`.
    """
    old = log_probs.detach() if old_log_probs is None else old_log_probs
    ratio = (log_probs - old).exp()
    advantage = advantages[..., None]
    unclipped = ratio * advantage
    clipped = ratio.clamp(1 - clip_epsilon, 1 + clip_epsilon) * advantage
    per_token = -torch.minimum(unclipped, clipped)
    kl = torch.zeros_like(per_token)
    if reference_log_probs is not None:
        kl = kl_estimate(log_probs, reference_log_probs, kl_estimator)
        if beta:
            per_token = per_token + beta * kl
    elif beta:
        raise ValueError(f"beta is {beta:g}, so the loss needs reference log-probs")
    weight = mask.to(per_token.dtype)
    per_completion = (per_token * weight).sum(dim=-1)
    if normalizer == "sequence":
        loss = (per_completion / weight.sum(dim=-1).clamp(min=1)).sum() / num_completions
    elif normalizer == "batch_tokens":
        loss = per_completion.sum() / max(num_tokens, 1)
    else:
        loss = per_completion.sum() / max_completion_length / num_completions
    return LossTerms(
        loss=loss,
        kl_sum=(kl.detach() * weight).sum(),
        clipped_sum=((clipped < unclipped) & mask).sum(),
        num_tokens=mask.sum(),
    )


def sft_loss(log_probs: Tensor, mask: Tensor, *, num_tokens: int) -> Tensor:
    """Cross-entropy of the target completions: the mean over all tokens of the step.

    Args:
        log_probs: Float [N, 1, T], differentiable.
        mask: Bool [N, 1, T].
        num_tokens: Tokens of the whole step, so that the losses of its parts add up to its loss.
    """
    return -(log_probs * mask).sum() / max(num_tokens, 1)
