"""What thousands of run folders hold, without reading them again: an index that is left aside where it could be wrong.

:mod:`harness.record.remembered` says when it is believed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness.errors import DataError
from harness.record.atomic import read_json
from harness.record.folder import RunFolder, is_name
from harness.record.remembered import WORTH, Sight, Table, run_ids
from harness.record.state import SUMMARY_KEYS, RunState, answers, read_state, read_summary
from harness.record.verdicts import Verdicts, sound_rows, verdicts_of
from harness.spec.methods import Evaluation, Split

FORMAT = (1, *(field.name for field in dataclasses.fields(RunState)))
"""The number is raised whenever the same files make another value."""

_SPLITS: tuple[Split, ...] = ("test", "validation")


class Recorded(NamedTuple):
    """What a run folder has for tables and estimates.

    Attributes:
        summary: `evaluations`, `validations` and, of `train`, the evaluations; None for a run that is not completed.
        run: Of `run.json` the `spec`, `job`'s `sweep`, and `provenance`'s `commit` and `dirty`; None where the file is
            missing or damaged.
        verdicts: By `<split>/<target>`; an evaluation whose file is no evidence of it is not among them.
    """

    summary: Mapping[str, Any] | None
    run: Mapping[str, Any] | None
    verdicts: Mapping[str, Verdicts]

    def of(self, target: str, split: Split) -> Verdicts | None:
        """The verdicts on a target; None where there are none that can be trusted."""
        return self.verdicts.get(f"{split}/{target}")


class RunIndex:
    """Looks into the run folders of a results folder; to be used in a `with` block, which keeps what was read.

    Args:
        results: The results folder.
        worth: Runs that have to be read before the index is written.
    """

    def __init__(self, results: Path | str, *, worth: int = WORTH) -> None:
        self._results = Path(results)
        self._status = Table(self._results, "status", FORMAT, worth, {"summary": None, "state": {}})
        self._jobs = Table(self._results, "jobs", FORMAT, worth, None)
        self._recorded = Table(self._results, "recorded", FORMAT, worth, {"summary": None, "run": None, "verdicts": {}})
        self._measured = Table(self._results, "measured", FORMAT, worth, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep()

    def keep(self) -> None:
        """Writes down what was read, where that is worth it; whatever stands in the way is passed over."""
        for table in (self._status, self._jobs, self._recorded, self._measured):
            table.keep()

    def run_ids(self) -> list[str]:
        """The runs that have a folder, by name; as :func:`harness.record.folder.run_folders`."""
        return run_ids(self._results)

    def knows(self, run_id: str) -> bool:
        """Whether what a run folder has for tables and estimates is on record, and is believed."""
        return self._recorded.knows(run_id)

    def status(self, run_id: str) -> tuple[dict[str, Any] | None, RunState]:
        """The evaluations in a run's summary, or None, and its state, as :func:`harness.record.state.read_state`.

        An evaluation whose file is missing, or has another length than the summary notes, is not among them.
        """
        found = self._status.look(run_id, _status_of)
        return found["summary"], RunState(**found["state"])

    def is_complete(self, run_id: str, targets: Iterable[str], evaluation: Evaluation) -> bool:
        """As :func:`harness.record.state.is_complete`."""
        return completes(self._status.look(run_id, _status_of)["summary"], targets, evaluation)

    def is_intact(self, run_id: str, targets: Iterable[str], evaluation: Evaluation) -> bool:
        """Whether a run is complete, and each evaluation's file is the one that the summary was made from."""
        found, targets = self.recorded(run_id), list(targets)
        return completes(found.summary, targets, evaluation) and all(
            found.of(target, split) is not None for target in targets for split in evaluation.splits
        )

    def job(self, run_id: str) -> dict[str, Any] | None:
        """What a run's last worker was handed, from `job.json`, else from `run.json`; None where neither tells."""
        found: dict[str, Any] | None = self._jobs.look(run_id, _job_of)
        return found

    def measured(self, run_id: str) -> dict[str, Any] | None:
        """What a run's attempts took, as :func:`measured_of` has it."""
        found: dict[str, Any] | None = self._measured.look(run_id, _measured_of)
        return found

    def recorded(self, run_id: str) -> Recorded:
        """What a run folder has for tables and estimates."""
        found = self._recorded.look(run_id, _recorded_of)
        return Recorded(
            found["summary"], found["run"], {key: Verdicts(*value) for key, value in found["verdicts"].items()}
        )


def completes(summary: Mapping[str, Any] | None, targets: Iterable[str], evaluation: Evaluation) -> bool:
    """Whether a summary, or None, has every target as asked."""
    return summary is not None and all(
        answers(summary.get(SUMMARY_KEYS[split], {}).get(target), evaluation, split)
        for target in targets
        for split in evaluation.splits
    )


def _status_of(folder: RunFolder, sight: Sight) -> dict[str, Any]:
    sight.note(folder.summary, folder.state_json)
    state = read_state(folder)
    changed = {
        field.name: value
        for field in dataclasses.fields(state)
        if (value := getattr(state, field.name)) != field.default
    }
    return {"summary": _with_evidence(folder, read_summary(folder), sight), "state": changed}


def _with_evidence(folder: RunFolder, summary: Mapping[str, Any] | None, sight: Sight) -> dict[str, Any] | None:
    """The evaluations in a summary without those whose file has not the length that it notes."""
    kept = _evaluations(summary)
    if summary is None or kept is None:
        return None
    noted = _mapping(summary.get("files"))
    for split, key in SUMMARY_KEYS.items():
        kept[key] = {
            target: counted
            for target, counted in kept.get(key, {}).items()
            if is_name(target) and _has_length(folder.evaluation(target, split), folder, noted, sight)
        }
    return kept


def _has_length(path: Path, folder: RunFolder, noted: Mapping[str, Any], sight: Sight) -> bool:
    name = path.relative_to(folder.path).as_posix()
    if name not in noted:
        return True
    sight.note(path)
    identity = sight.files[name]
    return identity is not None and identity[1] == noted[name]["bytes"]


def _job_of(folder: RunFolder, sight: Sight) -> dict[str, Any] | None:
    sight.note(folder.job_json, folder.run_json)
    job = _json(folder.job_json)
    if job is not None:
        return job
    record = _mapping(_json(folder.run_json))
    return {**record["job"], "spec": record["spec"]} if {"job", "spec"} <= record.keys() else None


def _recorded_of(folder: RunFolder, sight: Sight) -> dict[str, Any]:
    sight.note(folder.summary, folder.run_json)
    summary, run, verdicts = read_summary(folder), _json(folder.run_json), {}
    for split in _SPLITS:
        for target in filter(is_name, _mapping((summary or {}).get(SUMMARY_KEYS[split]))):
            sight.note(folder.evaluation(target, split))
            rows = sound_rows(folder, target, split, summary)
            if rows is not None:
                verdicts[f"{split}/{target}"] = verdicts_of(rows)
    return {"summary": _evaluations(summary), "run": _shortened(run), "verdicts": verdicts}


def measured_of(run: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Of the content of a `run.json` what estimates are made from: `spec`, `job` and `attempts`; None without a spec.

    Returns:
        Of `job` the sweep, targets, evaluation and execution; of each attempt its first step, its times, its outcome
        and what was `measured`.
    """
    if run is None or not isinstance(run.get("spec"), dict) or not isinstance(run.get("job"), dict):
        return None
    return {
        "spec": run["spec"],
        "job": {key: run["job"].get(key) for key in ("sweep", "targets", "evaluation", "execution")},
        "attempts": [
            {key: attempt.get(key) for key in ("start_step", "started", "ended", "outcome", "measured")}
            for attempt in run.get("attempts") or ()
            if isinstance(attempt, dict)
        ],
    }


def _measured_of(folder: RunFolder, sight: Sight) -> dict[str, Any] | None:
    sight.note(folder.run_json)
    return measured_of(_json(folder.run_json))


def _evaluations(summary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if summary is None:
        return None
    kept = {key: found for key in SUMMARY_KEYS.values() if (found := _mapping(summary.get(key)))}
    train = {key: value for key, value in _mapping(summary.get("train")).items() if key.startswith("eval/")}
    return {"evaluations": {}} | kept | ({"train": train} if train else {})


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _shortened(run: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if run is None or not isinstance(run.get("spec"), dict):
        return None
    origin = _mapping(run.get("provenance"))
    return {
        "spec": run["spec"],
        "job": {"sweep": _mapping(run.get("job")).get("sweep")},
        "provenance": {"commit": origin.get("commit"), "dirty": origin.get("dirty")},
    }


def _json(path: Path) -> dict[str, Any] | None:
    try:
        value = read_json(path)
    except (FileNotFoundError, NotADirectoryError, DataError):
        return None
    return value if isinstance(value, dict) else None
