from __future__ import annotations

import itertools

import numpy as np
import pytest

from harness.errors import SpecError
from harness.policy import Policy
from harness.tasks.base import load_task
from harness.tasks.prompts import training_prompt
from harness.train.data import TrainingSet
from harness.train.randomness import stream

COUNTING = load_task("counting")


def ids(data: TrainingSet, step: int, num_prompts: int) -> list[str]:
    return [example.id for _, example, _ in data.step(step, num_prompts)]


def test_a_stream_is_a_function_of_its_name() -> None:
    for name in ((0, "rollout", 3, 1), (7, "subset")):
        assert np.array_equal(stream(*name).random(5), stream(*name).random(5))


def test_streams_of_different_names_differ() -> None:
    names = [
        *((seed, "subset") for seed in range(3)),
        *((seed, "order", epoch) for seed, epoch in itertools.product(range(3), repeat=2)),
        *((seed, "rollout", step, place) for seed, step, place in itertools.product(range(3), range(4), range(4))),
    ]
    first = {name: tuple(stream(*name).integers(2**32, size=2).tolist()) for name in names}
    assert len(set(first.values())) == len(names)


def test_the_subset_depends_on_the_seed_alone(policy: Policy, windowed_policy: Policy) -> None:
    one = TrainingSet(COUNTING, policy, 20, 3)
    assert TrainingSet(COUNTING, windowed_policy, 20, 3).indices == one.indices
    assert TrainingSet(COUNTING, policy, 20, 4).indices != one.indices
    assert len(set(one.indices)) == 20
    assert all(0 <= index < COUNTING.num_examples["train"] for index in one.indices)


def test_each_pass_is_a_new_permutation_of_the_subset(policy: Policy) -> None:
    data = TrainingSet(COUNTING, policy, 6, 0)
    drawn = [name for step in range(9) for name in ids(data, step, 4)]
    passes = [drawn[start : start + 6] for start in range(0, 36, 6)]
    subset = {f"counting/train/{index}" for index in data.indices}
    assert all(set(one) == subset for one in passes)
    assert len({tuple(one) for one in passes}) > 3


def test_a_step_does_not_depend_on_the_steps_before_it(policy: Policy) -> None:
    walked = TrainingSet(COUNTING, policy, 6, 0)
    for step in range(5):
        ids(walked, step, 4)
    assert ids(walked, 5, 4) == ids(TrainingSet(COUNTING, policy, 6, 0), 5, 4)


@pytest.mark.parametrize(("num_prompts", "num_processes"), [(8, 2), (7, 3), (3, 3)])
def test_processes_partition_a_step(policy: Policy, num_prompts: int, num_processes: int) -> None:
    data = TrainingSet(COUNTING, policy, 20, 0)
    whole = [(place, example.id) for place, example, _ in data.step(2, num_prompts)]
    shards = [data.step(2, num_prompts, rank, num_processes) for rank in range(num_processes)]
    assert all(shards)
    assert sorted((place, example.id) for shard in shards for place, example, _ in shard) == whole


def test_a_step_must_hold_a_prompt_for_every_process(policy: Policy) -> None:
    with pytest.raises(SpecError, match="prompts_per_step is 2, too few for 3 processes"):
        TrainingSet(COUNTING, policy, 20, 0).step(0, 2, 0, 3)


def test_a_prompt_is_the_training_prompt(policy: Policy) -> None:
    _, example, prompt = TrainingSet(COUNTING, policy, 5, 0).step(0, 1)[0]
    assert training_prompt(example.question) in policy.tokenizer.decode(prompt.ids)


def test_more_examples_than_there_are_is_the_users_mistake(policy: Policy) -> None:
    with pytest.raises(SpecError, match="num_train is 20001, but counting has 20000 training examples"):
        TrainingSet(COUNTING, policy, 20_001, 0)
