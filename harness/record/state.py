"""How far a run is: `state.json`, and whether `summary.json` makes it complete."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from harness.errors import DataError
from harness.record.atomic import read_json, write_json
from harness.record.folder import RunFolder
from harness.spec.methods import Evaluation, Split

Status = Literal["pending", "running", "completed", "failed", "pruned"]
Phase = Literal["load", "train", "evaluate"]

SUMMARY_KEYS: Mapping[Split, str] = {"test": "evaluations", "validation": "validations"}
"""Where a summary keeps the evaluations of a split."""

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


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
        pid: Of the worker; `host` and `boot_id` say on which machine, and since which of its boots.
        error: One sentence.
        error_type: The class of the error.
        traceback: Of the error.
        attempts: How many workers have started on this run.
    """

    status: Status = "pending"
    phase: Phase | None = None
    step: int = 0
    num_steps: int = 0
    target: str | None = None
    heartbeat: float | None = None
    pid: int | None = None
    host: str | None = None
    boot_id: str | None = None
    error: str | None = None
    error_type: str | None = None
    traceback: str | None = None
    attempts: int = 0


def read_state(folder: RunFolder) -> RunState:
    """The state of a run, made to agree with `summary.json`.

    A run without a state is pending. One that calls itself completed without a summary is pending, and one that was
    killed after its summary and before its last state is completed.

    Raises:
        DataError: `state.json` does not hold a state.
    """
    summary = _mtime(folder.summary)
    written = _mtime(folder.state_json)
    if written is None:
        return RunState(status="pending" if summary is None else "completed")
    state = _parse(folder.state_json)
    if state.status == "completed" and summary is None:
        return dataclasses.replace(state, status="pending")
    if state.status == "running" and summary is not None and summary >= written:
        return dataclasses.replace(state, status="completed")
    return state


def write_state(folder: RunFolder, state: RunState) -> None:
    """Writes `state.json` as it is; :class:`harness.record.recorder.Recorder` does so for a worker."""
    write_json(folder.state_json, dataclasses.asdict(state))


def mark_failed(
    folder: RunFolder, error: str, *, error_type: str = "WorkerLost", detail: str | None = None
) -> RunState:
    """Marks a run failed whose worker died without a word.

    Args:
        folder: The run's.
        error: One sentence.
        error_type: A name for the kind of failure.
        detail: In place of the traceback, such as the last lines of the log.
    """
    state = dataclasses.replace(
        read_state(folder),
        status="failed",
        error=error,
        error_type=error_type,
        traceback=detail,
        heartbeat=time.time(),
    )
    write_state(folder, state)
    return state


def read_summary(folder: RunFolder) -> dict[str, Any] | None:
    """The content of `summary.json`; None while the run is not completed."""
    try:
        return cast("dict[str, Any]", read_json(folder.summary))
    except FileNotFoundError:
        return None


def is_complete(folder: RunFolder, targets: Iterable[str], evaluation: Evaluation) -> bool:
    """Whether a run is completed and has been evaluated on each target as asked.

    Reads `summary.json` alone: an evaluation is in it only when its file was written.
    """
    summary = read_summary(folder)
    if summary is None:
        return False
    return all(
        answers(summary.get(SUMMARY_KEYS[split], {}).get(target), evaluation, split)
        for split in evaluation.splits
        for target in targets
    )


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


def boot_id() -> str | None:
    """What tells one boot of this machine from the next, so that no pid is taken for a later one; None if unknown."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return None


def is_alive(state: RunState) -> bool | None:
    """Whether the worker's process is there; None where it cannot be known, on another machine."""
    if state.pid is None:
        return False
    if state.host != socket.gethostname():
        return None
    if state.boot_id != boot_id():
        return False
    try:
        os.kill(state.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _mtime(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _parse(path: Path) -> RunState:
    record = read_json(path)
    known = {field.name for field in dataclasses.fields(RunState)}
    if not isinstance(record, dict) or not record.keys() <= known:
        raise DataError(f"{path} does not hold the state of a run")
    return RunState(**record)
