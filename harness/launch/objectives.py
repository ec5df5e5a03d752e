"""What a trial is judged by: accuracies on validation examples, never on the test split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from harness.errors import SpecError
from harness.record.atomic import read_jsonl
from harness.record.folder import RunFolder
from harness.record.state import SUMMARY_KEYS, read_summary
from harness.spec.expand import Cell
from harness.spec.study import Study, targets_of


def check_objectives(study: Study, cells: Iterable[Cell]) -> None:
    """Refuses an objective that some trial could not be judged by.

    Raises:
        SpecError: A cell without a target that the objective asks for.
    """
    for cell in cells:
        for objective in study.objectives:
            if not targets_of(objective, cell.spec.source, cell.targets):
                raise SpecError(
                    f"the objective '{objective}' has no target for runs on {cell.spec.source}: the sweep evaluates "
                    f"on {', '.join(cell.targets)} only"
                )


def final_values(results: Path, cells: Sequence[Cell], objectives: Sequence[str]) -> list[float]:
    """The objectives of completed runs: the mean over runs of the mean over each one's targets.

    Args:
        results: The results folder.
        cells: A trial's.
        objectives: Their names.

    Returns:
        One validation accuracy in [0, 1] per objective.
    """
    summaries = [read_summary(RunFolder(results, cell.run_id)) or {} for cell in cells]
    return [
        _mean(
            _mean(
                summary[SUMMARY_KEYS["validation"]][target]["accuracy"]
                for target in targets_of(objective, cell.spec.source, cell.targets)
            )
            for cell, summary in zip(cells, summaries, strict=True)
        )
        for objective in objectives
    ]


def interim_values(results: Path, cell: Cell, objective: str) -> dict[int, float]:
    """What a run has shown so far: steps done -> the objective in the evaluation made then.

    A step counts when every target of the objective was looked at.
    """
    wanted = [f"eval/{target}/accuracy" for target in targets_of(objective, cell.spec.source, cell.targets)]
    path = RunFolder(results, cell.run_id).metrics
    seen: dict[int, dict[str, float]] = {}
    for row in read_jsonl(path) if path.exists() else []:
        for key in wanted:
            if row.get(key) is not None:
                seen.setdefault(int(row["step"]) + 1, {})[key] = float(row[key])
    return {step: _mean(values.values()) for step, values in sorted(seen.items()) if len(values) == len(wanted)}


def timeline(interim: Sequence[Mapping[int, float]], num_steps: int) -> dict[int, float]:
    """One line of progress of a trial of several runs, read one after the other.

    Run k at step s stands at k * num_steps + s, with the mean of what the runs before it ended with and what it shows
    itself: two trials are compared at the same place of their lines, whatever order their runs were made in.

    Args:
        interim: Per run, in order, :func:`interim_values`.
        num_steps: Of each run.
    """
    line: dict[int, float] = {}
    before: list[float] = []
    for place, values in enumerate(interim):
        for step, value in values.items():
            line[place * num_steps + step] = _mean([*before, value])
        if num_steps not in values:
            break
        before.append(values[num_steps])
    return line


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)
