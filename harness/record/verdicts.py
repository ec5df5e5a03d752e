"""What an evaluation's file says of each example, where the file is the one that the run's summary was made from.

A file that is missing, torn or shorter than the summary counts, or whose length, SHA-256 or right answers are others
than the summary has, is no evidence: it counts as missing, never as a number.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from harness.record.folder import RunFolder, is_name
from harness.record.state import SUMMARY_KEYS
from harness.spec.methods import Split


class Verdicts(NamedTuple):
    """Two bits per example, in the order of the file; eight to a byte, the first the highest, as hexadecimal digits.

    Attributes:
        num_examples: Rows of the file.
        correct: Whether each is right.
        formats: Whether each has the right form.
        num_formats: For how many of the first rows that is known.
    """

    num_examples: int
    correct: str
    formats: str
    num_formats: int

    def num_correct(self, first: int) -> int:
        """Right answers among the first examples."""
        return _num_set(self.correct, first)

    def format_frac(self, first: int) -> float | None:
        """Share in the right form of the first examples, in [0, 1]; None where that is not known of each."""
        return _num_set(self.formats, first) / first if self.num_formats >= first else None


def sound_rows(
    folder: RunFolder, target: str, split: Split, summary: Mapping[str, Any] | None
) -> list[dict[str, Any]] | None:
    """The rows of an evaluation.

    Args:
        folder: The run's.
        target: The task it was evaluated on.
        split: Of the examples.
        summary: The run's.

    Returns:
        At least as many as the summary counts; None where it has no such evaluation, or the file is not its evidence.
    """
    summary = summary or {}
    counted = (summary.get(SUMMARY_KEYS[split]) or {}).get(target)
    if not isinstance(counted, Mapping) or not is_name(target):
        return None
    path = folder.evaluation(target, split)
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    noted = (summary.get("files") or {}).get(path.relative_to(folder.path).as_posix())
    if noted is not None and noted != {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}:
        return None
    rows = _rows(content)
    num_examples = counted.get("num_examples")
    if rows is None or not isinstance(num_examples, int) or not 0 < num_examples <= len(rows):
        return None
    num_correct = counted.get("num_correct")
    return rows if num_correct in (None, sum(bool(row["correct"]) for row in rows[:num_examples])) else None


def verdicts_of(rows: Iterable[Mapping[str, Any]]) -> Verdicts:
    """The verdicts of an evaluation's rows."""
    rows = list(rows)
    forms = [row.get("format") for row in rows]
    known = next((n for n, form in enumerate(forms) if form is None), len(forms))
    return Verdicts(len(rows), _packed(row["correct"] for row in rows), _packed(forms), known)


def _rows(content: bytes) -> list[dict[str, Any]] | None:
    """The rows of a file without a torn last line; None where another line is not a row with a verdict."""
    *lines, tail = content.split(b"\n")
    try:
        # All lines at once, in half the time: no string of JSON holds a line break, and two values on one line show.
        rows = json.loads(b"[" + b",".join(lines) + b"]")
    except ValueError:
        return None
    if len(rows) != len(lines):
        return None
    with contextlib.suppress(ValueError):
        rows += [json.loads(tail)] if tail else []
    return rows if all(isinstance(row, dict) and "correct" in row for row in rows) else None


def _num_set(bits: str, first: int) -> int:
    return (int(bits, 16) >> (4 * len(bits) - first)).bit_count()


def _packed(flags: Iterable[Any]) -> str:
    digits = "".join(["1" if flag else "0" for flag in flags])
    digits += "0" * (-len(digits) % 8)
    return int(digits, 2).to_bytes(len(digits) // 8, "big").hex() if digits else ""
