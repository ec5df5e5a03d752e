"""How far a run is: `state.json`, and whether `summary.json` makes it complete."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from harness.errors import DataError
from harness.record.atomic import read_json
from harness.record.failures import Failure
from harness.record.files import Files
from harness.record.folder import RunFolder, is_name
from harness.spec.methods import Evaluation, Split

Status = Literal["pending", "running", "completed", "failed", "pruned"]
Phase = Literal["load", "train", "evaluate"]

SUMMARY_KEYS: Mapping[Split, str] = {"test": "evaluations", "validation": "validations"}
"""Where a summary keeps the evaluations of a split."""


@dataclass(frozen=True)
class RunState:
    """The content of `state.json`.

    Attributes:
        status: `pending` also after an interruption: the run can be resumed.
        phase: What the worker is doing; None before it started.
        step: Steps done in the phase, in [0, num_steps]; examples done in the phase `evaluate`.
        num_steps: All of them.
        target: The task under evaluation.
        heartbeat: When the worker last wrote, in Unix seconds.
        pid: Of the worker, on `host`; for people. Whether it lives is its lease's to tell (harness/record/lease.py).
        error: One sentence.
        failure: Its class, on which it depends what follows; see :mod:`harness.record.failures`.
        error_type: The class of the error.
        traceback: Of the error.
        attempts: How many workers have started on this run.
        peak_host_gib: The most host memory that the worker's first process has taken so far.
        peak_device_gib: The most memory on its device; None without one.
    """

    status: Status = "pending"
    phase: Phase | None = None
    step: int = 0
    num_steps: int = 0
    target: str | None = None
    heartbeat: float | None = None
    pid: int | None = None
    host: str | None = None
    error: str | None = None
    failure: Failure | None = None
    error_type: str | None = None
    traceback: str | None = None
    attempts: int = 0
    peak_host_gib: float | None = None
    peak_device_gib: float | None = None


def read_state(folder: RunFolder) -> RunState:
    """The state of a run, made to agree with `summary.json`.

    A run without a state, or with one that cannot be read, is pending. One that calls itself completed without a
    summary is pending, and one that was killed after its summary and before its last state is completed.
    """
    summary = _mtime(folder.summary)
    written = _mtime(folder.state_json)
    state = None if written is None else parse_state(folder.state_json)
    if written is None or state is None:
        return RunState(status="pending" if summary is None else "completed")
    if state.status == "completed" and summary is None:
        return dataclasses.replace(state, status="pending")
    if state.status == "running" and summary is not None and summary >= written:
        return dataclasses.replace(state, status="completed")
    return state


def write_state(folder: RunFolder, state: RunState, files: Files) -> None:
    """Writes `state.json` as it is; :class:`harness.record.recorder.Recorder` does so for a worker.

    Raises:
        FencedError: The folder has another owner.
    """
    files.write_json(folder.state_json, dataclasses.asdict(state))


def mark_failed(
    folder: RunFolder,
    files: Files,
    error: str,
    *,
    failure: Failure,
    error_type: str = "WorkerLost",
    detail: str | None = None,
) -> RunState:
    """Marks a run failed for somebody who has not been telling of it.

    Args:
        folder: The run's.
        files: Of its owner.
        error: One sentence.
        failure: Its class.
        error_type: A name for the kind of error.
        detail: In place of the traceback, such as the last lines of the log.

    Raises:
        FencedError: The folder has another owner.
    """
    state = dataclasses.replace(
        read_state(folder),
        status="failed",
        error=error,
        error_type=error_type,
        failure=failure,
        traceback=detail,
        heartbeat=time.time(),
    )
    write_state(folder, state, files)
    return state


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """The content of `summary.json`; None while the run is not completed, or where the file cannot be trusted."""
    try:
        summary = read_json(folder.summary)
    except (FileNotFoundError, DataError):
        return None
    return cast("dict[str, Any]", summary) if _is_sound(summary) else None


def _is_sound(summary: Any) -> bool:
    """Whether a summary has the form that its readers rely on."""
    if not isinstance(summary, dict) or "evaluations" not in summary:
        return False
    parts = [summary.get(key, {}) for key in (*SUMMARY_KEYS.values(), "files")]
    if not all(isinstance(part, dict) and all(isinstance(one, dict) for one in part.values()) for part in parts):
        return False
    *made, files = parts
    if not all(is_name(target) for part in made for target in part):
        return False
    return all(isinstance(one.get("num_examples"), int) for part in made for one in part.values()) and all(
        isinstance(noted.get("bytes"), int) and isinstance(noted.get("sha256"), str) for noted in files.values()
    )


def is_complete(folder: RunFolder, targets: Iterable[str], evaluation: Evaluation) -> bool:
    """Whether a run is completed and has been evaluated on each target as asked.

    An evaluation is in `summary.json` only when its file was written; that it still has its length is looked up, its
    content is compared where it is read.
    """
    summary = read_summary(folder)
    if summary is None:
        return False
    return all(
        answers(summary.get(SUMMARY_KEYS[split], {}).get(target), evaluation, split)
        and _has_evidence(folder, summary, target, split)
        for split in evaluation.splits
        for target in targets
    )


def _has_evidence(folder: RunFolder, summary: Mapping[str, Any], target: str, split: Split) -> bool:
    path = folder.evaluation(target, split)
    noted = (summary.get("files") or {}).get(str(path.relative_to(folder.path)))
    try:
        return noted is None or path.stat().st_size == noted["bytes"]
    except FileNotFoundError:
        return False


def answers(made: Mapping[str, Any] | None, asked: Evaluation, split: Split) -> bool:
    """Whether an evaluation in a summary is what is asked for: as many examples, or all, cut at the same length.

    Args:
        made: The target's entry in a summary; None where there is none.
        asked: What a sweep wants.
        split: Of the examples.
    """
    if made is None:
        return False
    enough = min(asked.num(split), made.get("split_size") or asked.num(split))
    return made["num_examples"] >= enough and made.get("max_new_tokens") == asked.max_new_tokens


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def parse_state(path: Path) -> RunState | None:
    """What a `state.json` tells; None where it is torn or of another kind. Fields of other versions are passed over."""
    try:
        record = read_json(path)
        known = {field.name for field in dataclasses.fields(RunState)}
        state = RunState(**{key: value for key, value in record.items() if key in known})
    except (DataError, AttributeError, FileNotFoundError):
        return None
    numbers = (state.step, state.num_steps, state.attempts)
    is_sound = state.status in get_args(Status) and all(isinstance(number, int) for number in numbers)
    return state if is_sound and isinstance(state.heartbeat, int | float | None) else None
