from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.train.losses import LossTerms, grpo_loss, kl_estimate, sft_loss

# Two completions of three and two tokens; their ratios are 1.5, 0.5, 1 and 0.5, 1.5.
RATIOS = torch.tensor([[[1.5, 0.5, 1.0], [0.5, 1.5, 9.0]]])
MASK = torch.tensor([[[True, True, True], [True, True, False]]])
ADVANTAGES = torch.tensor([[1.0, -2.0]])
# min(ratio * A, clip(ratio, 0.8, 1.2) * A): 1.2, 0.5, 1 for A = 1; min(-1, -1.6) and min(-3, -2.4) for A = -2.
SURROGATES = ((1.2, 0.5, 1.0), (-1.6, -3.0))
NORMALISED = {
    "sequence": -((1.2 + 0.5 + 1.0) / 3 + (-1.6 - 3.0) / 2) / 2,
    "batch_tokens": -(1.2 + 0.5 + 1.0 - 1.6 - 3.0) / 5,
    "constant": -(1.2 + 0.5 + 1.0 - 1.6 - 3.0) / 10 / 2,
}


def loss_of(log_probs: Tensor, **given: Any) -> LossTerms:
    settings: dict[str, Any] = {
        "beta": 0.0,
        "num_completions": 2,
        "num_tokens": 5,
        "max_completion_length": 10,
    }
    return grpo_loss(log_probs, ADVANTAGES, MASK, **(settings | given))


@pytest.mark.parametrize("normalizer", NORMALISED)
def test_clipped_surrogate_by_hand(normalizer: str) -> None:
    old = torch.full_like(RATIOS, -1.0)
    log_probs = (RATIOS.log() + old).requires_grad_()
    terms = loss_of(log_probs, old_log_probs=old, normalizer=normalizer)
    assert terms.loss.item() == pytest.approx(NORMALISED[normalizer], rel=1e-6)
    assert (terms.clipped_sum.item(), terms.num_tokens.item(), terms.kl_sum.item()) == (2, 5, 0)
    terms.loss.backward()
    assert log_probs.grad is not None
    # Where the clip decides there is no gradient; elsewhere it is -ratio * A / count.
    per_token = {"sequence": (1 / 6, 1 / 4), "batch_tokens": (1 / 5, 1 / 5), "constant": (1 / 20, 1 / 20)}[normalizer]
    wanted = [
        [0.0, -0.5 * per_token[0], -1.0 * per_token[0]],
        [0.0, 2 * 1.5 * per_token[1], 0.0],
    ]
    torch.testing.assert_close(log_probs.grad[0], torch.tensor(wanted))


def test_on_policy_the_value_is_minus_the_mean_advantage_and_the_gradient_is_reinforce() -> None:
    log_probs = torch.full((1, 2, 3), -0.7, requires_grad=True)
    terms = loss_of(log_probs)
    assert terms.loss.item() == pytest.approx(0.5)
    terms.loss.backward()
    wanted = torch.tensor([[[-1 / 6] * 3, [2 / 4, 2 / 4, 0.0]]])
    torch.testing.assert_close(log_probs.grad, wanted)
    assert terms.clipped_sum.item() == 0


@pytest.mark.parametrize("d", [-1.0, 0.0, 0.5])
def test_kl_estimators_by_hand(d: float) -> None:
    log_prob = torch.tensor([-2.0])
    assert kl_estimate(log_prob, log_prob + d, "k3").item() == pytest.approx(math.exp(d) - d - 1, abs=1e-6)
    assert kl_estimate(log_prob, log_prob + d, "k2").item() == pytest.approx(d * d / 2)
    assert kl_estimate(log_prob, log_prob + d, "k1").item() == pytest.approx(-d)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_the_unbiased_estimators_have_the_kl_as_mean(estimator: str) -> None:
    policy = torch.tensor([0.5, 0.3, 0.2])
    reference = torch.tensor([0.2, 0.3, 0.5])
    exact = (policy * (policy / reference).log()).sum()
    mean = (policy * kl_estimate(policy.log(), reference.log(), estimator)).sum()  # type: ignore[arg-type]
    torch.testing.assert_close(mean, exact)


@pytest.mark.parametrize(("estimator", "kl"), [("k1", -0.5), ("k2", 0.125), ("k3", math.exp(0.5) - 1.5)])
def test_kl_is_added_with_its_coefficient(estimator: str, kl: float) -> None:
    log_probs = torch.full((1, 2, 3), -0.7, requires_grad=True)
    terms = loss_of(log_probs, beta=0.4, reference_log_probs=log_probs.detach() + 0.5, kl_estimator=estimator)
    assert terms.loss.item() == pytest.approx(0.5 + 0.4 * kl, rel=1e-5)
    assert terms.kl_sum.item() == pytest.approx(5 * kl, rel=1e-5)
    terms.loss.backward()
    assert log_probs.grad is not None
    # d kl / d log_prob: 1 for k1, -d for k2, 1 - exp(d) for k3.
    slope = {"k1": 1.0, "k2": -0.5, "k3": 1 - math.exp(0.5)}[estimator]
    assert log_probs.grad[0, 0, 0].item() == pytest.approx((-1 + 0.4 * slope) / 6, rel=1e-5)


def test_kl_is_measured_but_not_felt_at_beta_zero() -> None:
    log_probs = torch.full((1, 2, 3), -0.7)
    terms = loss_of(log_probs, reference_log_probs=log_probs + 0.5)
    assert terms.loss.item() == pytest.approx(0.5)
    assert terms.kl_sum.item() == pytest.approx(5 * (math.exp(0.5) - 1.5), rel=1e-5)


def test_beta_needs_reference_log_probs() -> None:
    with pytest.raises(ValueError, match=r"beta is 0\.1, so the loss needs reference log-probs"):
        loss_of(torch.zeros(1, 2, 3), beta=0.1)


@pytest.mark.parametrize("normalizer", NORMALISED)
def test_losses_of_parts_add_up_to_the_loss_of_the_whole(normalizer: str) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probs, old, reference = (-torch.rand(5, 3, 6, generator=generator) for _ in range(3))
    advantages = torch.randn(5, 3, generator=generator)
    mask = torch.arange(6) < torch.randint(1, 7, (5, 3, 1), generator=generator)
    settings: dict[str, Any] = {
        "beta": 0.1,
        "num_completions": 15,
        "num_tokens": int(mask.sum()),
        "max_completion_length": 6,
        "normalizer": normalizer,
    }

    def of(rows: slice) -> LossTerms:
        return grpo_loss(
            log_probs[rows],
            advantages[rows],
            mask[rows],
            old_log_probs=old[rows],
            reference_log_probs=reference[rows],
            **settings,
        )

    whole, parts = of(slice(None)), [of(slice(0, 2)), of(slice(2, 3)), of(slice(3, 5))]
    for name in ("loss", "kl_sum", "clipped_sum", "num_tokens"):
        torch.testing.assert_close(sum(getattr(part, name) for part in parts), getattr(whole, name))


@pytest.mark.parametrize("normalizer", NORMALISED)
def test_an_empty_completion_contributes_nothing(normalizer: str) -> None:
    log_probs = torch.full((1, 2, 3), -0.7, requires_grad=True)
    mask = MASK.clone()
    mask[0, 1] = False
    terms = grpo_loss(
        log_probs,
        ADVANTAGES,
        mask,
        beta=0.1,
        num_completions=2,
        num_tokens=3,
        max_completion_length=10,
        reference_log_probs=log_probs.detach(),
        normalizer=normalizer,  # type: ignore[arg-type]
    )
    assert terms.loss.item() == pytest.approx({"sequence": -1 / 2, "batch_tokens": -1, "constant": -3 / 20}[normalizer])
    terms.loss.backward()
    assert log_probs.grad is not None and not log_probs.grad[0, 1].any()


def test_sft_loss_is_the_mean_over_all_tokens() -> None:
    log_probs = torch.tensor([[[-1.0, -2.0, -9.0]], [[-3.0, -9.0, -9.0]]])
    mask = torch.tensor([[[True, True, False]], [[True, False, False]]])
    assert sft_loss(log_probs, mask, num_tokens=3).item() == pytest.approx(2.0)
    parts = [sft_loss(log_probs[row : row + 1], mask[row : row + 1], num_tokens=3).item() for row in range(2)]
    assert sum(parts) == pytest.approx(2.0)
    assert sft_loss(log_probs, torch.zeros_like(mask), num_tokens=0).item() == 0
