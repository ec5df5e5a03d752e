from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from harness.policy import Policy, Prompt

QUESTIONS = ("How many items are there?", "How many red cubes are there in the image?  Answer with a number.", "Why?")
SIZES = ((112, 112), (84, 140), (56, 84))


@pytest.fixture(scope="session", params=["qwen2_vl", "qwen2_5_vl"])
def any_policy(request: pytest.FixtureRequest) -> Policy:
    """Each family in turn."""
    return request.getfixturevalue("policy" if request.param == "qwen2_vl" else "windowed_policy")


@pytest.fixture(scope="session")
def pictures() -> Callable[[tuple[tuple[int, int], ...]], list[Image.Image]]:
    """Noise of given sizes, width and height in pixels."""

    def make(sizes: tuple[tuple[int, int], ...]) -> list[Image.Image]:
        rng = np.random.default_rng(0)
        return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]

    return make


@pytest.fixture(scope="session", params=["sizes differ", "sizes equal"])
def sizes(request: pytest.FixtureRequest) -> tuple[tuple[int, int], ...]:
    """Image sizes of three prompts."""
    return SIZES if request.param == "sizes differ" else ((112, 112),) * 3


@pytest.fixture(scope="session")
def make_prompts(pictures: Any) -> Callable[..., list[Prompt]]:
    """Three prompts of different length."""

    def make(policy: Policy, sizes: tuple[tuple[int, int], ...] = ((112, 112),) * 3) -> list[Prompt]:
        return [policy.prompt(image, text) for image, text in zip(pictures(sizes), QUESTIONS, strict=True)]

    return make


@pytest.fixture(scope="session")
def plain_log_probs() -> Callable[[Policy, Prompt, Tensor], Tensor]:
    """A completion's log-probs by transformers' own forward: one sequence at a time, nothing shared, full softmax."""

    def compute(policy: Policy, prompt: Prompt, ids: Tensor) -> Tensor:
        tokens = torch.cat([prompt.ids, ids])[None]
        logits = policy.model(
            input_ids=tokens,
            attention_mask=torch.ones_like(tokens),
            pixel_values=prompt.pixels,
            image_grid_thw=torch.tensor([prompt.grid]),
            mm_token_type_ids=(tokens == policy.family.image_token_id).int(),
        ).logits[0]
        logits = logits.index_fill(1, torch.tensor(policy.family.vision_token_ids), -torch.inf)
        return logits.log_softmax(-1)[len(prompt.ids) - 1 : -1].gather(1, ids[:, None])[:, 0]

    return compute
