from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

import harness.train.grpo as grpo_module
from harness.policy import completion_log_probs
from harness.spec import OthinkSchedule, beta_at
from harness.tasks.rewards import accuracy_rewards, format_rewards
from harness.train.advantages import group_advantages
from harness.train.loop import Loop
from harness.train.losses import grpo_loss
from harness.train.memory import TokenBudget
from harness.train.method import Batch

MakeLoop = Callable[..., Loop]
WIDE = {"prompts_per_step": 6, "num_train": 12}


def gradients(loop: Loop, batch: Batch, rows: Sequence[int], tokens: int | None = None) -> dict[str, Tensor]:
    """Every parameter's gradient of the step's loss over some of its prompts, as the loop takes it."""
    loop.policy.model.zero_grad()
    batch.rows = rows
    batch.reencode(loop.policy)
    for part in batch.parts(loop.policy, TokenBudget(tokens)):
        loop.method.loss(part, 0)[0].backward()
    batch.images.backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in loop.policy.model.named_parameters()
    }


def assert_near(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    whole = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    assert whole > 1e-3
    for name, gradient in wanted.items():
        assert (got[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-6 * whole, name


def test_a_batch_holds_rewards_of_its_own_texts(make_loop: MakeLoop) -> None:
    loop = make_loop("grpo", format_weight=0.5)
    batch = loop.method.collect(0)
    drawn: Any = loop.method
    examples = {example.id: example for _, example, _ in drawn.data.step(0, 4)}
    assert len(batch.samples) == 16 == batch.num_completions
    for row in batch.samples:
        texts, solutions = [row["completion"]], [examples[row["id"]].solution]
        assert row["accuracy"] == accuracy_rewards(texts, solutions)[0]
        assert row["format"] == format_rewards(texts)[0]
        assert row["reward"] == row["accuracy"] + 0.5 * row["format"]
    rewards = torch.tensor([row["reward"] for row in batch.samples]).view(4, 4)
    assert torch.equal(batch.tensors["advantages"], group_advantages(rewards))
    assert 0 < rewards.mean() < 1.5
    assert batch.metrics["rollout/reward"] == pytest.approx(rewards.mean().item())
    assert batch.metrics["rollout/length"] == pytest.approx(batch.lengths.float().mean().item())
    assert batch.metrics["rollout/zero_signal_frac"] == (rewards.std(dim=1) == 0).float().mean().item()


def test_the_step_is_the_papers_loss_of_the_policy_and_its_start(make_loop: MakeLoop) -> None:
    loop = make_loop("grpo", num_steps=2)
    steps = loop.run()
    next(steps)
    trainer: Any = loop.method
    batch = loop.method.collect(1)
    with torch.no_grad(), trainer.reference.active() as reference:
        policy_log_probs, reference_log_probs = (
            completion_log_probs(each, batch.prompts, each.encode_images(batch.prompts), batch.ids, batch.lengths)
            for each in (loop.policy, reference)
        )
    mask = torch.arange(batch.ids.shape[2]) < batch.lengths[..., None]
    terms = grpo_loss(
        policy_log_probs,
        batch.tensors["advantages"],
        mask,
        beta=0.04,
        num_completions=16,
        num_tokens=int(mask.sum()),
        max_completion_length=20,
        reference_log_probs=reference_log_probs,
    )
    metrics = next(steps).metrics
    assert terms.kl_sum > 1e-4
    assert metrics["train/loss"] == pytest.approx(terms.loss.item(), rel=1e-5, abs=1e-7)
    assert metrics["train/kl"] == pytest.approx((terms.kl_sum / terms.num_tokens).item(), rel=1e-4)
    assert metrics["train/beta"] == 0.04


def test_grpo_d_with_a_constant_schedule_is_grpo_to_the_bit(make_loop: MakeLoop, finish: Any, weights: Any) -> None:
    plain = make_loop("grpo", schedule={"type": "constant", "beta": 0.1})
    dynamic = make_loop("grpo_d", schedule={"type": "constant", "beta": 0.1})
    assert finish(plain) == finish(dynamic)
    other = weights(dynamic)
    for name, value in weights(plain).items():
        assert torch.equal(value, other[name]), name


def test_beta_follows_the_schedule(make_loop: MakeLoop, finish: Any) -> None:
    schedule = OthinkSchedule(beta_min=0.1, beta_max=0.4)
    rows = finish(make_loop("grpo_d", num_steps=4, schedule=schedule.model_dump()))
    assert [row["train/beta"] for row in rows] == [beta_at(schedule, step, 4) for step in range(4)]
    assert rows[0]["train/kl"] == pytest.approx(0, abs=1e-9) and rows[-1]["train/kl"] > 0


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_at_the_first_step_the_policy_is_its_reference(make_loop: MakeLoop, finish: Any, temperature: float) -> None:
    (row,) = finish(make_loop("grpo", num_steps=1, temperature=temperature))
    assert row["train/kl"] == pytest.approx(0, abs=1e-9)


def test_at_beta_zero_there_is_no_reference(make_loop: MakeLoop, finish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop("grpo", schedule={"type": "constant", "beta": 0.0})
    trainer: Any = loop.method
    assert trainer.reference is None
    forwards: list[object] = []

    def counted(policy: object, *given: Any, **named: Any) -> Tensor:
        forwards.append(policy)
        return completion_log_probs(policy, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(grpo_module, "completion_log_probs", counted)
    rows = finish(loop)
    assert forwards == [loop.policy] * sum(row["rollout/zero_signal_frac"] < 1 for row in rows)
    assert all("train/kl" not in row for row in rows)


def test_a_step_with_beta_zero_skips_the_reference_of_a_schedule(
    make_loop: MakeLoop, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop("grpo_d", num_steps=2, schedule={"type": "linear", "beta_min": 0.0, "beta_max": 0.2})
    forwards: list[bool] = []

    def counted(policy: object, *given: Any, **named: Any) -> Tensor:
        forwards.append(policy is not loop.policy)
        return completion_log_probs(policy, *given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(grpo_module, "completion_log_probs", counted)
    rows = finish(loop)
    assert sum(forwards) == 1
    assert ["train/kl" in row for row in rows] == [False, True]


def test_groups_without_signal_have_no_gradient_at_beta_zero(make_loop: MakeLoop) -> None:
    loop = make_loop("grpo", schedule={"type": "constant", "beta": 0.0}, group_size=2, **WIDE)
    batch = next(batch for batch in map(loop.method.collect, range(9)) if 0 < len(batch.rows) < 6)
    rows = list(batch.rows)
    assert_near(gradients(loop, batch, rows), gradients(loop, batch, range(6)))
    held = make_loop("grpo", group_size=2, **WIDE).method.collect(0)
    assert list(held.rows) == list(range(6)), "the KL term holds every group"
    without = [row for row in range(6) if row not in rows]
    assert not any(gradient.any() for gradient in gradients(loop, batch, without).values())


def test_a_step_without_any_signal_moves_nothing_at_beta_zero(make_loop: MakeLoop, finish: Any, weights: Any) -> None:
    loop = make_loop("grpo", schedule={"type": "constant", "beta": 0.0}, max_completion_length=1)
    before = weights(loop)
    rows = finish(loop)
    assert [row["rollout/zero_signal_frac"] for row in rows] == [1.0] * 3
    assert [(row["train/loss"], row["train/grad_norm"], row["rollout/cut_frac"]) for row in rows] == [(0, 0, 1)] * 3
    for name, value in weights(loop).items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("tokens", [1, 90, 200])
def test_parts_of_a_step_have_the_gradient_of_the_whole_with_the_image_towers(make_loop: MakeLoop, tokens: int) -> None:
    loop = make_loop("grpo", temperature=0.7, **WIDE)
    batch = loop.method.collect(0)
    parts = gradients(loop, batch, range(6), tokens)

    loop.policy.model.zero_grad()
    features = loop.policy.encode_images(batch.prompts)
    log_probs = completion_log_probs(loop.policy, batch.prompts, features, batch.ids, batch.lengths, temperature=0.7)
    grpo_loss(
        log_probs,
        batch.tensors["advantages"],
        torch.arange(batch.ids.shape[2]) < batch.lengths[..., None],
        beta=0.04,
        num_completions=batch.num_completions,
        num_tokens=batch.num_tokens,
        max_completion_length=20,
        reference_log_probs=batch.tensors["reference_log_probs"],
    ).loss.backward()
    direct = {name: parameter.grad for name, parameter in loop.policy.model.named_parameters()}
    assert all(direct[name].norm() > 0 for name in direct if "visual.patch_embed" in name)
    assert_near(parts, direct)


@pytest.mark.parametrize("micro_batch_tokens", [1, 70, 150])
@pytest.mark.parametrize("settings", [{}, {"updates_per_rollout": 2, "schedule": {"type": "constant", "beta": 0.0}}])
def test_micro_batches_change_no_metric(
    make_loop: MakeLoop, finish: Any, micro_batch_tokens: int, settings: dict[str, Any]
) -> None:
    whole = finish(make_loop("grpo", num_steps=2, **settings))
    parts = finish(make_loop("grpo", num_steps=2, micro_batch_tokens=micro_batch_tokens, **settings))
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_a_second_update_on_a_rollout_leaves_ratio_one(
    make_loop: MakeLoop, finish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios: list[Tensor] = []

    def watched(log_probs: Tensor, *given: Any, old_log_probs: Tensor | None, **named: Any) -> Any:
        ratios.append((log_probs - (log_probs if old_log_probs is None else old_log_probs)).detach().exp())
        return grpo_loss(log_probs, *given, old_log_probs=old_log_probs, **named)

    monkeypatch.setattr(grpo_module, "grpo_loss", watched)
    finish(make_loop("grpo", num_steps=1, updates_per_rollout=3, lr=3e-3))
    first, *later = ratios
    assert torch.equal(first, torch.ones_like(first))
    assert len(later) == 2 and all((ratio - 1).abs().max() > 1e-2 for ratio in later)


def test_the_adaptive_coefficient_moves_with_the_kl_and_is_part_of_the_checkpoint(
    make_loop: MakeLoop, finish: Any
) -> None:
    schedule = {"type": "adaptive", "beta_init": 0.1, "target_kl": 10.0, "horizon": 5.0}
    loop = make_loop("grpo_d", schedule=schedule)
    rows = finish(loop, stop_after=2)
    # The KL is far below its target, so each step takes off a fifth of a fifth.
    assert [row["train/beta"] for row in rows] == pytest.approx([0.1, 0.096])
    resumed = make_loop("grpo_d", schedule=schedule)
    resumed.resume()
    assert resumed.method.state() == loop.method.state() == {"adaptive_beta": pytest.approx(0.1 * 0.96**2)}
    assert finish(resumed)[0]["train/beta"] == pytest.approx(0.1 * 0.96**2)


def test_a_seed_makes_the_rollout(make_loop: MakeLoop) -> None:
    one, same, other = (make_loop("grpo", seed=seed).method.collect(2) for seed in (5, 5, 6))
    assert torch.equal(one.ids, same.ids)
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
    assert one.example_ids != other.example_ids


def test_it_learns_to_keep_the_format(make_loop: MakeLoop, finish: Any) -> None:
    rows = finish(make_loop("grpo", num_steps=12, group_size=8, lr=2e-3, schedule={"type": "constant", "beta": 0.0}))
    early, late = (sum(row["rollout/format"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert late > early + 0.1
