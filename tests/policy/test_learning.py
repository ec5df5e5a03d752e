from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.errors import ModelError
from harness.policy import Policy, completion_log_probs, load_policy
from harness.policy.learning import choose_learning, has_adapter, learns_vision
from harness.policy.reference import Reference

LENGTHS = torch.tensor([[5, 1, 3], [2, 7, 1], [4, 4, 6]])


@pytest.fixture
def fresh(policy_folder: Path) -> Policy:
    return load_policy(str(policy_folder))


def values(policy: Policy, make_prompts: Any) -> Tensor:
    batch = policy.batch(make_prompts(policy))
    ids = torch.randint(0, 250, (3, 3, 7), generator=torch.Generator().manual_seed(1))
    return completion_log_probs(policy, batch, policy.encode_images(batch), ids, LENGTHS)


def move(policy: Policy, make_prompts: Any, lr: float = 0.05) -> None:
    """A step of gradient descent on whatever learns."""
    values(policy, make_prompts).sum().backward()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.grad is not None:
                parameter.sub_(lr * parameter.grad / parameter.grad.norm().clamp(min=1e-9))
                parameter.grad = None


def learning(policy: Policy) -> set[str]:
    return {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}


def test_a_frozen_tower_gets_no_gradient(fresh: Policy, make_prompts: Any) -> None:
    choose_learning(fresh, vision=False)
    assert not learns_vision(fresh) and not any("visual" in name for name in learning(fresh))
    values(fresh, make_prompts).sum().backward()
    for name, parameter in fresh.model.named_parameters():
        assert (parameter.grad is None) == ("visual" in name), name
    choose_learning(fresh, vision=True)
    assert learns_vision(fresh)


@pytest.mark.parametrize("vision", [True, False])
def test_an_adapter_starts_as_the_policy_and_alone_learns(fresh: Policy, make_prompts: Any, vision: bool) -> None:
    pytest.importorskip("peft")
    before = values(fresh, make_prompts).detach()
    weights = {name: value.clone() for name, value in fresh.model.named_parameters()}
    choose_learning(fresh, vision=vision, lora_rank=4, lora_alpha=8.0)
    assert has_adapter(fresh)
    torch.testing.assert_close(values(fresh, make_prompts), before, rtol=0, atol=0)
    names = learning(fresh)
    assert names and all("lora_" in name for name in names)
    assert any("visual" in name for name in names) == vision
    # Every linear layer of the text stack has a pair: q, k, v, o and the MLP's three, in two layers.
    assert sum("language_model" in name and "lora_A" in name for name in names) == 2 * 7
    assert not any("lm_head" in name for name in names)
    move(fresh, make_prompts)
    assert (values(fresh, make_prompts) - before).abs().max() > 1e-3
    for name, value in fresh.model.named_parameters():
        if "lora_" not in name:
            assert torch.equal(value, weights[name.replace(".base_layer", "")]), name


def test_the_reference_of_an_adapter_is_the_policy_without_it(fresh: Policy, make_prompts: Any) -> None:
    pytest.importorskip("peft")
    before = values(fresh, make_prompts).detach()
    choose_learning(fresh, vision=True, lora_rank=4)
    reference = Reference(fresh)
    move(fresh, make_prompts)
    moved = values(fresh, make_prompts).detach()
    with reference.active() as policy:
        assert policy is fresh
        torch.testing.assert_close(values(policy, make_prompts).detach(), before, rtol=0, atol=0)
    torch.testing.assert_close(values(fresh, make_prompts).detach(), moved, rtol=0, atol=0)


def test_the_reference_of_a_whole_policy_is_a_copy(fresh: Policy, make_prompts: Any) -> None:
    before = values(fresh, make_prompts).detach()
    reference = Reference(fresh, offload=True)
    move(fresh, make_prompts)
    with reference.active() as policy:
        assert policy is not fresh
        torch.testing.assert_close(values(policy, make_prompts).detach(), before, rtol=0, atol=0)


def test_the_same_seed_makes_the_same_adapter_and_leaves_the_global_generator(policy_folder: Path) -> None:
    pytest.importorskip("peft")
    adapters = []
    for seed in (3, 3, 4):
        policy = load_policy(str(policy_folder))
        torch.manual_seed(0)
        choose_learning(policy, vision=False, lora_rank=2, seed=seed)
        assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(0)))
        adapters.append(torch.cat([p.flatten() for n, p in policy.model.named_parameters() if "lora_A" in n]))
    assert torch.equal(adapters[0], adapters[1]) and not torch.equal(adapters[0], adapters[2])


def test_a_saved_adapter_loads_here_and_in_plain_transformers(
    fresh: Policy, make_prompts: Any, tmp_path: Path, policy_folder: Path
) -> None:
    pytest.importorskip("peft")
    from transformers import AutoModelForImageTextToText

    choose_learning(fresh, vision=True, lora_rank=4)
    move(fresh, make_prompts)
    wanted = values(fresh, make_prompts).detach()
    fresh.save(tmp_path / "adapter")
    size = sum(file.stat().st_size for file in (tmp_path / "adapter").glob("*.safetensors"))
    assert size < 0.5 * (policy_folder / "model.safetensors").stat().st_size
    again = load_policy(str(tmp_path / "adapter"))
    torch.testing.assert_close(values(again, make_prompts).detach(), wanted, rtol=0, atol=0)
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "adapter", dtype=torch.float32)
    prompt = make_prompts(fresh)[0]
    inputs: dict[str, Any] = {
        "input_ids": prompt.ids[None],
        "pixel_values": prompt.pixels,
        "image_grid_thw": torch.tensor([prompt.grid]),
        "mm_token_type_ids": (prompt.ids == fresh.family.image_token_id).int()[None],
    }
    with torch.no_grad():
        torch.testing.assert_close(plain(**inputs).logits, fresh.model(**inputs).logits, rtol=0, atol=0)


def test_a_bound_on_pixels_shrinks_the_image(policy_folder: Path, pictures: Any) -> None:
    image = pictures(((112, 112),))[0]
    small = load_policy(str(policy_folder), max_pixels=56 * 56)
    assert load_policy(str(policy_folder)).prompt(image, "?").grid == (1, 8, 8)
    assert small.prompt(image, "?").grid == (1, 4, 4)
    with pytest.raises(ModelError, match="takes no image below 3136 pixels"):
        load_policy(str(policy_folder), max_pixels=100)


def test_weights_compute_in_the_precision_asked_for(policy_folder: Path, make_prompts: Any) -> None:
    coarse = load_policy(str(policy_folder), precision="bf16")
    assert {parameter.dtype for parameter in coarse.model.parameters()} == {torch.bfloat16}
    exact = values(load_policy(str(policy_folder)), make_prompts)
    got = values(coarse, make_prompts)
    assert got.dtype == torch.float32
    assert 1e-4 < (got - exact).abs().max() < 0.5
