"""RMS norms as one operation in each direction; transformers' own makes seven on the way and some fifteen back."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def rms_norm(norm: Any, states: Tensor) -> Tensor:
    """The norm w x / sqrt(mean(x^2) + e), as transformers' of the Llama kind: in float32, rounded before w.

    torch's kernel on CUDA. On a CPU its backward pass is as slow as transformers', so there it is ours (half the time).

    Args:
        norm: With `weight` [D] and `variance_epsilon`.
        states: [..., D].
    """
    if states.is_cuda:
        return F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)
    normed: Tensor = _RmsNorm.apply(states, norm.weight, norm.variance_epsilon)
    return normed


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        wide = states.float()
        scale = wide.square().mean(dim=-1, keepdim=True).add_(epsilon).rsqrt_()
        unit = wide * scale
        ctx.save_for_backward(unit, weight, scale)
        return weight * unit.to(states.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, scale = ctx.saved_tensors
        dtype, gradient = gradient.dtype, gradient.float()
        # With u = x s: dL/dw = sum of g u, and dL/dx = s (w g - u mean(w g u)).
        by_unit = gradient * unit
        to_weight = by_unit.flatten(0, -2).sum(dim=0).to(weight.dtype) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, to_weight, None
        mean = (by_unit @ weight.float())[..., None].div_(unit.shape[-1])
        to_states = (gradient * weight).addcmul_(unit, mean, value=-1).mul_(scale)
        return to_states.to(dtype), to_weight, None
