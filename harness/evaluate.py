"""Greedy answers of a policy to a task's examples, judged by the task's published protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from harness.errors import SpecError
from harness.policy import Completions, Policy, Prompt, sample
from harness.spec.names import DRAWN_TASKS
from harness.tasks.base import Split, Task
from harness.tasks.prompts import evaluation_prompt
from harness.tasks.protocols import load_protocol
from harness.tasks.rewards import accuracy_rewards, format_rewards
from harness.train.memory import TokenBudget
from harness.train.processes import Processes

BATCH_SIZE = 64
"""Prompts answered together."""


@torch.no_grad()
def evaluate(
    policy: Policy,
    task: Task,
    split: Split,
    num_examples: int,
    processes: Processes,
    *,
    max_new_tokens: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> list[dict[str, Any]]:
    """Answers the first examples of a split.

    Args:
        policy: The model.
        task: The target.
        split: `validation` or `test`.
        num_examples: How many.
        processes: Those that share the work; each gets all rows back.
        max_new_tokens: Where an answer is cut; the protocol's own number where None.
        progress: Told the examples done.

    Returns:
        A row per example in order: index, id, question, completion, extracted, correct, format, accuracy_reward,
        solution, num_tokens.

    Raises:
        SpecError: The split is smaller.
    """
    if num_examples > task.num_examples[split]:
        raise SpecError(f"{task.name} has {task.num_examples[split]} {split} examples, not {num_examples}")
    protocol = load_protocol(task.protocol)
    mine = range(processes.rank, num_examples, processes.count)
    rows: list[dict[str, Any]] = []
    budget = TokenBudget()
    for start in range(0, len(mine), BATCH_SIZE):
        examples = [task.example(split, index) for index in mine[start : start + BATCH_SIZE]]
        prompts = [policy.prompt(e.image, evaluation_prompt(e.question, task.protocol)) for e in examples]
        answers = _answers(policy, prompts, max_new_tokens or protocol.max_new_tokens, budget)
        lengths = answers.lengths[:, 0].tolist()
        texts = [
            policy.completion_text(ids[:length])
            for ids, length in zip(answers.ids[:, 0].tolist(), lengths, strict=True)
        ]
        solutions = [example.solution for example in examples]
        verdicts = protocol.verdicts(texts, solutions)
        rows += [
            {
                "index": mine[start + place],
                "id": example.id,
                "question": example.question,
                "completion": texts[place],
                "extracted": verdicts[place].extracted,
                "correct": verdicts[place].correct,
                "format": form,
                "accuracy_reward": accuracy,
                "solution": example.answer,
                "num_tokens": lengths[place],
            }
            for place, (example, form, accuracy) in enumerate(
                zip(examples, format_rewards(texts), accuracy_rewards(texts, solutions), strict=True)
            )
        ]
        progress(len(rows))
    return sorted(processes.gather(rows), key=lambda row: int(row["index"]))


def _answers(policy: Policy, prompts: Sequence[Prompt], max_new_tokens: int, budget: TokenBudget) -> Completions:
    """Greedy answers; fewer prompts at a time where memory runs out."""
    sizes = [len(prompt.ids) + max_new_tokens for prompt in prompts]

    def work() -> Completions:
        batches = [policy.batch([prompts[place] for place in places]) for places in budget.split(sizes)]
        return Completions.joined(
            [sample(policy, batch, policy.encode_images(batch), max_new_tokens=max_new_tokens) for batch in batches]
        )

    return budget.attempt("evaluation", max(sizes), sum(sizes), work)


def num_asked(num_examples: int, task: Task, split: Split) -> int:
    """How many examples of a target are answered: stored rows, as many as there are; of drawn ones there are plenty.

    Args:
        num_examples: What the sweep asks of each target.
        task: The target.
        split: Of the target.
    """
    return num_examples if task.name in DRAWN_TASKS else min(num_examples, task.num_examples[split])


def summarise(rows: Sequence[Mapping[str, Any]], protocol: str) -> dict[str, Any]:
    """What a summary holds of an evaluation: counts, accuracy and format in [0, 1], protocol, the length asked for."""
    num_correct = sum(bool(row["correct"]) for row in rows)
    size = {"split_size": rows[0]["split_size"]} if "split_size" in rows[0] else {}
    return size | {
        "protocol": protocol,
        "num_examples": len(rows),
        "num_correct": num_correct,
        "accuracy": num_correct / len(rows),
        "format": sum(row["format"] for row in rows) / len(rows),
        "mean_length": sum(row["num_tokens"] for row in rows) / len(rows),
        "max_new_tokens": rows[0].get("max_new_tokens"),
    }
