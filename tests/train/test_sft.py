from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from harness.errors import DataError
from harness.tasks.base import load_task
from harness.tasks.rewards import accuracy_rewards, format_rewards
from harness.train.loop import Loop
from harness.train.sft import target_text

MakeLoop = Callable[..., Loop]


def test_targets() -> None:
    example = load_task("counting").example("train", 0)
    assert target_text(example, "answer_only") == f"<answer> {example.answer} </answer>"
    reasoned = target_text(example, "reasoning")
    assert reasoned == f"<think> {example.reasoning} </think> <answer> {example.answer} </answer>"
    assert accuracy_rewards([reasoned], [example.solution]) == format_rewards([reasoned]) == [1.0]
    unreasoned = replace(example, reasoning="")
    assert target_text(unreasoned, "answer_only") == example.solution
    with pytest.raises(DataError, match="counting/train/0: SFT's target 'reasoning' needs a gold chain of thought"):
        target_text(unreasoned, "reasoning")


@pytest.mark.parametrize("target", ["answer_only", "reasoning"])
def test_the_loss_is_transformers_cross_entropy(make_loop: MakeLoop, target: str) -> None:
    loop = make_loop("sft", target=target)
    trainer: Any = loop.method
    policy = loop.policy
    losses = []
    for _, example, prompt in trainer.data.step(0, 4):
        completion = torch.tensor(policy.completion_ids(target_text(example, target)))
        tokens = torch.cat([prompt.ids, completion])[None]
        logits = policy.model(
            input_ids=tokens,
            pixel_values=prompt.pixels,
            image_grid_thw=torch.tensor([prompt.grid]),
            mm_token_type_ids=(tokens == policy.family.image_token_id).int(),
        ).logits[0, len(prompt.ids) - 1 : -1]
        logits[:, list(policy.family.vision_token_ids)] = -torch.inf
        losses.append(F.cross_entropy(logits, completion, reduction="none"))
    record = next(loop.run())
    assert record.metrics["train/loss"] == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)
    assert record.batch.num_tokens == sum(map(len, losses))


@pytest.mark.parametrize("micro_batch_tokens", [1, 150])
def test_parts_of_a_step_make_the_same_step(
    make_loop: MakeLoop, finish: Any, weights: Any, micro_batch_tokens: int
) -> None:
    whole, parts = make_loop("sft"), make_loop("sft", micro_batch_tokens=micro_batch_tokens)
    for one, other in zip(finish(whole), finish(parts), strict=True):
        assert one == pytest.approx(other, rel=1e-5)
    split = weights(parts)
    for name, value in weights(whole).items():
        torch.testing.assert_close(split[name], value, rtol=1e-4, atol=1e-4)


def test_it_learns_what_it_is_shown(make_loop: MakeLoop, finish: Any) -> None:
    rows = finish(make_loop("sft", num_steps=12, num_train=4, lr=3e-3))
    assert rows[-1]["train/loss"] < 0.6 * rows[0]["train/loss"]
    assert set(rows[0]) == {"train/loss", "train/grad_norm", "train/lr"}
