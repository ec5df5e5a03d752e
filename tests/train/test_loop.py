from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from harness.errors import Interrupted, NonFiniteError
from harness.spec import Sft
from harness.train.loop import Loop, learning_rate
from harness.train.memory import TokenBudget

MakeLoop = Callable[..., Loop]


def rates(**settings: Any) -> list[float]:
    method = Sft(lr=2.0, **settings)
    return [learning_rate(method, step) for step in range(method.num_steps)]


def test_learning_rates_by_hand() -> None:
    assert rates(num_steps=4, lr_schedule="constant", warmup_frac=0) == [2, 2, 2, 2]
    assert rates(num_steps=4, lr_schedule="linear", warmup_frac=0) == [2, 1.5, 1, 0.5]
    assert rates(num_steps=4, lr_schedule="cosine", warmup_frac=0) == pytest.approx([2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5])
    assert rates(num_steps=6, lr_schedule="linear", warmup_frac=1 / 3) == [1, 2, 2, 1.5, 1, 0.5]
    assert rates(num_steps=4, lr_schedule="cosine", warmup_frac=0.5) == pytest.approx([1, 2, 2, 1])
    assert rates(num_steps=2, lr_schedule="linear", warmup_frac=1) == [1, 2]
    assert rates(num_steps=1, lr_schedule="linear", warmup_frac=0.1) == [2]


def test_a_step_is_one_adamw_step_on_the_clipped_gradient(make_loop: MakeLoop) -> None:
    loop = make_loop("sft", num_steps=1, max_grad_norm=0.5, lr_schedule="constant", warmup_frac=0.0, weight_decay=0.1)
    twin = make_loop("sft", num_steps=1)
    batch = twin.method.collect(0)
    for part in batch.parts(twin.policy, TokenBudget()):
        twin.method.loss(part, 0)[0].backward()
    batch.images.backward()
    learning = list(twin.policy.model.parameters())
    wanted = torch.optim.AdamW(learning, lr=1e-3, betas=(0.9, 0.999), weight_decay=0.1, fused=True)
    norm = torch.nn.utils.clip_grad_norm_(learning, 0.5)
    assert norm > 0.5
    wanted.step()
    (record,) = loop.run()
    assert record.metrics["train/grad_norm"] == float(norm)
    for got, want in zip(loop.policy.model.parameters(), learning, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("grpo", {}),
        ("grpo_d", {"schedule": {"type": "adaptive", "target_kl": 0.001}}),
        ("grpo_d", {"schedule": {"type": "othink", "beta_min": 0.0, "beta_max": 0.1}, "updates_per_rollout": 2}),
        ("sft", {}),
    ],
)
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(
    make_loop: MakeLoop, finish: Any, weights: Any, method: str, settings: dict[str, Any]
) -> None:
    whole = make_loop(method, num_steps=4, folder="undisturbed", **settings)
    undisturbed = finish(whole)
    rows = []
    for stop_after in (1, 3, None):
        loop = make_loop(method, num_steps=4, **settings)
        assert loop.resume() == len(rows)
        rows += finish(loop, stop_after)
    assert len(rows) == 4
    assert rows == undisturbed
    resumed = weights(loop)
    for name, value in weights(whole).items():
        assert torch.equal(resumed[name], value), name


def test_stopping_saves_a_checkpoint_and_says_so(make_loop: MakeLoop) -> None:
    loop = make_loop("sft")
    with pytest.raises(Interrupted, match="stopped after 1 of 3 steps"):
        list(loop.run(lambda: True))
    assert make_loop("sft").resume() == 1


def test_a_request_to_stop_behind_the_last_step_changes_nothing(make_loop: MakeLoop) -> None:
    loop = make_loop("sft")
    assert len(list(loop.run(lambda: loop.done))) == 3


def test_checkpoints_are_saved_as_often_as_asked_but_not_at_the_end(make_loop: MakeLoop) -> None:
    loop = make_loop("sft", num_steps=4, checkpoint_every=2)
    steps = []
    for _ in loop.run():
        steps.append(make_loop("sft", num_steps=4).resume())
    # The record of a step is handed out before the checkpoint behind it is saved.
    assert steps == [0, 0, 2, 2]
    assert make_loop("sft", num_steps=4).resume() == 2
    assert not (make_loop("sft", folder="none").checkpoints).exists()


def test_the_steps_done_are_told_before_each_checkpoint(make_loop: MakeLoop) -> None:
    loop = make_loop("sft", num_steps=4, checkpoint_every=1)
    told: list[tuple[int, int]] = []
    loop.before_save = lambda step: told.append((step, make_loop("sft", num_steps=4).resume()))
    list(loop.run())
    assert told == [(1, 0), (2, 1), (3, 2)]


def test_passes_that_are_halved_from_the_start_make_the_same_step(make_loop: MakeLoop, finish: Any) -> None:
    whole, halved = make_loop("sft", num_steps=2), make_loop("sft", num_steps=2)
    halved.budget = TokenBudget(halvings=1)
    total = sum(halved.method.collect(0).sizes)
    rows = list(zip(finish(whole), finish(halved), strict=True))
    assert whole.budget.tokens is None and halved.budget.tokens == total // 2
    for row, other in rows:
        assert other == pytest.approx(row, rel=1e-4)


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_loss_that_is_not_finite_names_step_and_examples_and_leaves_the_weights(
    make_loop: MakeLoop, weights: Any, method: str
) -> None:
    loop = make_loop(method)
    taken = loop.run()
    next(taken)
    trainer: Any = loop.method
    if method == "sft":
        loop.policy.family.lm_head.register_forward_hook(lambda module, inputs, output: output * torch.nan)
    else:
        with torch.no_grad(), trainer.reference.active() as reference:
            reference.model.lm_head.weight.fill_(torch.nan)
    before = weights(loop)
    with pytest.raises(NonFiniteError, match="loss is not finite at step 1; examples: counting/train/") as raised:
        next(taken)
    assert raised.value.step == 1
    assert raised.value.example_ids == tuple(example.id for _, example, _ in trainer.data.step(1, 4))
    for name, value in weights(loop).items():
        assert torch.equal(value, before[name]), name


def test_a_gradient_that_is_not_finite_leaves_the_weights(make_loop: MakeLoop, weights: Any) -> None:
    loop = make_loop("sft")
    loop.policy.model.model.language_model.norm.weight.register_hook(lambda gradient: gradient * torch.inf)
    before = weights(loop)
    with pytest.raises(NonFiniteError, match="gradient norm is not finite at step 0"):
        next(loop.run())
    for name, value in weights(loop).items():
        assert torch.equal(value, before[name]), name
