"""Rows: both of R1-V's schemas, read lazily, every mistake with the row that it stands in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError
from harness.tasks.data.rows import JsonlTable, parse_row

GOOD = {"image": "a.png", "problem": "How many?", "solution": "<answer> 3 </answer>"}


def parsed(**changes: Any) -> Any:
    return parse_row({**GOOD, **changes}, "rows.jsonl:7", Path("folder"))


def test_both_schemas_say_the_same() -> None:
    test_row = {"image_path": "./a.png", "question": "How many?", "ground_truth": 3}
    one, other = parsed(), parse_row(test_row, "p", Path("folder"))
    assert (one.question, one.answer, one.reasoning) == ("How many?", "3", "")
    assert (other.question, other.answer, other.reasoning) == ("How many?", "3", "")
    assert one.picture.path == other.picture.path == Path("folder/a.png")


@pytest.mark.parametrize(
    ("solution", "answer"),
    [("<answer> 6 </answer>", "6"), ("6", "6"), (" 140° ", "140°"), (4, "4"), (65.0, "65"), (2.5, "2.5"), (0, "0")],
)
def test_answers_lose_their_tags(solution: Any, answer: str) -> None:
    assert parsed(solution=solution).answer == answer


def test_thinking_loses_its_tags() -> None:
    assert parsed(thinking="<think>\n1, 2, 3\n</think>").reasoning == "1, 2, 3"
    assert parsed(thinking=None).reasoning == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"solution": "<answer>  </answer>"}, "the answer in 'solution' is empty"),
        ({"solution": ""}, "the answer in 'solution' is empty"),
        ({"solution": None}, "'solution' is text or a number, not null"),
        ({"solution": True}, "'solution' is text or a number, not true or false"),
        ({"problem": " "}, "'problem' is empty"),
        ({"problem": 3}, "'problem' is text, not a number"),
        ({"thinking": ["a"]}, "'thinking' is text, not a list"),
        ({"image": ""}, "'image' is empty"),
        ({"image": 3}, "'image' is a path or a picture, not a number"),
    ],
)
def test_a_wrong_value_is_told_with_its_row(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as raised:
        parsed(**changes)
    assert str(raised.value) == f"rows.jsonl:7: {message}"


def test_a_wrong_column_is_told_with_the_nearest() -> None:
    row = {"image": "a.png", "problems": "How many?", "solution": "3"}
    with pytest.raises(DataError, match=r"^p: no column 'problem'; is 'problems' meant\?$"):
        parse_row(row, "p", Path())
    with pytest.raises(DataError, match="no column 'image_path'; the row also has text"):
        parse_row({"text": "", "ground_truth": 3}, "p", Path())


def test_rows_of_a_file_are_read_when_asked_for(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    file = write_rows(tmp_path / "data.jsonl", 5)
    lines = file.read_text().splitlines()
    # An empty line is no row, but counts as a line; a broken row harms no other.
    file.write_text("\n".join([lines[0], "", "{broken", *lines[2:]]) + "\n")
    table = JsonlTable(file)
    assert len(table) == 5
    assert [table.row(index).answer for index in (0, 2, 4)] == ["0", "2", "4"]
    assert table.row(4).picture.open().getpixel((0, 0)) == (4, 0, 0)
    with pytest.raises(DataError, match=r"data\.jsonl:3: not JSON"):
        table.row(1)


def test_a_file_that_is_no_text_or_holds_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(b'{"image": "\xff"}\n' + json.dumps([1]).encode() + b"\n")
    table = JsonlTable(file)
    with pytest.raises(DataError, match=r":1: not UTF-8 text"):
        table.row(0)
    with pytest.raises(DataError, match=r":2: a row is an object with image, problem and solution, not a list"):
        table.row(1)
