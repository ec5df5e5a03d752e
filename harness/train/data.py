"""Which examples a run trains on, and which of them make up a step."""

from __future__ import annotations

from harness.errors import SpecError
from harness.policy import Policy, Prompt
from harness.tasks.base import Example, Task
from harness.tasks.prompts import training_prompt
from harness.train.randomness import stream

CACHE_BYTES = 512 * 1024**2
"""Prompts kept ready to use, by the size of their image patches."""


class TrainingSet:
    """A seeded subset of a task's training split, in an order shuffled anew for each pass.

    The subset depends on the seed, so that intervals over seeds cover the choice of data; runs of the same seed share
    it whatever their method.

    Args:
        task: The source task.
        policy: The model whose prompts are made.
        num_train: Size of the subset.
        seed: The run's.

    Raises:
        SpecError: The split is smaller than `num_train`.
    """

    def __init__(self, task: Task, policy: Policy, num_train: int, seed: int) -> None:
        size = task.num_examples["train"]
        if num_train > size:
            raise SpecError(f"num_train is {num_train}, but {task.name} has {size} training examples")
        self.task = task
        self.policy = policy
        self.seed = seed
        self.indices: list[int] = stream(seed, "subset").choice(size, num_train, replace=False).tolist()
        self._ready: dict[int, tuple[Example, Prompt]] = {}
        self._ready_bytes = 0

    def step(
        self, step: int, num_prompts: int, rank: int = 0, num_processes: int = 1
    ) -> list[tuple[int, Example, Prompt]]:
        """The examples of a step.

        Args:
            step: From 0.
            num_prompts: Prompts of the whole step.
            rank: This process's place among those that share the step.
            num_processes: How many share it.

        Returns:
            For each prompt of this process: its place in the step, the example, and the prompt.

        Raises:
            SpecError: There are fewer prompts than processes.
        """
        if num_prompts < num_processes:
            raise SpecError(f"prompts_per_step is {num_prompts}, too few for {num_processes} processes")
        places = range(rank, num_prompts, num_processes)
        return [(place, *self._prepared(self._index(step * num_prompts + place))) for place in places]

    def _index(self, count: int) -> int:
        epoch, place = divmod(count, len(self.indices))
        return self.indices[int(stream(self.seed, "order", epoch).permutation(len(self.indices))[place])]

    def _prepared(self, index: int) -> tuple[Example, Prompt]:
        if index in self._ready:
            return self._ready[index]
        example = self.task.example("train", index)
        prompt = self.policy.prompt(example.image, training_prompt(example.question))
        size = prompt.pixels.numel() * prompt.pixels.element_size()
        if self._ready_bytes + size <= CACHE_BYTES:
            self._ready[index] = (example, prompt)
            self._ready_bytes += size
        return example, prompt
