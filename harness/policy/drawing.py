"""Which token comes next: the distribution drawn from, turned into a token by one uniform number."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drawing:
    """How tokens are chosen.

    Attributes:
        temperature: Logits are divided by it; None to take the likeliest token.
        end_token_ids: Tokens that end a completion.
        banned_token_ids: Tokens of probability 0.
        pad_token_id: What stands behind a completion's end.
    """

    temperature: float | None
    end_token_ids: tuple[int, ...]
    banned_token_ids: tuple[int, ...]
    pad_token_id: int


def draw(logits: Tensor, uniform: Tensor | None, temperature: float | None) -> tuple[Tensor, Tensor]:
    """Chooses tokens by inverting the cumulative distribution.

    Args:
        logits: [R, V].
        uniform: [R] in [0, 1); None for the likeliest tokens.
        temperature: Logits are divided by it; ignored where the likeliest are taken.

    Returns:
        Tokens [R], and their log-probs [R].
    """
    if uniform is None:
        log_probs = logits.log_softmax(dim=-1)
        best = log_probs.max(dim=-1)
        return best.indices, best.values
    log_probs = (logits if temperature in (None, 1.0) else logits / temperature).log_softmax(dim=-1)
    cumulative = log_probs.exp().cumsum(dim=-1)
    # Scaled to the last value, which rounding leaves a little off 1; `right` never picks a token of probability 0.
    threshold = (uniform[:, None] * cumulative[:, -1:]).clamp(max=cumulative[:, -1:] * (1 - 1e-7))
    token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=logits.shape[1] - 1)
    return token[:, 0], log_probs.gather(1, token)[:, 0]
