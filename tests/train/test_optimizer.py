from __future__ import annotations

import pytest
import torch
from torch import nn

from harness.spec import Sft
from harness.train.optimizer import Optimizer


def loss_of(model: nn.Linear) -> torch.Tensor:
    ones = torch.ones(1, model.in_features, dtype=model.weight.dtype)
    return model(ones).float().sum()


def test_float32_weights_are_their_own_masters() -> None:
    model = nn.Linear(3, 2)
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=0.1))
    assert optimizer.masters["weight"] is model.weight


def test_updates_below_the_resolution_of_bf16_add_up() -> None:
    model = nn.Linear(3, 2, bias=False).bfloat16()
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=1e-3))
    for done in range(1, 21):
        loss_of(model).backward()
        optimizer.clip()
        optimizer.step()
        # AdamW with a constant gradient moves by the learning rate; next to 1, bf16 knows only multiples of 1/256.
        torch.testing.assert_close(optimizer.masters["weight"], torch.full((2, 3), 1 - 1e-3 * done))
        assert torch.equal(model.weight, optimizer.masters["weight"].bfloat16())
    assert (model.weight < 1).all()


def test_gradients_of_parts_are_added_in_float32() -> None:
    model = nn.Linear(1, 1, bias=False).bfloat16()
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=1e-3))
    for value in (256.0, 1.0, 1.0):
        (model(torch.ones(1, 1, dtype=torch.bfloat16)).float().sum() * value).backward()
    assert optimizer.masters["weight"].grad is not None
    assert optimizer.masters["weight"].grad.item() == 258.0, "bf16 has no 257"
    assert model.weight.grad is None


def test_clipping_scales_the_norm_of_all_weights() -> None:
    model = nn.Linear(3, 2)
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=0.1, max_grad_norm=0.5))
    loss_of(model).backward()
    assert optimizer.clip() == pytest.approx(8**0.5)
    gradients = [master.grad for master in optimizer.masters.values() if master.grad is not None]
    assert torch.cat([gradient.flatten() for gradient in gradients]).norm() == pytest.approx(0.5, rel=1e-4)


def test_a_weight_without_gradient_gets_one_of_zeros() -> None:
    model = nn.Linear(3, 2)
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=0.1))
    model.weight.sum().backward()
    optimizer.fill_gradients()
    assert model.bias.grad is not None and not model.bias.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_state_goes_on_where_it_was(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).to(dtype)
    optimizer = Optimizer(dict(model.named_parameters()), Sft(lr=0.1))
    other = nn.Linear(3, 2).to(dtype)
    resumed = Optimizer(dict(other.named_parameters()), Sft(lr=0.1))
    for pair in ((model, optimizer),) * 2:
        loss_of(pair[0]).backward()
        pair[1].step()
    resumed.load_state({name: tensor.clone() for name, tensor in optimizer.state().items()})
    assert torch.equal(other.weight, model.weight)
    for each, its in ((model, optimizer), (other, resumed)):
        loss_of(each).backward()
        its.step()
    assert torch.equal(resumed.masters["bias"], optimizer.masters["bias"])
