"""How many of these completions are correct? Scores a file that any model wrote, under a published protocol.

It reads JSONL or a JSON list of rows with `completion` and `solution`, and R1-V's own evaluation logs
(``{"results": [{"model_output": ..., "ground_truth": ...}]}``).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.tasks.checking import Checker
from harness.tasks.protocols import Protocol, Verdict, load_protocol

_COLUMNS = ("completion", "solution")
_R1V_COLUMNS = ("model_output", "ground_truth")


@dataclass(frozen=True)
class Row:
    """One completion to score.

    Attributes:
        completion: What the model wrote.
        solution: The right answer, with or without answer tags.
        place: Where it stands, for messages: ``"file:line"`` or ``"file: row 3"``, from 1.
    """

    completion: str
    solution: str
    place: str = "row"


@dataclass(frozen=True)
class ScoreReport:
    """The score of a file.

    Attributes:
        protocol: The rule's name.
        num_correct: Rows that count.
        num_rows: All rows, > 0.
        verdicts: One per row.
        solutions: One per row, as read.
    """

    protocol: str
    num_correct: int
    num_rows: int
    verdicts: tuple[Verdict, ...]
    solutions: tuple[str, ...]

    def line(self) -> str:
        """One line of text, such as ``"r1v_counting: 96/200 correct (48.0 %)"``."""
        percent = 100 * self.num_correct / self.num_rows
        return f"{self.protocol}: {self.num_correct}/{self.num_rows} correct ({percent:.1f} %)"

    def as_json(self) -> list[dict[str, Any]]:
        """One object per row: ``row`` (from 1), ``correct``, ``extracted`` and ``solution``."""
        pairs = zip(self.verdicts, self.solutions, strict=True)
        return [
            {"row": number, "correct": verdict.correct, "extracted": verdict.extracted, "solution": solution}
            for number, (verdict, solution) in enumerate(pairs, start=1)
        ]


def score(rows: Sequence[Row], protocol: Protocol | str, checker: Checker | None = None) -> ScoreReport:
    """Scores rows under a protocol.

    Args:
        rows: At least one.
        protocol: The rule, or its name.
        checker: What runs math_verify, where the rule needs it; the process's own by default.

    Raises:
        SpecError: There is no protocol of that name.
        DataError: There are no rows, or a solution is not one that the rule can compare with.
    """
    rule = load_protocol(protocol) if isinstance(protocol, str) else protocol
    if not rows:
        raise DataError("there are no rows to score")
    for row in rows:
        try:
            rule.gold(row.solution)
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from None
    solutions = tuple(row.solution for row in rows)
    verdicts = tuple(rule.verdicts([row.completion for row in rows], solutions, checker))
    return ScoreReport(rule.name, sum(verdict.correct for verdict in verdicts), len(rows), verdicts, solutions)


def read_rows(path: Path | str) -> list[Row]:
    """The rows of a file of completions.

    Args:
        path: JSONL, a JSON list, or one of R1-V's logs; UTF-8. A solution may be a number.

    Raises:
        DataError: The file cannot be read, holds no rows, or a row lacks a column or has a value of the wrong type; the
            message names the file and the line or row.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise DataError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    columns = _COLUMNS
    try:
        placed = _parse(text, path)
    except RecursionError:
        raise DataError(f"{path}: nested too deeply to be rows of completions") from None
    if len(placed) == 1 and isinstance(placed[0][1], dict) and isinstance(placed[0][1].get("results"), list):
        placed = _numbered(placed[0][1]["results"], path)
        columns = _R1V_COLUMNS
    if not placed:
        raise DataError(f"{path}: there are no rows to score")
    return [_row(place, value, columns) for place, value in placed]


def _parse(text: str, path: Path) -> list[tuple[str, Any]]:
    """The JSON values of a file, each with its place."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if not lines:
        return []
    try:
        whole = json.loads(text)
    except ValueError as error:
        # Several values: JSONL, unless the first line alone is no JSON either.
        try:
            json.loads(lines[0][1])
        except ValueError:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else lines[0][0]
            raise DataError(f"{path}:{line}: not JSON: {_reason(error)}") from None
        return [(f"{path}:{number}", _parse_line(line, f"{path}:{number}")) for number, line in lines]
    if isinstance(whole, list):
        return _numbered(whole, path)
    return [(f"{path}:{lines[0][0]}", whole)]


def _parse_line(line: str, place: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError(f"{place}: not JSON: {_reason(error)}") from None


def _reason(error: ValueError) -> str:
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _numbered(values: list[Any], path: Path) -> list[tuple[str, Any]]:
    return [(f"{path}: row {number}", value) for number, value in enumerate(values, start=1)]


def _row(place: str, value: Any, columns: tuple[str, str]) -> Row:
    if not isinstance(value, dict):
        raise DataError(f"{place}: a row is an object with '{columns[0]}' and '{columns[1]}', not {_kind(value)}")
    for column in columns:
        if column not in value:
            raise DataError(f"{place}: no column '{column}'; {_nearest_column(column, set(value) - set(columns))}")
    completion, solution = (value[column] for column in columns)
    if not isinstance(completion, str):
        raise DataError(f"{place}: '{columns[0]}' is text, not {_kind(completion)}")
    if isinstance(solution, bool) or not isinstance(solution, str | int | float):
        raise DataError(f"{place}: '{columns[1]}' is text or a number, not {_kind(solution)}")
    if isinstance(solution, float) and solution.is_integer():
        solution = int(solution)
    return Row(completion, str(solution), place)


def _nearest_column(column: str, others: Set[str]) -> str:
    if not others:
        return "the row has no other"
    close = difflib.get_close_matches(column, sorted(others), n=1, cutoff=0.6)
    return f"is '{close[0]}' meant?" if close else f"the row also has: {', '.join(sorted(others))}"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds[type(value)]
