"""Files of a run that cannot be trusted: found by their own form, moved aside, never read again.

Everything that a worker goes on from is looked at before it starts: what is torn, or contradicts what was noted of it,
goes to `quarantine/`, and the run makes it anew. What a damaged file leaves without ground goes with it: rows that are
lost cannot be told of again without their steps, so the checkpoint behind them is given up too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.record.atomic import file_digest, read_json, read_jsonl
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.marks import lost_rows
from harness.record.state import SUMMARY_KEYS, parse_state, read_summary


def set_aside(folder: RunFolder, files: Files, num_steps: int) -> list[str]:
    """Moves every file of a run that cannot be trusted to its `quarantine/`.

    Args:
        folder: The run's.
        files: Of its owner.
        num_steps: Steps of its training.

    Returns:
        A sentence for each, such as ``"metrics.jsonl:7: not a JSON object; moved to quarantine/1-metrics.jsonl"``.

    Raises:
        FencedError: The folder has another owner; nothing was moved.
    """
    if not folder.path.is_dir():
        return []
    moved = []
    damaged = [*_damaged_records(folder), *_damaged_evaluations(folder), *_damaged_training(folder, num_steps)]
    for path, reason in damaged:
        if not path.exists():  # has gone with another
            continue
        files.check()
        folder.quarantine.mkdir(exist_ok=True)
        place = folder.quarantine / f"{len(list(folder.quarantine.iterdir())) + 1}-{path.name}"
        files.take_away(path, place)
        moved.append(f"{reason}; moved to {place.relative_to(folder.path)}")
    if moved and folder.summary.exists():
        # What the summary counts may be gone: the run is not completed until the summary is made again.
        files.take_away(folder.summary)
    return moved


def _damaged_records(folder: RunFolder) -> Iterator[tuple[Path, str]]:
    checks: dict[Path, Callable[[], bool]] = {
        folder.summary: lambda: read_summary(folder) is not None,
        folder.run_json: lambda: all(
            attempt.keys() >= {"number", "generation"} for attempt in read_json(folder.run_json)["attempts"]
        ),
        folder.state_json: lambda: parse_state(folder.state_json) is not None,
        folder.marks: lambda: isinstance(read_json(folder.marks)["marks"], list),
    }
    for path, is_right in checks.items():
        if path.exists() and not _holds(is_right):
            yield path, f"{path.name} is torn or holds something else"


def _damaged_evaluations(folder: RunFolder) -> Iterator[tuple[Path, str]]:
    noted = (read_summary(folder) or {}).get("files", {})
    for split in SUMMARY_KEYS:
        for path in folder.evaluations(split).values():
            name = str(path.relative_to(folder.path))
            reason = _fault_of_rows(path, "correct") or (None if read_jsonl(path) else f"{name} has no rows")
            if not reason and name in noted and file_digest(path) != noted[name]["sha256"]:
                reason = f"{name} is not the file that the summary was made from"
            if reason:
                yield path, reason


def _damaged_training(folder: RunFolder, num_steps: int) -> Iterator[tuple[Path, str]]:
    """Damaged weights and checkpoints; and both of them, with all rows, where rows are damaged."""
    checkpoints = sorted(folder.checkpoint.glob("[!.]*.safetensors"))
    weights = sorted(folder.weights.glob("*.safetensors"))
    reasons = {path: reason for path in folder.rows if path.exists() and (reason := _fault_of_rows(path, "step"))}
    done = num_steps if weights else max((_step_of(path) for path in checkpoints), default=0)
    reasons |= {path: f"{path.name} has lost rows since {done} steps were done" for path in lost_rows(folder, done)}
    if reasons:
        why = next(iter(reasons.values()))
        for path in (*folder.rows, folder.marks, *checkpoints, folder.weights):
            if path.exists():
                yield path, reasons.get(path, f"{path.name} goes with it: {why}")
        return
    fault = _fault_of_weights(folder.weights) if folder.weights.is_dir() else None
    if fault:
        yield folder.weights, fault
    for path in checkpoints:
        reason = fault_of_tensors(path)
        if reason:
            yield path, reason


def _holds(is_right: Callable[[], bool]) -> bool:
    try:
        return is_right()
    except (DataError, KeyError, TypeError, AttributeError):
        return False


def _fault_of_rows(path: Path, key: str) -> str | None:
    """What is wrong with a file of rows that all have a key; a torn last line is not wrong, but never read."""
    try:
        for number, row in enumerate(read_jsonl(path), start=1):
            if not isinstance(row.get(key), int):
                return f"{path.name}:{number}: not a row of this file"
    except DataError as error:
        return str(error)
    return None


def _fault_of_weights(weights: Path) -> str | None:
    """What is wrong with a folder of weights: no tensors, damaged ones, or settings that are not JSON."""
    tensors = sorted(weights.glob("*.safetensors"))
    if not tensors:
        return f"{weights.name} has no weights in it"
    faults = [*map(fault_of_tensors, tensors), *map(_fault_of_json, sorted(weights.glob("*.json")))]
    return next(filter(None, faults), None)


def _fault_of_json(path: Path) -> str | None:
    try:
        read_json(path)
    except DataError as error:
        return str(error)
    return None


def fault_of_tensors(path: Path) -> str | None:
    """What is wrong with a safetensors file, from its header and its length; None where it is whole.

    The format: 8 bytes of the header's length, the header as JSON with each tensor's offsets, then the tensors' bytes
    and nothing else (https://github.com/huggingface/safetensors).
    """
    header, start = _header(path)
    if header is None:
        return f"{path.name} is cut off in its header, or has none"
    try:
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        expected = start + max(ends, default=0)
    except (KeyError, TypeError, IndexError):
        return f"{path.name} has a header that tells of no tensors"
    size = path.stat().st_size
    return None if size == expected else f"{path.name} has {size} bytes where its header tells of {expected}"


def _step_of(checkpoint: Path) -> int:
    """The steps done at a checkpoint; 0 where it does not say."""
    try:
        return int((_header(checkpoint)[0] or {})["__metadata__"]["step"])
    except (KeyError, TypeError, ValueError):
        return 0


def _header(path: Path) -> tuple[dict[str, Any] | None, int]:
    """The header of a safetensors file, and where its tensors begin; None where it cannot be read."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            return None, 0
        try:
            header = json.loads(stream.read(length))
        except ValueError:
            return None, 0
    return (header if isinstance(header, dict) else None), 8 + length
