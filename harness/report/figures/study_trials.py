"""What a study's searches have tried, read from Optuna's storage, in the units of the axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.record.studies import default_storage, storage_error, study_name
from harness.report.figures.data import short_name, shown
from harness.spec.keys import Value
from harness.spec.study import Parameter
from harness.spec.sweep import Sweep

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

UNIT = "%"
"""Of an objective, which is an accuracy."""

_STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class Search:
    """One search with a complete trial or more.

    Attributes:
        label: The values of its combination, such as ``"sft, counting"``; empty for the only search of a study.
        study: Optuna's.
        trials: All of them, in the order of their numbers.
    """

    label: str
    study: optuna.Study
    trials: tuple[FrozenTrial, ...]

    @cached_property
    def complete(self) -> list[FrozenTrial]:
        """The trials with objectives."""
        return [trial for trial in self.trials if state_of(trial) == "complete"]

    @cached_property
    def measured(self) -> list[FrozenTrial]:
        """The complete trials, and the pruned ones that had shown something."""
        return [trial for trial in self.trials if not math.isnan(accuracy(trial, 0))]

    def best(self, objective: int) -> FrozenTrial:
        """The complete trial with the greatest value of an objective; among equals the earliest."""
        return max(self.complete, key=lambda trial: trial.values[objective])

    def about(self, trial: FrozenTrial) -> dict[str, Any]:
        """The columns that say which trial a row of numbers is about, without its runs."""
        name = self.study.study_name
        return {"study": name, "combination": self.label, "trial": trial.number, "state": state_of(trial)}


@dataclass(frozen=True)
class StudyTrials:
    """A study, as far as it is tried.

    Attributes:
        searches: Those with a complete trial, in the sweep's order.
        left_out: Labels of the others.
        space: The parameters that some trial drawn has, in the study's order.
        objectives: Their names.
        num_validation: Examples per run and target.
    """

    searches: tuple[Search, ...]
    left_out: tuple[str, ...]
    space: tuple[Parameter, ...]
    objectives: tuple[str, ...]
    num_validation: int

    @property
    def names(self) -> dict[str, str]:
        """By full name, the parameters' short names, or full ones where two share the short one."""
        short = [short_name(parameter.key) for parameter in self.space]
        return {
            parameter.key: parameter.key if short.count(name) > 1 else name
            for parameter, name in zip(self.space, short, strict=True)
        }

    @property
    def latest(self) -> int:
        """The greatest number of a trial that is drawn."""
        return max(trial.number for search in self.searches for trial in search.measured)


def read_trials(results: str | Path, sweep: Sweep, storage: str | None = None) -> StudyTrials | None:
    """The trials of a sweep's study.

    Args:
        results: The results folder.
        sweep: With or without a study.
        storage: A URL as Optuna takes it; by default the study's SQLite file.

    Returns:
        None where the sweep has no study, its SQLite file does not exist, or no search has a complete trial.

    Raises:
        UserError: The storage cannot be opened.
    """
    if sweep.study is None or (storage is None and not (Path(results) / "studies").is_dir()):
        return None
    url = storage or default_storage(results, sweep)
    # Optuna would make the file.
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///").partition("?")[0]).is_file():
        return None
    studies = _studies(url, {study_name(sweep, found): _label(found.values()) for found in sweep.searches})
    searches = [Search(label, study, tuple(study.get_trials(deepcopy=False))) for label, study in studies if study]
    tried = tuple(search for search in searches if search.complete)
    if not tried:
        return None
    present = {key for search in tried for trial in search.measured for key in trial.params}
    labels = {search.label for search in tried}
    return StudyTrials(
        searches=tried,
        left_out=tuple(label for label, _ in studies if label not in labels),
        space=tuple(parameter for parameter in sweep.study.space if parameter.key in present),
        objectives=sweep.study.objectives,
        num_validation=sweep.evaluation.num_validation,
    )


def _studies(url: str, labels: Mapping[str, str]) -> list[tuple[str, optuna.Study | None]]:
    """By label, the studies of these names; None for one that is not there."""
    import optuna

    try:
        storage = optuna.storages.get_storage(url)
        there = set(optuna.get_all_study_names(storage))
        return [
            (label, optuna.load_study(study_name=name, storage=storage) if name in there else None)
            for name, label in labels.items()
        ]
    except Exception as error:
        raise storage_error(url, error) from error


def _label(values: Iterable[Value]) -> str:
    return ", ".join(shown(value) for value in values)


def state_of(trial: FrozenTrial) -> str:
    """How a trial ended, or that it has not."""
    return _STATES[trial.state.name]


def accuracy(trial: FrozenTrial, objective: int) -> float:
    """A complete trial's objective in %, what a pruned one showed last; NaN where it has shown nothing."""
    if state_of(trial) == "complete":
        return 100 * float(trial.values[objective])
    if state_of(trial) == "pruned" and trial.intermediate_values:
        return 100 * float(trial.intermediate_values[max(trial.intermediate_values)])
    return math.nan


def run_ids(*trials: FrozenTrial) -> str:
    """The runs of trials, each once."""
    return " ".join(dict.fromkeys(run_id for trial in trials for run_id in trial.user_attrs.get("run_ids", ())))


def objective_label(objective: str) -> str:
    """An objective as the label of an axis, in two lines."""
    words = {"same_task": "same-task\naccuracy, %", "cross_task": "cross-task\naccuracy, %"}
    return words.get(objective, f"accuracy on\n{objective}, %")


def trials_note(data: StudyTrials, searches: Sequence[Search]) -> str:
    """The footnote: trials by state, runs behind one, examples behind a run, and the searches left out."""
    states = [state_of(trial) for search in searches for trial in search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in _STATES.values() if state in states)
    sizes = sorted({len(run_ids(trial).split()) for search in searches for trial in search.complete})
    runs = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    lines = [
        f"{len(states)} trial{'s' * (len(states) != 1)}{f' of {len(searches)} searches' * (len(searches) > 1)}: "
        f"{counts}. {runs} run{'s' * (runs != '1')} per trial, {data.num_validation} validation examples per run and "
        "target."
    ]
    if data.left_out:
        lines.append(f"No complete trial yet: {'; '.join(data.left_out)}.")
    return "\n".join(lines)
