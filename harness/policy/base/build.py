"""`harness base build`: trains the embedded policy from nothing by its recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.policy.base.corpus import Lesson, build_corpus
from harness.policy.base.recipe import IMAGE_SIZE, Recipe, model_config
from harness.policy.base.tokenizer import SPECIAL_TOKENS, build_tokenizer
from harness.policy.families.qwen2_vl import Qwen2VL
from harness.policy.log_probs import completion_log_probs
from harness.policy.policy import Policy
from harness.policy.prompt import PromptBatch

WINDOW = 4
"""Batches that are sorted by length together."""

GRID = (1, IMAGE_SIZE // 14, IMAGE_SIZE // 14)


def new_policy(recipe: Recipe, lessons: Sequence[Lesson]) -> Policy:
    """An untrained policy of the recipe's size, with a tokenizer learnt from the lessons."""
    from transformers import Qwen2VLForConditionalGeneration
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    texts = (text for lesson in lessons for text in (lesson.prompt, lesson.completion))
    tokenizer = build_tokenizer(texts, recipe.vocab_size)
    token_ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    torch.manual_seed(recipe.seed)
    model = Qwen2VLForConditionalGeneration._from_config(
        model_config(recipe, len(tokenizer), token_ids), dtype=torch.float32, attn_implementation="sdpa"
    )
    model.generation_config.eos_token_id = token_ids["<|im_end|>"]
    model.generation_config.pad_token_id = token_ids["<|endoftext|>"]
    processor = Qwen2VLImageProcessorPil(min_pixels=56 * 56, max_pixels=IMAGE_SIZE * IMAGE_SIZE)
    return Policy(model, tokenizer, processor)


class LessonBatches:
    """Batches of lessons, tokenised once, as the policy's log-prob function takes them."""

    def __init__(self, policy: Policy, images: np.ndarray, lessons: Sequence[Lesson]) -> None:
        self.policy = policy
        self.images = images
        self.lessons = lessons
        marker = "@@"
        content = [{"type": "image"}, {"type": "text", "text": marker}]
        turn = policy.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        before, after = turn.split(marker)
        family = policy.family
        assert isinstance(family, Qwen2VL)
        num_tokens = family.num_image_tokens(GRID)
        before = before.replace("<|image_pad|>", "<|image_pad|>" * num_tokens)
        backend = policy.tokenizer.backend_tokenizer
        prompts = backend.encode_batch([before + lesson.prompt + after for lesson in lessons], add_special_tokens=False)
        completions = backend.encode_batch([lesson.completion for lesson in lessons], add_special_tokens=False)
        self.prompts = [np.array(encoding.ids, dtype=np.int16) for encoding in prompts]
        self.completions = [
            np.array([*encoding.ids, policy.end_token_ids[0]], dtype=np.int16) for encoding in completions
        ]
        # The image stands at the same place in every prompt, so prompts differ in the length of their positions alone.
        longest = max(self.prompts, key=len)
        self.positions = family.positions(longest.tolist(), [GRID])
        processor = policy.image_processor
        self.mean = torch.tensor(processor.image_mean).view(1, 3, 1, 1)
        self.std = torch.tensor(processor.image_std).view(1, 3, 1, 1)

    def by_length(self, order: np.ndarray, window: int) -> np.ndarray:
        """The same order, sorted by length within each window, so that batches hold less padding."""
        lengths = np.array([len(p) + len(c) for p, c in zip(self.prompts, self.completions, strict=True)])
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        return np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])

    def pixels(self, rows: np.ndarray) -> Tensor:
        """Patches [sum of patches, patch width], equal to the image processor's (tested)."""
        images = torch.from_numpy(self.images[rows]).permute(0, 3, 1, 2).float() / 255
        images = (images - self.mean) / self.std
        side = GRID[1] // 2
        patches = images.view(len(rows), 3, side, 2, 14, side, 2, 14).permute(0, 2, 5, 3, 6, 1, 4, 7)
        patches = patches.reshape(len(rows) * GRID[1] * GRID[2], 3, 1, 196).expand(-1, -1, 2, -1)
        return patches.reshape(len(patches), -1)

    def batch(self, rows: np.ndarray) -> tuple[PromptBatch, Tensor, Tensor]:
        """Prompts, completion ids [N, 1, T] and lengths [N, 1] of some lessons."""
        longest = max(len(self.prompts[row]) for row in rows)
        ids = torch.full((len(rows), longest), self.policy.pad_token_id)
        padding = torch.ones_like(ids, dtype=torch.bool)
        positions = torch.zeros((3, len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            prompt = self.prompts[row].tolist()
            start = longest - len(prompt)
            ids[place, start:] = torch.tensor(prompt)
            padding[place, start:] = False
            positions[:, place, start:] = self.positions[:, : len(prompt)]
        targets = torch.full((len(rows), 1, max(len(self.completions[row]) for row in rows)), 0)
        for place, row in enumerate(rows):
            targets[place, 0, : len(self.completions[row])] = torch.from_numpy(self.completions[row].astype(np.int64))
        lengths = torch.tensor([[len(self.completions[row])] for row in rows])
        next_position = positions.amax(dim=(0, 2)) + 1
        batch = PromptBatch(ids, positions, padding, next_position, self.pixels(rows), (GRID,) * len(rows))
        return batch, targets, lengths


def train(recipe: Recipe, report: Callable[[str], None] = print, **corpus_options: Any) -> tuple[Policy, float]:
    """Trains a policy from nothing.

    The loss is the cross-entropy of the completions' tokens, mean over all tokens of the batch; bf16 autocast.

    Args:
        recipe: Sizes, data and optimiser.
        report: Takes a line of progress.
        **corpus_options: Passed to :func:`build_corpus`.

    Returns:
        The policy, and the last loss per completion token in nats, smoothed over about 50 steps.
    """
    started = time.monotonic()
    images, lessons = build_corpus(recipe.num_per_task, recipe.seed, **corpus_options)
    report(f"rendered {len(lessons)} examples in {time.monotonic() - started:.0f} s")
    policy = new_policy(recipe, lessons)
    batches = LessonBatches(policy, images, lessons)
    model = policy.model.train()
    report(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {recipe.num_steps} steps")
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
        lr=recipe.lr,
        betas=(0.9, 0.98),
        fused=True,
    )
    rng = np.random.default_rng([recipe.seed, 1])
    num_epochs = recipe.num_steps * recipe.batch_size // len(lessons) + 1
    order = np.concatenate([rng.permutation(len(lessons)) for _ in range(num_epochs)])
    order = batches.by_length(order, WINDOW * recipe.batch_size)
    running = 0.0
    rows = [order[step * recipe.batch_size :][: recipe.batch_size] for step in range(recipe.num_steps)]
    with ThreadPoolExecutor(1) as ahead:
        upcoming = ahead.submit(batches.batch, rows[0])
        for step in range(recipe.num_steps):
            batch, ids, lengths = upcoming.result()
            upcoming = ahead.submit(batches.batch, rows[min(step + 1, recipe.num_steps - 1)])
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr * _rate(step, recipe)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                log_probs = completion_log_probs(policy, batch, policy.encode_images(batch), ids, lengths)
                loss = -log_probs.sum() / lengths.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
            if step % 100 == 0 or step + 1 == recipe.num_steps:
                elapsed = time.monotonic() - started
                report(f"step {step + 1}/{recipe.num_steps}  loss {running:.4f}  {elapsed:.0f} s")
    model.eval()
    return policy, running


def _rate(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup_steps:
        return (step + 1) / recipe.warmup_steps
    progress = (step - recipe.warmup_steps) / max(1, recipe.num_steps - recipe.warmup_steps)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * progress)) / 2
