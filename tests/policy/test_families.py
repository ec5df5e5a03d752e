from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import ModelError
from harness.policy import Policy, load_policy
from harness.policy.attention import attend_masked, causal_mask
from harness.policy.families import adapt

EXACT = {"rtol": 1e-5, "atol": 1e-5}
SIZES = ((112, 112), (84, 140), (56, 84))


def test_image_features_equal_transformers(
    any_policy: Policy, make_prompts: Any, model_inputs: Any, sizes: Any
) -> None:
    prompts = make_prompts(any_policy, sizes)
    batch = any_policy.batch(prompts)
    inputs = model_inputs(any_policy, batch.ids, prompts)
    images = {name: inputs[name] for name in ("pixel_values", "image_grid_thw") if name in inputs}
    with torch.no_grad():
        ours = any_policy.encode_images(batch)
        seen = any_policy.model.get_image_features(**images)
    theirs = torch.cat([torch.cat(part) for part in (seen.pooler_output, *seen.get("deepstack_features", ()))], dim=1)
    num_deep = len(seen.get("deepstack_features", ()))
    assert num_deep == (2 if any_policy.model.config.model_type == "qwen3_vl" else 0)
    assert ours.shape == (int((batch.ids == any_policy.family.image_token_id).sum()), 32 * (1 + num_deep))
    assert theirs.abs().mean() > 1e-2
    torch.testing.assert_close(ours, theirs, **EXACT)


def test_image_features_do_not_depend_on_the_batch(policy: Policy, make_prompts: Any, sizes: Any) -> None:
    prompts = make_prompts(policy, sizes)
    with torch.no_grad():
        together = policy.encode_images(policy.batch(prompts))
        alone = torch.cat([policy.encode_images(policy.batch([prompt])) for prompt in prompts])
    torch.testing.assert_close(together, alone, **EXACT)


def test_positions_equal_transformers(any_policy: Policy, make_prompts: Any, sizes: Any) -> None:
    for prompt in make_prompts(any_policy, sizes):
        if not hasattr(any_policy.model.model, "get_rope_index"):
            assert torch.equal(prompt.positions, torch.arange(len(prompt.ids))[None])
            continue
        theirs, delta = any_policy.model.model.get_rope_index(
            prompt.ids[None],
            mm_token_type_ids=(prompt.ids == any_policy.family.image_token_id).int()[None],
            image_grid_thw=torch.tensor([prompt.grid]),
        )
        assert torch.equal(prompt.positions, theirs[:, 0])
        assert prompt.next_position == len(prompt.ids) + int(delta)


def test_positions_by_hand(policy: Policy) -> None:
    image = policy.family.image_token_id
    positions = policy.family.positions([7, *[image] * 6, 8, 9], [(1, 4, 6)])
    assert positions.tolist() == [
        [0, 1, 1, 1, 1, 1, 1, 4, 5],
        [0, 1, 1, 1, 2, 2, 2, 4, 5],
        [0, 1, 2, 3, 1, 2, 3, 4, 5],
    ]


def test_text_stack_equals_transformers_on_a_padded_batch(
    any_policy: Policy, make_prompts: Any, model_inputs: Any, sizes: Any
) -> None:
    prompts = make_prompts(any_policy, sizes)
    batch = any_policy.batch(prompts)
    assert batch.padding.any()
    inputs = model_inputs(any_policy, batch.ids, prompts) | {"attention_mask": (~batch.padding).long()}
    with torch.no_grad():
        family = any_policy.family
        attend = attend_masked(causal_mask(batch.padding))
        features = any_policy.encode_images(batch)
        ours = family.lm_head(family.run(batch.ids, batch.positions, attend, features))
        theirs = any_policy.model(**inputs).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[~batch.padding], theirs[~batch.padding], **EXACT)


def test_vision_tokens_are_those_of_the_configuration(any_policy: Policy) -> None:
    qwen = ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    tokens = ["<image>"] if any_policy.model.config.model_type == "smolvlm" else qwen
    assert set(any_policy.family.vision_token_ids) == set(any_policy.tokenizer.convert_tokens_to_ids(tokens))


def test_each_axis_of_qwen3_turns_its_share_of_the_frequencies(family_folder: Any) -> None:
    family = load_policy(str(family_folder("qwen3_vl"))).family
    moved = torch.zeros(3, 3, 1, dtype=torch.long)
    moved[[0, 1, 2], [0, 1, 2]] = 1
    _, sin = family.rotation(moved, torch.zeros(1))
    turned = sin[:, 0, 0] != 0
    # Sections 4, 2 and 2 of 8 frequencies: T H W T H W T T.
    assert turned.int().tolist() == [[1, 0, 0, 1, 0, 0, 1, 1], [0, 1, 0, 0, 1, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0, 0]]


def test_more_deepstack_layers_than_the_text_stack_takes_are_a_model_error(family_folder: Any) -> None:
    model = load_policy(str(family_folder("qwen3_vl"))).model
    model.config.vision_config.deepstack_visual_indexes = [0, 1, 2]
    with pytest.raises(ModelError, match="3 deepstack_visual_indexes; with 3 text layers, at most 2 are allowed"):
        adapt(model)


def test_idefics3_is_smolvlms_family(family_folder: Any, make_prompts: Any, model_inputs: Any) -> None:
    policy = load_policy(str(family_folder("idefics3")))
    prompts = make_prompts(policy, SIZES)
    batch = policy.batch(prompts)
    inputs = model_inputs(policy, batch.ids, prompts) | {"attention_mask": (~batch.padding).long()}
    with torch.no_grad():
        attend = attend_masked(causal_mask(batch.padding))
        hidden = policy.family.run(batch.ids, batch.positions, attend, policy.encode_images(batch))
        theirs = policy.model(**inputs).logits
    torch.testing.assert_close(policy.family.lm_head(hidden)[~batch.padding], theirs[~batch.padding], **EXACT)


def test_another_text_decoder_behind_smolvlms_tower_is_a_model_error() -> None:
    text = SimpleNamespace(model_type="mistral")
    config = SimpleNamespace(model_type="idefics3", get_text_config=lambda: text)
    with pytest.raises(ModelError, match="text decoder of this idefics3 is of type 'mistral', not 'llama'"):
        adapt(SimpleNamespace(config=config, model=None))


def test_an_unknown_family_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="no adapter for models of type 'llava'; there is one for: qwen2_vl"):
        adapt(SimpleNamespace(config=SimpleNamespace(model_type="llava")))
