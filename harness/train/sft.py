"""Supervised fine-tuning on answers, or on reasoning and answers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from harness.errors import DataError
from harness.policy import Policy, completion_log_probs
from harness.spec import Execution, RunSpec
from harness.spec import Sft as SftSettings
from harness.tasks.base import Example, Task
from harness.train.data import TrainingSet
from harness.train.features import ImageEncoder
from harness.train.losses import sft_loss
from harness.train.method import Batch, ImageFeatures, Part
from harness.train.processes import Processes


def target_text(example: Example, target: str) -> str:
    """What a completion should have been.

    `answer_only` is what the paper's SFT outputs show; `reasoning` is R1-V's format with the gold chain of thought.

    Raises:
        DataError: `reasoning` of an example that has none.
    """
    if target == "answer_only":
        return example.solution
    if not example.reasoning:
        raise DataError(f"{example.id}: SFT's target 'reasoning' needs a gold chain of thought (column 'thinking')")
    return f"<think> {example.reasoning} </think> {example.solution}"


class Sft:
    """Imitates one target completion per prompt.

    Args:
        spec: The run, whose method is SFT.
        policy: The model that learns.
        task: The source.
        processes: Those that share the run.
        execution: Nothing of it matters here.
    """

    updates_per_batch = 1

    def __init__(
        self,
        spec: RunSpec,
        policy: Policy,
        task: Task,
        processes: Processes,
        execution: Execution = Execution(),  # noqa: B008 - frozen
    ) -> None:
        assert isinstance(spec.method, SftSettings)
        self.settings = spec.method
        self.policy = policy
        self.processes = processes
        self.data = TrainingSet(task, policy, spec.num_train, spec.seed)
        self.encoder = ImageEncoder(policy)

    def collect(self, step: int) -> Batch:
        """The step's prompts, each with its target."""
        drawn = self.data.step(step, self.settings.prompts_per_step, self.processes.rank, self.processes.count)
        targets = [self.policy.completion_ids(target_text(example, self.settings.target)) for _, example, _ in drawn]
        longest = max(len(ids) for ids in targets)
        ids = torch.tensor([[[*target, *[0] * (longest - len(target))]] for target in targets])
        prompts = self.policy.batch([prompt for _, _, prompt in drawn])
        totals = self.processes.add({"tokens": sum(len(ids) for ids in targets), "completions": len(targets)})
        example_ids = [example.id for _, example, _ in drawn]
        return Batch(
            prompts=prompts,
            images=ImageFeatures(self.encoder.encode(prompts, example_ids)),
            ids=ids.to(prompts.ids.device),
            lengths=torch.tensor([[len(target)] for target in targets], device=prompts.ids.device),
            rows=range(len(targets)),
            num_completions=int(totals["completions"]),
            num_tokens=int(totals["tokens"]),
            example_ids=example_ids,
        )

    def loss(self, part: Part, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Cross-entropy per token."""
        log_probs = completion_log_probs(self.policy, part.prompts, part.features, part.ids, part.lengths)
        return sft_loss(log_probs, part.mask, num_tokens=part.batch.num_tokens), {}

    def after_step(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """Nothing beside the loss."""
        return {}

    def state(self) -> dict[str, float]:
        """Nothing."""
        return {}

    def load_state(self, state: Mapping[str, float]) -> None:
        """Nothing."""
