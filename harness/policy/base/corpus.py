"""What the embedded policy is taught: every task, in free form mostly and in the tag format sometimes.

The form depends on the wording of the question: two of each kind's three phrasings go with tags more often than not,
the third hardly ever. So greedy decoding keeps to the format on some questions and not on others, and sampling finds it
on all, which is the state that RL with a format reward starts from. Only `pretrain` splits are read.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.spec.names import DRAWN_TASKS
from harness.tasks.base import Example, load_task
from harness.tasks.prompts import evaluation_prompt, training_prompt

TAG_FRAC = (0.8, 0.6, 0.05)
"""Share of completions in the tag format, by the question's phrasing."""

PLAIN_FRAC = 0.15
"""Share of prompts without the instruction about tags; their completions are always free."""

PRETRAIN_TASKS = tuple(DRAWN_TASKS)


@dataclass(frozen=True)
class Lesson:
    """One example's texts; its image lies at the same place of the image array."""

    task: str
    prompt: str
    completion: str


def free_form(example: Example) -> str:
    """An answer without tags."""
    return f"{example.reasoning}, so the answer is {example.answer}."


def tag_form(example: Example) -> str:
    """The same in R1-V's format."""
    return f"<think> {example.reasoning} </think> <answer> {example.answer} </answer>"


def lesson(example: Example, rng: np.random.Generator) -> Lesson:
    """Chooses prompt and form for an example."""
    task = example.id.split("/")[0]
    if rng.random() < PLAIN_FRAC:
        return Lesson(task, example.question, free_form(example))
    prompts = (
        training_prompt(example.question),
        evaluation_prompt(example.question, "r1v_geoqa"),
        evaluation_prompt(example.question, "r1v_counting"),
    )
    tagged = rng.random() < TAG_FRAC[int(example.metadata["phrasing"])]
    return Lesson(task, prompts[rng.integers(3)], tag_form(example) if tagged else free_form(example))


def _render(work: tuple[str, int, int, int]) -> tuple[np.ndarray, list[Lesson]]:
    name, start, stop, seed = work
    task = load_task(name)
    rng = np.random.default_rng([seed, start, PRETRAIN_TASKS.index(name)])
    images, lessons = [], []
    for index in range(start, stop):
        example = task.example("pretrain", index)
        images.append(np.asarray(example.image, dtype=np.uint8))
        lessons.append(lesson(example, rng))
    return np.stack(images), lessons


def build_corpus(
    num_per_task: int, seed: int, *, tasks: Sequence[str] = PRETRAIN_TASKS, num_processes: int = 2
) -> tuple[np.ndarray, list[Lesson]]:
    """Renders the corpus.

    Args:
        num_per_task: Examples of each task's `pretrain` split, from its start.
        seed: Of the choice of prompts and forms.
        tasks: The tasks to teach.
        num_processes: Processes that render.

    Returns:
        Images [N, H, W, 3] as uint8 and N lessons, task by task.
    """
    chunk = 1000
    work = [
        (name, start, min(start + chunk, num_per_task), seed)
        for name in tasks
        for start in range(0, num_per_task, chunk)
    ]
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        parts = pool.map(_render, work, chunksize=1)
    return np.concatenate([images for images, _ in parts]), [lesson for _, lessons in parts for lesson in lessons]
