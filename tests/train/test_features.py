from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import harness.train.features as features_module
from harness.policy.learning import choose_learning
from harness.train.features import ImageEncoder
from harness.train.loop import Loop

MakeLoop = Callable[..., Loop]


@pytest.fixture
def counted(make_loop: MakeLoop) -> Any:
    """A frozen policy with its calls of the tower counted, and prompts of three examples."""
    loop: Any = make_loop("sft")
    policy = loop.policy
    choose_learning(policy, vision=False)
    calls: list[int] = []
    encode = policy.encode_images
    policy.encode_images = lambda batch: (calls.append(len(batch)), encode(batch))[1]
    drawn = loop.method.data.step(0, 3)
    return policy, policy.batch([prompt for _, _, prompt in drawn]), [example.id for _, example, _ in drawn], calls


def test_a_frozen_towers_features_are_encoded_once(counted: Any) -> None:
    policy, batch, names, calls = counted
    encoder = ImageEncoder(policy)
    first = encoder.encode(batch, names)
    assert calls == [1, 1, 1]
    again = encoder.encode(batch.select([2, 0]), [names[2], names[0]])
    assert calls == [1, 1, 1]
    counts = policy.num_image_tokens(batch)
    parts = first.split(counts)
    assert torch.equal(again, torch.cat([parts[2], parts[0]]))
    assert not first.requires_grad
    torch.testing.assert_close(first, policy.encode_images(batch), rtol=1e-5, atol=1e-5)


def test_what_does_not_fit_is_encoded_again(counted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, batch, names, calls = counted
    size = policy.encode_images(batch.select([0])).numel() * 4
    calls.clear()
    monkeypatch.setattr(features_module, "STORE_BYTES", size)
    encoder = ImageEncoder(policy)
    assert torch.equal(encoder.encode(batch, names), encoder.encode(batch, names))
    assert len(calls) == 3 + 2


def test_a_tower_that_learns_is_encoded_with_its_step(make_loop: MakeLoop) -> None:
    loop: Any = make_loop("sft")
    encoder = ImageEncoder(loop.policy)
    batch = loop.method.collect(0)
    features = encoder.encode(batch.prompts, batch.example_ids)
    assert features.requires_grad and not encoder.is_frozen


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_a_resumed_run_with_a_frozen_tower_equals_an_undisturbed_one(
    make_loop: MakeLoop, finish: Any, method: str
) -> None:
    settings = {"num_steps": 4, "num_train": 3, "vision": "frozen"}
    undisturbed = finish(make_loop(method, folder="whole", **settings))
    rows = finish(make_loop(method, **settings), 2)
    loop = make_loop(method, **settings)
    assert loop.resume() == 2
    assert rows + finish(loop) == undisturbed


@pytest.mark.parametrize("method", ["sft", "grpo"])
def test_an_adapter_trains_resumes_and_needs_no_copy_for_its_reference(
    make_loop: MakeLoop, finish: Any, method: str
) -> None:
    pytest.importorskip("peft")
    settings = {"num_steps": 4, "lora_rank": 4, "lr": 5e-3}
    whole: Any = make_loop(method, folder="whole", **settings)
    undisturbed = finish(whole)
    rows = finish(make_loop(method, **settings), 2)
    loop: Any = make_loop(method, **settings)
    assert loop.resume() == 2
    assert rows + finish(loop) == undisturbed
    if method == "grpo":
        assert undisturbed[0]["train/kl"] == 0 and undisturbed[-1]["train/kl"] > 0
        assert whole.method.reference._copy is None
