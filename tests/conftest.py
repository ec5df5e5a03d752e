"""A real vision-language policy, small enough to train in a test, in folders that `load_policy` reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.policy import Policy
    from harness.policy.base.recipe import Recipe

NUM_LESSONS = 48
NUM_LESSON_STEPS = 100


@pytest.fixture(scope="session")
def single_thread() -> None:
    """Sums in one order, so that equal runs are equal to the bit."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    from harness.policy.base.recipe import Recipe

    return Recipe(
        vocab_size=400,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        vision_depth=2,
        vision_width=32,
        vision_heads=4,
    )


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe, single_thread: None) -> Path:
    """Qwen2-VL, taught short answers with and without tags: it earns rewards on some samples and not on others."""
    import numpy as np
    import torch

    from harness.policy import completion_log_probs
    from harness.policy.base.build import LessonBatches, new_policy
    from harness.policy.base.corpus import Lesson
    from harness.tasks.base import load_task
    from harness.tasks.prompts import training_prompt

    examples = [load_task("counting").example("pretrain", index) for index in range(NUM_LESSONS)]
    lessons = [
        Lesson(
            "counting",
            training_prompt(example.question),
            f"<think> total {example.answer} </think> <answer> {example.answer} </answer>"
            if number % 2
            else f"the answer is {example.answer}.",
        )
        for number, example in enumerate(examples)
    ]
    policy = new_policy(recipe, lessons)
    batches = LessonBatches(policy, np.stack([np.asarray(example.image) for example in examples]), lessons)
    optimizer = torch.optim.AdamW(policy.model.parameters(), lr=4e-3, betas=(0.9, 0.98), weight_decay=0.0)
    rng = np.random.default_rng(0)
    for _ in range(NUM_LESSON_STEPS):
        batch, ids, lengths = batches.batch(rng.choice(NUM_LESSONS, 8, replace=False))
        loss = -completion_log_probs(policy, batch, policy.encode_images(batch), ids, lengths).sum() / lengths.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("qwen2_vl")
    policy.save(folder)
    return folder


@pytest.fixture(scope="session")
def windowed_policy_folder(tmp_path_factory: pytest.TempPathFactory, policy_folder: Path) -> Path:
    """Qwen2.5-VL with windowed attention in its tower and an output head of its own; random weights."""
    import torch
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from harness.policy import Policy, load_policy

    donor = load_policy(str(policy_folder))
    text = donor.model.config.get_text_config()
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": text.vocab_size,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 2048,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
            "bos_token_id": text.bos_token_id,
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "window_size": 56,
            "fullatt_block_indexes": [1],
        },
        image_token_id=donor.model.config.image_token_id,
        video_token_id=donor.model.config.video_token_id,
        vision_start_token_id=donor.model.config.vision_start_token_id,
        vision_end_token_id=donor.model.config.vision_end_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
    model.generation_config.eos_token_id = text.eos_token_id
    model.generation_config.pad_token_id = text.pad_token_id
    folder = tmp_path_factory.mktemp("qwen2_5_vl")
    Policy(model, donor.tokenizer, donor.image_processor).save(folder)
    return folder


@pytest.fixture(scope="session")
def policy(policy_folder: Path) -> Policy:
    """The taught Qwen2-VL, shared: tests leave its weights as they are."""
    from harness.policy import load_policy

    return load_policy(str(policy_folder))


@pytest.fixture(scope="session")
def windowed_policy(windowed_policy_folder: Path) -> Policy:
    """The Qwen2.5-VL, shared: tests leave its weights as they are."""
    from harness.policy import load_policy

    return load_policy(str(windowed_policy_folder))
