"""What is left to do of a run: steps behind its last checkpoint, evaluations that are not on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.launch.estimate.measured import num_evaluations
from harness.record.folder import RunFolder
from harness.record.marks import last_step
from harness.record.state import SUMMARY_KEYS, answers, read_state, read_summary
from harness.spec import RunSpec
from harness.spec.methods import Evaluation, Split

SplitSizes = Mapping[tuple[str, str], int]
"""By (split, target), how many examples there are, where that is known."""


@dataclass(frozen=True)
class Work:
    """What is left of a run.

    Attributes:
        steps: Training steps.
        tests: By target, examples to evaluate once the training is over.
        validations: By target, examples to evaluate during it.
    """

    steps: int
    tests: tuple[tuple[str, int], ...]
    validations: tuple[tuple[str, int], ...] = ()

    @property
    def examples(self) -> tuple[tuple[str, int], ...]:
        """All of them."""
        return self.tests + self.validations

    def __bool__(self) -> bool:
        return bool(self.steps or self.examples)


def whole(spec: RunSpec, targets: Sequence[str], evaluation: Evaluation, split_sizes: SplitSizes) -> Work:
    """All the work of a run that nothing is on record of."""
    return _work(spec, targets, evaluation, split_sizes, 0, lambda split, target, num: False)


def remaining(
    folder: RunFolder,
    spec: RunSpec,
    targets: Sequence[str],
    evaluation: Evaluation,
    status: str,
    split_sizes: SplitSizes,
) -> Work:
    """What is left of a run: steps behind the last checkpoint, or the step that a live worker is at; evaluations.

    Args:
        folder: The run's.
        spec: Of the run.
        targets: To be evaluated on.
        evaluation: How.
        status: The run's.
        split_sizes: How many examples there are, where known.
    """
    if status == "completed":
        return Work(0, ())
    num_steps = getattr(spec.method, "num_steps", 0)
    done = last_step(folder) if folder.checkpoint.is_dir() else 0
    if folder.weights.is_dir():
        done = num_steps
    elif status == "running":
        state = read_state(folder)
        done = max(done, min(state.step, num_steps) if state.phase == "train" else 0)
    summary = read_summary(folder) or {}

    def is_made(split: Split, target: str, num: int) -> bool:
        made = summary.get(SUMMARY_KEYS[split], {}).get(target)
        return answers(made, evaluation, split) if made else _num_rows(folder.evaluation(target, split)) >= num

    return _work(spec, targets, evaluation, split_sizes, done, is_made)


def _work(
    spec: RunSpec,
    targets: Sequence[str],
    evaluation: Evaluation,
    split_sizes: SplitSizes,
    done: int,
    is_made: Callable[[Split, str, int], bool],
) -> Work:
    num_steps = getattr(spec.method, "num_steps", 0)
    times = num_evaluations(evaluation.every, done, num_steps, num_steps)
    tests: dict[str, int] = {}
    validations: dict[str, int] = {}
    for target in targets:
        validation = min(evaluation.num_validation, split_sizes.get(("validation", target), evaluation.num_validation))
        validations[target] = times * validation
        for split in evaluation.splits:
            asked = min(evaluation.num(split), split_sizes.get((split, target), evaluation.num(split)))
            tests[target] = tests.get(target, 0) + (0 if is_made(split, target, asked) else asked)
    left = [tuple((target, num) for target, num in found.items() if num) for found in (tests, validations)]
    return Work(num_steps - done, left[0], left[1])


def _num_rows(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
