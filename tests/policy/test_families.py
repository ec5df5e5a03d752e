from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from harness.errors import ModelError
from harness.policy import Policy
from harness.policy.attention import attend_masked, causal_mask
from harness.policy.families import adapt

EXACT = {"rtol": 1e-5, "atol": 1e-5}


def test_image_features_equal_transformers(any_policy: Policy, make_prompts: Any, sizes: Any) -> None:
    batch = any_policy.batch(make_prompts(any_policy, sizes))
    with torch.no_grad():
        ours = any_policy.encode_images(batch)
        theirs = torch.cat(any_policy.model.get_image_features(batch.pixels, torch.tensor(batch.grids)).pooler_output)
    assert ours.shape == (sum(any_policy.family.num_image_tokens(grid) for grid in batch.grids), 32)
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


def test_text_stack_equals_transformers_on_a_padded_batch(any_policy: Policy, make_prompts: Any, sizes: Any) -> None:
    batch = any_policy.batch(make_prompts(any_policy, sizes))
    assert batch.padding.any()
    with torch.no_grad():
        family = any_policy.family
        attend = attend_masked(causal_mask(batch.padding))
        features = any_policy.encode_images(batch)
        ours = family.lm_head(family.run(batch.ids, batch.positions, attend, features))
        theirs = any_policy.model(
            input_ids=batch.ids,
            attention_mask=(~batch.padding).long(),
            pixel_values=batch.pixels,
            image_grid_thw=torch.tensor(batch.grids),
            mm_token_type_ids=(batch.ids == family.image_token_id).int(),
        ).logits
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours[~batch.padding], theirs[~batch.padding], **EXACT)


def test_vision_tokens_are_those_of_the_configuration(any_policy: Policy) -> None:
    tokens = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
    assert set(any_policy.family.vision_token_ids) == set(any_policy.tokenizer.convert_tokens_to_ids(list(tokens)))


def test_an_unknown_family_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="no adapter for models of type 'llava'; there is one for: qwen2_vl"):
        adapt(SimpleNamespace(config=SimpleNamespace(model_type="llava")))
