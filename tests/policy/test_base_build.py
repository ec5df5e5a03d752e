from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from harness.policy import Policy
from harness.policy.base.build import LessonBatches, train
from harness.policy.base.corpus import PLAIN_FRAC, TAG_FRAC, Lesson, lesson
from harness.policy.base.recipe import Recipe
from harness.tasks.base import load_task


@pytest.fixture(scope="module")
def corpus() -> tuple[np.ndarray, list[Lesson], list[Any]]:
    examples = [load_task(task).example("pretrain", 3) for task in ("counting", "geometry", "charts", "relations")]
    rng = np.random.default_rng(0)
    return np.stack([np.asarray(e.image) for e in examples]), [lesson(e, rng) for e in examples], examples


def test_a_batch_of_lessons_is_the_policys_own_batch(policy: Policy, corpus: Any) -> None:
    images, lessons, examples = corpus
    rows = np.array([2, 0, 3])
    batch, ids, lengths = LessonBatches(policy, images, lessons).batch(rows)
    own = policy.batch([policy.prompt(examples[row].image, lessons[row].prompt) for row in rows])
    assert torch.equal(batch.ids, own.ids)
    assert torch.equal(batch.padding, own.padding)
    assert torch.equal(batch.positions, own.positions)
    assert torch.equal(batch.next_position, own.next_position)
    assert batch.grids == own.grids
    torch.testing.assert_close(batch.pixels, own.pixels, rtol=1e-5, atol=1e-6)
    for place, row in enumerate(rows):
        assert ids[place, 0, : lengths[place, 0]].tolist() == policy.completion_ids(lessons[row].completion)


def test_lessons_are_drawn_from_the_pretraining_split_in_both_forms() -> None:
    task, rng = load_task("counting"), np.random.default_rng(0)
    lessons = [lesson(task.example("pretrain", index), rng) for index in range(200)]
    tagged = [item for item in lessons if item.completion.startswith("<think>")]
    share = (1 - PLAIN_FRAC) * sum(TAG_FRAC) / len(TAG_FRAC)
    assert abs(len(tagged) / len(lessons) - share) < 0.1
    assert all("<answer>" in item.prompt for item in tagged)


def test_training_learns(recipe: Recipe) -> None:
    lines: list[str] = []
    short = replace(recipe, num_per_task=24, num_steps=25, batch_size=8, warmup_steps=5, lr=4e-3)
    policy, _ = train(short, lines.append, tasks=("counting",), num_processes=1)
    assert not policy.model.training
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines if line.startswith("step ")]
    assert losses[-1] < losses[0]
