from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from harness.errors import DataError
from harness.policy import Policy, load_policy

SIZES = ((112, 112), (84, 140), (56, 84))


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_an_image_takes_one_position_per_merged_patch(family_folder: Any, make_prompts: Any, family: str) -> None:
    policy = load_policy(str(family_folder(family)))
    wide = make_prompts(policy, SIZES)[1]
    assert wide.grid == (1, 10, 6)
    assert wide.pixels.shape == (60, 3 * 2 * 14 * 14)
    assert int((wide.ids == policy.family.image_token_id).sum()) == 15


def test_qwen3s_patches_have_16_pixels(family_folder: Any, make_prompts: Any) -> None:
    policy = load_policy(str(family_folder("qwen3_vl")))
    wide = make_prompts(policy, SIZES)[1]
    assert wide.grid == (1, 8, 6)
    assert wide.pixels.shape == (48, 3 * 2 * 16 * 16)
    assert policy.tokenizer.decode(wide.ids).startswith(
        "<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * 12 + "<|vision_end|>How many red cubes"
    )


@pytest.mark.parametrize("family", ["smolvlm", "idefics3"])
@pytest.mark.parametrize("splitting", [True, False])
def test_tiles_stand_in_the_prompt_as_transformers_processor_puts_them(
    family_folder: Any, pictures: Any, family: str, splitting: bool
) -> None:
    from transformers import Idefics3Processor

    policy = load_policy(str(family_folder(family)))
    policy.image_processor.do_image_splitting = splitting
    # Idefics3's processor is SmolVLM's without videos.
    processor = Idefics3Processor(
        policy.image_processor, policy.tokenizer, image_seq_len=4, chat_template=policy.tokenizer.chat_template
    )
    for image in pictures(SIZES):
        content = [{"type": "image", "image": image}, {"type": "text", "text": "How many?"}]
        theirs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
        )
        ours = policy.prompt(image, "How many?")
        assert torch.equal(ours.ids, theirs["input_ids"][0])
        assert torch.equal(ours.pixels, theirs["pixel_values"][0])
        assert ours.grid == (len(ours.pixels), 1, 1) and (len(ours.pixels) > 1) == splitting


@pytest.mark.parametrize(("family", "token"), [("qwen2_vl", "<|image_pad|>"), ("smolvlm", "<image>")])
def test_a_question_with_an_images_placeholder_is_refused(
    family_folder: Any, pictures: Any, family: str, token: str
) -> None:
    policy = load_policy(str(family_folder(family)))
    with pytest.raises(DataError, match=rf"hold '{re.escape(token)}' 2 times: take it out of the question's text"):
        policy.prompt(pictures(((56, 56),))[0], f"{token} How many?")


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


def test_a_batch_pads_on_the_left(any_policy: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(any_policy, SIZES)
    batch = any_policy.batch(prompts)
    longest = max(len(prompt.ids) for prompt in prompts)
    assert len(batch) == 3 and batch.ids.shape == (3, longest)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.ids)
        assert batch.padding[row].tolist() == [True] * start + [False] * len(prompt.ids)
        assert torch.equal(batch.ids[row, start:], prompt.ids)
        assert torch.equal(batch.positions[:, row, start:], prompt.positions)
        assert (batch.ids[row, :start] == any_policy.pad_token_id).all()
    assert batch.next_position.tolist() == [prompt.next_position for prompt in prompts]


def test_selecting_prompts_takes_their_patches_along(any_policy: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(any_policy, SIZES)
    chosen = any_policy.batch(prompts).select([2, 0])
    assert chosen.grids == (prompts[2].grid, prompts[0].grid)
    assert torch.equal(chosen.pixels, torch.cat([prompts[2].pixels, prompts[0].pixels]))
    with torch.no_grad():
        whole = any_policy.encode_images(any_policy.batch([prompts[2], prompts[0]]))
        torch.testing.assert_close(any_policy.encode_images(chosen), whole)
    assert torch.equal(chosen.ids, any_policy.batch(prompts).ids[[2, 0]])


@pytest.mark.parametrize("text", ["<think> total 3 </think> <answer> 3 </answer>", " x\u00b2 \u2260 \U0001f600\n", ""])
def test_a_completion_survives_the_way_to_ids_and_back(policy: Policy, text: str) -> None:
    ids = policy.completion_ids(text)
    assert ids[-1] == policy.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert policy.completion_text(ids) == text
