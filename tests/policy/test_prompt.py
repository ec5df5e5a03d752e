from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.policy import Policy


def test_an_image_takes_one_position_per_merged_patch(any_policy: Policy, make_prompts: Any) -> None:
    wide = make_prompts(any_policy, ((112, 112), (84, 140), (56, 84)))[1]
    assert wide.grid == (1, 10, 6)
    assert wide.pixels.shape == (60, 3 * 2 * 14 * 14)
    assert int((wide.ids == any_policy.family.image_token_id).sum()) == 15


def test_a_prompt_is_one_user_turn_with_the_image_first(policy: Policy, make_prompts: Any) -> None:
    prompt = make_prompts(policy)[0]
    assert policy.tokenizer.decode(prompt.ids) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
        + "<|image_pad|>" * 16
        + "<|vision_end|>How many items are there?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_gray_image_is_read_as_rgb(policy: Policy, pictures: Any) -> None:
    image = pictures(((56, 56),))[0].convert("L")
    assert torch.equal(policy.prompt(image, "?").pixels, policy.prompt(image.convert("RGB"), "?").pixels)


def test_a_batch_pads_on_the_left(policy: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(policy, ((112, 112), (84, 140), (56, 84)))
    batch = policy.batch(prompts)
    longest = max(len(prompt.ids) for prompt in prompts)
    assert len(batch) == 3 and batch.ids.shape == (3, longest)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.ids)
        assert batch.padding[row].tolist() == [True] * start + [False] * len(prompt.ids)
        assert torch.equal(batch.ids[row, start:], prompt.ids)
        assert torch.equal(batch.positions[:, row, start:], prompt.positions)
        assert (batch.ids[row, :start] == policy.pad_token_id).all()
    assert batch.next_position.tolist() == [prompt.next_position for prompt in prompts]


def test_selecting_prompts_takes_their_patches_along(policy: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(policy, ((112, 112), (84, 140), (56, 84)))
    chosen = policy.batch(prompts).select([2, 0])
    assert chosen.grids == (prompts[2].grid, prompts[0].grid)
    assert torch.equal(chosen.pixels, torch.cat([prompts[2].pixels, prompts[0].pixels]))
    with torch.no_grad():
        whole = policy.encode_images(policy.batch([prompts[2], prompts[0]]))
        torch.testing.assert_close(policy.encode_images(chosen), whole)
    assert torch.equal(chosen.ids, policy.batch(prompts).ids[[2, 0]])


@pytest.mark.parametrize("text", ["<think> total 3 </think> <answer> 3 </answer>", " x\u00b2 \u2260 \U0001f600\n", ""])
def test_a_completion_survives_the_way_to_ids_and_back(policy: Policy, text: str) -> None:
    ids = policy.completion_ids(text)
    assert ids[-1] == policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert policy.completion_text(ids) == text
