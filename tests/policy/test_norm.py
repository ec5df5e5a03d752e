from __future__ import annotations

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from harness.policy.norm import rms_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 4, 8)])
def test_values_and_gradients_are_transformers(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    norm = LlamaRMSNorm(shape[-1], eps=1e-3).to(dtype)
    norm.weight.data.normal_(generator=generator)
    gradient = torch.randn(shape, generator=generator).to(dtype)
    found = []
    for compute in (norm, lambda states: rms_norm(norm, states)):
        states = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
        norm.weight.grad = None
        out = compute(states)
        out.backward(gradient)
        found.append((out.detach(), states.grad, norm.weight.grad))
    exact = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 0.02, "atol": 0.02}
    assert torch.equal(found[0][0], found[1][0])
    for theirs, ours in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(ours, theirs, **exact)


def test_a_frozen_weight_gets_no_gradient() -> None:
    norm = LlamaRMSNorm(8)
    norm.weight.requires_grad_(False)
    states = torch.randn(3, 8, requires_grad=True)
    rms_norm(norm, states).sum().backward()
    assert norm.weight.grad is None and states.grad is not None
    with torch.no_grad():
        assert torch.equal(rms_norm(norm, states), norm(states))
