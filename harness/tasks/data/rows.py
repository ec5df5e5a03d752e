"""The rows of one split: question, answer, gold reasoning and picture, each read when it is asked for.

Two schemas, told apart by their columns:

- R1-V's training sets: `image`, `problem`, `solution` (with or without answer tags), `thinking` where there is any;
- R1-V's test sets: `image_path`, `question`, `ground_truth` (text or a number).

In JSONL a picture is a path, relative to the file's folder; in parquet it may also be the `Image` of the `datasets`
library. Memory does not grow with the pictures: of a JSONL file only the places of its lines are kept, and a parquet
table is mapped from disk.
"""

from __future__ import annotations

import difflib
import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import DataError
from harness.tasks.data.pictures import Picture
from harness.tasks.rewards import extract_answer

TRAINING_COLUMNS = ("image", "problem", "solution")
EVALUATION_COLUMNS = ("image_path", "question", "ground_truth")


@dataclass(frozen=True)
class Row:
    """One row, checked but for its picture, which nobody has opened yet.

    Attributes:
        question: Without the instruction about tags.
        answer: Without tags.
        reasoning: Without tags; empty where the row has none.
        picture: Opens on demand.
        place: For messages: ``"file:line"`` of JSONL, else ``"file: row 3"``, both from 1.
    """

    question: str
    answer: str
    reasoning: str
    picture: Picture
    place: str


class Table(Protocol):
    """Rows by index, from 0."""

    def __len__(self) -> int:
        """How many there are."""

    def place(self, index: int) -> str:
        """Where a row stands, for messages."""

    def row(self, index: int) -> Row:
        """A row.

        Raises:
            DataError: It lacks a column, or a value is empty or of the wrong type; the message names the row.
        """


class JsonlTable:
    """The rows of a JSONL file; empty lines do not count.

    Args:
        file: UTF-8.

    Raises:
        DataError: The file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        # Offset and line number of each row.
        self._offsets, self._lines = array("Q"), array("Q")
        offset = 0
        try:
            with file.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        self._offsets.append(offset)
                        self._lines.append(number)
                    offset += len(line)
        except OSError as error:
            raise DataError(f"{file}: {(error.strerror or str(error)).lower()}") from None

    def __len__(self) -> int:
        """Lines that are not empty."""
        return len(self._offsets)

    def place(self, index: int) -> str:
        """File and line."""
        return f"{self.file}:{self._lines[index]}"

    def row(self, index: int) -> Row:
        """The row, parsed now."""
        with self.file.open("rb") as stream:
            stream.seek(self._offsets[index])
            line = stream.readline()
        place = self.place(index)
        try:
            value = json.loads(line.removeprefix(b"\xef\xbb\xbf"))
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 text (byte {error.start})") from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON: {getattr(error, 'msg', error)}") from None
        if not isinstance(value, dict):
            raise DataError(f"{place}: a row is an object with {_listed(TRAINING_COLUMNS)}, not {_kind(value)}")
        return parse_row(value, place, self.file.parent)


class ArrowTable:
    """The rows of a table of the `datasets` library, mapped from disk.

    Args:
        dataset: A `datasets.Dataset`.
        label: What messages call it: a file or the hub's name.
        folder: What relative picture paths are relative to.
    """

    def __init__(self, dataset: Any, label: str, folder: Path) -> None:
        import datasets

        for column, feature in dataset.features.items():
            if isinstance(feature, datasets.Image):
                dataset = dataset.cast_column(column, datasets.Image(decode=False))
        self._dataset = dataset
        self._label = label
        self._folder = folder

    def __len__(self) -> int:
        """Rows of the table."""
        return len(self._dataset)

    def place(self, index: int) -> str:
        """Table and row."""
        return f"{self._label}: row {index + 1}"

    def row(self, index: int) -> Row:
        """The row, read now."""
        return parse_row(self._dataset[index], self.place(index), self._folder)


def parse_row(value: Mapping[str, Any], place: str, folder: Path) -> Row:
    """Checks one row of either schema.

    Args:
        value: By column.
        place: What messages begin with.
        folder: What relative picture paths are relative to.

    Raises:
        DataError: A column is missing, or a value is empty or of the wrong type.
    """
    is_evaluation = "image" not in value and ("image_path" in value or "ground_truth" in value)
    columns = EVALUATION_COLUMNS if is_evaluation else TRAINING_COLUMNS
    for column in columns:
        if column not in value:
            raise DataError(f"{place}: no column '{column}'; {_nearest_column(column, value, columns)}")
    picture, question, answer = (value[column] for column in columns)
    if not isinstance(question, str):
        raise DataError(f"{place}: '{columns[1]}' is text, not {_kind(question)}")
    if not question.strip():
        raise DataError(f"{place}: '{columns[1]}' is empty")
    thinking = value.get("thinking")
    if thinking is not None and not isinstance(thinking, str):
        raise DataError(f"{place}: 'thinking' is text, not {_kind(thinking)}")
    return Row(
        question=question,
        answer=_answer(answer, place, columns[2]),
        reasoning=_without_tags(thinking or ""),
        picture=_picture(picture, place, columns[0], folder),
        place=place,
    )


def _answer(value: Any, place: str, column: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{place}: '{column}' is text or a number, not {_kind(value)}")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value)
    tagged = extract_answer(text)
    answer = text.strip() if tagged is None else tagged
    if not answer:
        raise DataError(f"{place}: the answer in '{column}' is empty")
    return answer


def _picture(value: Any, place: str, column: str, folder: Path) -> Picture:
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
        if content is not None:
            return Picture(place, content=content)
        value = path
    if not isinstance(value, str):
        raise DataError(f"{place}: '{column}' is a path or a picture, not {_kind(value)}")
    if not value.strip():
        raise DataError(f"{place}: '{column}' is empty")
    return Picture(place, path=folder / value)


def _without_tags(thinking: str) -> str:
    """R1-V's `thinking` holds its tags; a gold chain of thought is the text between them."""
    return thinking.replace("<think>", "").replace("</think>", "").strip()


def _nearest_column(column: str, value: Mapping[str, Any], known: tuple[str, ...]) -> str:
    others = sorted(set(value) - set(known))
    if not others:
        return f"a row has {_listed(TRAINING_COLUMNS)}, or {_listed(EVALUATION_COLUMNS)}"
    close = difflib.get_close_matches(column, others, n=1, cutoff=0.6)
    return f"is '{close[0]}' meant?" if close else f"the row also has {', '.join(others)}"


def _listed(columns: tuple[str, ...]) -> str:
    return f"{', '.join(columns[:-1])} and {columns[-1]}"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "null" if value is None else kinds.get(type(value), type(value).__name__)
