"""GRPO and GRPO-D: sample a group per prompt, reward it, and push towards the better of each group.

GRPO-D is this class with a schedule of beta that is not constant; nothing here asks which of the two it is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.policy import Completions, Policy, PromptBatch, completion_log_probs, sample
from harness.policy.reference import Reference
from harness.spec import AdaptiveSchedule, Execution, RunSpec, beta_at, next_beta
from harness.spec import Grpo as GrpoSettings
from harness.spec import GrpoD as GrpoDSettings
from harness.tasks.base import Example, Task
from harness.tasks.checking import default_checker
from harness.tasks.rewards import accuracy_rewards, format_rewards
from harness.train.advantages import group_advantages
from harness.train.data import TrainingSet
from harness.train.features import ImageEncoder
from harness.train.losses import grpo_loss
from harness.train.memory import TokenBudget
from harness.train.method import Batch, ImageFeatures, Part
from harness.train.processes import Processes
from harness.train.randomness import stream


class Grpo:
    """Group-relative policy optimisation (OThink-MR1, Eq. 1 to 5).

    Args:
        spec: The run, whose method is GRPO or GRPO-D.
        policy: The model that learns; as it is now, it is also the reference.
        task: The source.
        processes: Those that share the run.
        execution: Where the reference waits, and tokens of a pass.
    """

    def __init__(
        self,
        spec: RunSpec,
        policy: Policy,
        task: Task,
        processes: Processes,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> None:
        assert isinstance(spec.method, GrpoSettings | GrpoDSettings)
        default_checker().start()  # gets ready while the first completions are sampled
        self.settings = spec.method
        self.seed = spec.seed
        self.policy = policy
        self.processes = processes
        self.data = TrainingSet(task, policy, spec.num_train, spec.seed)
        self.updates_per_batch = self.settings.updates_per_rollout
        schedule = self.settings.schedule
        # Only the adaptive schedule has a coefficient of its own to remember.
        self.adaptive_beta = schedule.beta_init if isinstance(schedule, AdaptiveSchedule) else 0.0
        needs_reference = isinstance(schedule, AdaptiveSchedule) or any(
            beta_at(schedule, step, self.settings.num_steps) > 0 for step in range(self.settings.num_steps)
        )
        offload = execution.reference == "offload"
        self.reference = Reference(policy, offload=offload) if needs_reference else None
        self.encoder = ImageEncoder(policy)
        self.rollout_budget = TokenBudget(halvings=execution.halvings)
        self.reference_budget = TokenBudget(execution.micro_batch_tokens, execution.halvings)

    def beta(self, step: int) -> float:
        """The KL coefficient of a step."""
        schedule = self.settings.schedule
        if isinstance(schedule, AdaptiveSchedule):
            return self.adaptive_beta
        return beta_at(schedule, step, self.settings.num_steps)

    def collect(self, step: int) -> Batch:
        """Samples a group of completions per prompt and rewards them."""
        started = time.perf_counter()
        settings = self.settings
        drawn = self.data.step(step, settings.prompts_per_step, self.processes.rank, self.processes.count)
        examples = [example for _, example, _ in drawn]
        prompts = self.policy.batch([prompt for _, _, prompt in drawn])
        images = ImageFeatures(self.encoder.encode(prompts, [example.id for example in examples]))
        uniforms = self._uniforms(step, [place for place, _, _ in drawn])
        completions = self._sample(prompts, images.leaf.detach(), uniforms)
        texts = self._texts(completions)
        accuracy, form = self._reward_components(texts, examples)
        rewards = accuracy + settings.format_weight * form
        advantages = group_advantages(rewards, settings.advantage_scale).to(prompts.ids.device)
        beta = self.beta(step)
        has_signal = (advantages != 0).any(dim=1)
        # Without a KL term, a group of zero advantages has a gradient of exactly zero.
        rows = has_signal.nonzero()[:, 0].tolist() if beta == 0 else range(len(drawn))
        tensors = {"advantages": advantages}
        if beta > 0:
            tensors["reference_log_probs"] = self._reference_log_probs(prompts, images.leaf.detach(), completions)
        sums = self.processes.add(
            {
                "completions": float(rewards.numel()),
                "tokens": float(completions.lengths.sum()),
                "prompts": float(len(drawn)),
                "reward": float(rewards.sum()),
                "accuracy": float(accuracy.sum()),
                "format": float(form.sum()),
                "cut": float((~completions.finished).sum()),
                "zero_signal": float((~has_signal).sum()),
            }
        )
        count = sums["completions"]
        return Batch(
            prompts=prompts,
            images=images,
            ids=completions.ids,
            lengths=completions.lengths,
            rows=rows,
            num_completions=int(count),
            num_tokens=int(sums["tokens"]),
            example_ids=[example.id for example in examples],
            tensors=tensors,
            metrics={
                "train/beta": beta,
                "rollout/reward": sums["reward"] / count,
                "rollout/accuracy": sums["accuracy"] / count,
                "rollout/format": sums["format"] / count,
                "rollout/length": sums["tokens"] / count,
                "rollout/cut_frac": sums["cut"] / count,
                "rollout/zero_signal_frac": sums["zero_signal"] / sums["prompts"],
                "time/rollout_s": time.perf_counter() - started,
            },
            samples=self._samples(examples, texts, rewards, accuracy, form, advantages),
        )

    def loss(self, part: Part, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The clipped surrogate with the KL term, see :func:`harness.train.losses.grpo_loss`."""
        settings = self.settings
        log_probs, entropy = completion_log_probs(
            self.policy,
            part.prompts,
            part.features,
            part.ids,
            part.lengths,
            temperature=settings.temperature,
            with_entropy=True,
        )
        if self.updates_per_batch > 1 and part.batch.update == 0:
            part.keep("old_log_probs", log_probs.detach())
        advantages = part.tensor("advantages")
        assert advantages is not None
        terms = grpo_loss(
            log_probs,
            advantages,
            part.mask,
            beta=self.beta(step),
            num_completions=part.batch.num_completions,
            num_tokens=part.batch.num_tokens,
            max_completion_length=settings.max_completion_length,
            old_log_probs=part.tensor("old_log_probs") if part.batch.update else None,
            reference_log_probs=part.tensor("reference_log_probs"),
            clip_epsilon=settings.clip_epsilon,
            normalizer=settings.loss_normalizer,
            kl_estimator=settings.kl_estimator,
        )
        sums = {"tokens": terms.num_tokens, "clipped": terms.clipped_sum, "entropy": (entropy * part.mask).sum()}
        if part.tensor("reference_log_probs") is not None:
            sums |= {"kl": terms.kl_sum, "kl_tokens": terms.num_tokens}
        return terms.loss, sums

    def after_step(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """Means per token of KL and entropy, share of clipped tokens; moves the adaptive coefficient."""
        metrics = {}
        if sums.get("tokens"):
            metrics["train/clip_frac"] = sums["clipped"] / sums["tokens"]
            metrics["train/entropy"] = sums["entropy"] / sums["tokens"]
        if sums.get("kl_tokens"):
            metrics["train/kl"] = sums["kl"] / sums["kl_tokens"]
            if isinstance(self.settings.schedule, AdaptiveSchedule):
                self.adaptive_beta = next_beta(self.settings.schedule, self.adaptive_beta, metrics["train/kl"])
        return metrics

    def state(self) -> dict[str, float]:
        """The adaptive coefficient."""
        return {"adaptive_beta": self.adaptive_beta}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Takes it back."""
        self.adaptive_beta = state["adaptive_beta"]

    def _uniforms(self, step: int, places: Sequence[int]) -> Tensor:
        """One number per token [N, G, T], drawn per prompt so that sharing a step among processes changes nothing."""
        shape = (self.settings.group_size, self.settings.max_completion_length)
        draws = [stream(self.seed, "rollout", step, place).random(shape, dtype=np.float32) for place in places]
        return torch.from_numpy(np.stack(draws))

    def _texts(self, completions: Completions) -> list[list[str]]:
        ids, lengths = completions.ids.tolist(), completions.lengths.tolist()
        return [
            [self.policy.completion_text(row[:length]) for row, length in zip(group, sizes, strict=True)]
            for group, sizes in zip(ids, lengths, strict=True)
        ]

    def _reward_components(self, texts: list[list[str]], examples: Sequence[Example]) -> tuple[Tensor, Tensor]:
        """Accuracy and format [N, G]."""
        flat = [text for group in texts for text in group]
        solutions = [example.solution for example, group in zip(examples, texts, strict=True) for _ in group]
        shape = (len(texts), len(texts[0]))
        accuracy = torch.tensor(accuracy_rewards(flat, solutions)).reshape(shape)
        return accuracy, torch.tensor(format_rewards(flat)).reshape(shape)

    def _sample(self, prompts: PromptBatch, features: Tensor, uniforms: Tensor) -> Completions:
        """A group per prompt; fewer prompts at a time where memory runs out."""
        length = prompts.ids.shape[1] + self.settings.group_size * self.settings.max_completion_length
        by_prompt = features.split(self.policy.num_image_tokens(prompts))

        def work() -> Completions:
            parts = self.rollout_budget.split([length] * len(prompts))
            return Completions.joined(
                [
                    sample(
                        self.policy,
                        prompts if len(parts) == 1 else prompts.select(rows),
                        torch.cat([by_prompt[row] for row in rows]),
                        max_new_tokens=self.settings.max_completion_length,
                        uniforms=uniforms[rows],
                        temperature=self.settings.temperature,
                    )
                    for rows in parts
                ]
            )

        return self.rollout_budget.attempt("rollout", length, length * len(prompts), work)

    @torch.no_grad()
    def _reference_log_probs(self, prompts: PromptBatch, features: Tensor, completions: Completions) -> Tensor:
        """Log-probs [N, G, T] under the reference; a frozen tower's features are its own too."""
        assert self.reference is not None
        sizes = (prompts.lengths + completions.lengths.sum(dim=1)).tolist()
        with self.reference.active() as reference:

            def work() -> Tensor:
                values = features if self.encoder.is_frozen else reference.encode_images(prompts)
                by_prompt = values.split(self.policy.num_image_tokens(prompts))
                parts = self.reference_budget.split(sizes)
                return torch.cat(
                    [
                        completion_log_probs(
                            reference,
                            prompts if len(parts) == 1 else prompts.select(rows),
                            torch.cat([by_prompt[row] for row in rows]),
                            completions.ids[rows],
                            completions.lengths[rows],
                            temperature=self.settings.temperature,
                        )
                        for rows in parts
                    ]
                )

            return self.reference_budget.attempt("reference's pass", max(sizes), sum(sizes), work)

    def _samples(
        self,
        examples: Sequence[Example],
        texts: list[list[str]],
        rewards: Tensor,
        accuracy: Tensor,
        form: Tensor,
        advantages: Tensor,
    ) -> list[dict[str, Any]]:
        columns = zip(rewards.tolist(), accuracy.tolist(), form.tolist(), advantages.tolist(), strict=True)
        return [
            {
                "id": example.id,
                "question": example.question,
                "completion": text,
                "solution": example.answer,
                "reward": row[0],
                "accuracy": row[1],
                "format": row[2],
                "advantage": row[3],
            }
            for example, group, numbers in zip(examples, texts, columns, strict=True)
            for text, row in zip(group, zip(*numbers, strict=True), strict=True)
        ]
