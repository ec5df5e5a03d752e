"""What is measured: the model, the pictures, the lengths, and the run that both sides make."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from harness.policy import Policy, Prompt
    from harness.spec import RunSpec
    from harness.tasks.base import Example, Task

GROUP_SIZE = 8
BETA = 0.04
LR = 1e-6
"""R1-V's. So small that both sides sample from the same policy throughout, and their completions stay equally long."""

Side = Literal["ours", "trl"]
MethodName = Literal["grpo", "sft"]


@dataclass(frozen=True)
class Workload:
    """A model on a device, and how much it is asked.

    Attributes:
        name: What a command and a row call it.
        device: `cpu` or `cuda`.
        precision: Of the weights that compute.
        scale: Of random weights (:mod:`benchmarks.random_weights`); None for the embedded policy.
        image_size: Pixels of a side, to which the pictures are scaled; None for the task's own.
        max_new_tokens: Of a sampled completion.
        is_forced: Whether every completion has exactly that many: random weights would stop by chance alone.
        num_prompts: Prompts of a step, a row of results for each.
        prompts_per_pass: Prompts, with all their completions, of a forward and backward pass; None for all of a step's.
    """

    name: str
    device: Literal["cpu", "cuda"]
    precision: Literal["float32", "bf16"]
    scale: Literal["2b", "small"] | None
    image_size: int | None
    max_new_tokens: int
    is_forced: bool
    num_prompts: tuple[int, ...]
    prompts_per_pass: int | None


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("embedded", "cpu", "float32", None, None, 48, False, (4, 8, 16), None),
        Workload("qwen2_vl_2b", "cuda", "bf16", "2b", 448, 256, True, (8, 32), 4),
        # The same path as the one above, small enough to try it where there is no GPU.
        Workload("small", "cpu", "float32", "small", 112, 16, True, (2,), 1),
    )
}


@dataclass(frozen=True)
class Case:
    """One measurement of one side, as a process of its own is told it.

    Attributes:
        side: Who is measured.
        method: What a step trains by.
        workload: A name of :data:`WORKLOADS`.
        model: `embedded`, or the folder of random weights.
        num_prompts: Prompts of a step.
        num_steps: Steps, those of the warm-up included.
        num_threads: CPU threads.
    """

    side: Side
    method: MethodName
    workload: str
    model: str
    num_prompts: int
    num_steps: int
    num_threads: int

    @property
    def about(self) -> Workload:
        """The workload of that name."""
        return WORKLOADS[self.workload]

    @property
    def group_size(self) -> int:
        """Completions of a prompt."""
        return GROUP_SIZE if self.method == "grpo" else 1

    @property
    def prompts_per_pass(self) -> int:
        """Prompts of a forward and backward pass."""
        return min(self.about.prompts_per_pass or self.num_prompts, self.num_prompts)

    @property
    def num_passes(self) -> int:
        """Passes of a step."""
        return -(-self.num_prompts // self.prompts_per_pass)


def run_spec(case: Case) -> RunSpec:
    """The run that both sides make, as the harness describes it; every step has prompts of its own."""
    from harness.spec import RunSpec

    method: dict[str, Any] = {
        "type": case.method,
        "num_steps": case.num_steps,
        "prompts_per_step": case.num_prompts,
        "lr": LR,
        "lr_schedule": "constant",
    }
    if case.method == "sft":
        method |= {"target": "reasoning", "warmup_frac": 0.0}
    else:
        method |= {
            "group_size": GROUP_SIZE,
            "max_completion_length": case.about.max_new_tokens,
            "schedule": {"type": "constant", "beta": BETA},
        }
    return RunSpec.model_validate(
        {
            "model": case.model,
            "method": method,
            "source": "counting",
            # One step's more than there are steps: TRL fetches a batch ahead, so that each of its steps has one fetch.
            "num_train": case.num_prompts * (case.num_steps + 1),
            "precision": case.about.precision,
        }
    )


def rendered_task(case: Case, spec: RunSpec, policy: Policy) -> Task:
    """The run's task with its pictures drawn and scaled beforehand, so that this is in neither side's time."""
    from harness.tasks.base import load_task
    from harness.train.data import TrainingSet

    assert spec.source is not None
    task = load_task(spec.source)
    draw, size = task.example, case.about.image_size

    def example(split: Any, index: int) -> Example:
        drawn = draw(split, index)
        return drawn if size is None else replace(drawn, image=drawn.image.resize((size, size)))

    task.example = functools.cache(example)  # type: ignore[method-assign]
    for index in TrainingSet(task, policy, spec.num_train, spec.seed).indices:
        task.example("train", index)
    return task


def drawn_examples(case: Case, spec: RunSpec, policy: Policy, task: Task) -> tuple[list[Example], Prompt]:
    """All examples in the steps' order, and the first one's prompt as the harness reads it."""
    from harness.train.data import TrainingSet

    steps = TrainingSet(task, policy, spec.num_train, spec.seed)
    rows = [row for step in range(case.num_steps + 1) for row in steps.step(step, case.num_prompts)]
    return [example for _, example, _ in rows], rows[0][2]


def pass_tokens(case: Case, spec: RunSpec, policy: Policy, task: Task) -> int | None:
    """The harness's token budget that puts the workload's number of prompts in a pass; None for all of a step's."""
    from harness.tasks.prompts import training_prompt
    from harness.train.data import TrainingSet
    from harness.train.sft import target_text

    if case.about.prompts_per_pass is None:
        return None
    longest = 0
    for index in TrainingSet(task, policy, spec.num_train, spec.seed).indices:
        example = task.example("train", index)
        length = len(policy.prompt(example.image, training_prompt(example.question)).ids)
        if case.method == "sft":
            length += len(policy.completion_ids(target_text(example, "reasoning")))
        else:
            length += GROUP_SIZE * case.about.max_new_tokens
        longest = max(longest, length)
    return case.about.prompts_per_pass * longest
