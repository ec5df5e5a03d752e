from __future__ import annotations

import pytest
import torch

from harness.train.advantages import group_advantages


def test_one_of_four_by_hand() -> None:
    # Mean 1/4, sample variance (9/16 + 3/16) / 3 = 1/4, std 1/2.
    wanted = [0.75 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001, -0.25 / 0.5001]
    assert group_advantages(torch.tensor([[1.0, 0, 0, 0]]))[0].tolist() == pytest.approx(wanted, rel=1e-6)
    assert group_advantages(torch.tensor([[1.0, 0, 0, 0]]), "none")[0].tolist() == [0.75, -0.25, -0.25, -0.25]


def test_groups_do_not_mix() -> None:
    rewards = torch.tensor([[0.0, 2.0], [5.0, 5.0], [1.0, 0.0]])
    together = group_advantages(rewards)
    for row in range(3):
        assert torch.equal(together[row : row + 1], group_advantages(rewards[row : row + 1]))
    assert together[0].tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4)], rel=1e-6)


@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1 + 0.2, 1 / 3, 1e-8, 1e6])
@pytest.mark.parametrize("size", [2, 3, 7, 8])
@pytest.mark.parametrize("scale", ["std", "none"])
def test_equal_rewards_have_advantages_of_exactly_zero(reward: float, size: int, scale: str) -> None:
    advantages = group_advantages(torch.full((2, size), reward), scale)  # type: ignore[arg-type]
    assert torch.equal(advantages, torch.zeros(2, size))


def test_invariants() -> None:
    rewards = torch.rand(5, 8, generator=torch.Generator().manual_seed(0))
    advantages = group_advantages(rewards)
    torch.testing.assert_close(advantages.sum(dim=1), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(group_advantages(rewards + 3), advantages, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(advantages.std(dim=1), torch.ones(5), atol=2e-3, rtol=0)
    assert torch.equal(advantages.argsort(dim=1), rewards.argsort(dim=1))
