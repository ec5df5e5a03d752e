from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.errors import DataError, SpecError
from harness.tasks.checking import Checker
from harness.tasks.score import Row, read_rows, score


def _write(folder: Path, text: str) -> Path:
    path = folder / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    return path


def _log(name: str) -> Path:
    folder = os.environ.get("HARNESS_EXTERNAL_DATA")
    if not folder:
        pytest.skip("HARNESS_EXTERNAL_DATA does not name the folder with R1-V's evaluation logs")
    return Path(folder) / "r1v_eval_logs" / name


ROWS: list[dict[str, object]] = [
    {"completion": "<answer>4</answer>", "solution": 4},
    {"completion": "4", "solution": "<answer> 5 </answer>"},
]
LOGGED = [{"model_output": row["completion"], "ground_truth": row["solution"], "is_correct": True} for row in ROWS]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        "\n" + "\n\n".join(map(json.dumps, ROWS)) + "\n",
        "\ufeff" + "\r\n".join(map(json.dumps, ROWS)),
        json.dumps({"accuracy": 1.0, "results": LOGGED}),
    ],
    ids=["list", "indented", "jsonl", "blank lines", "bom and crlf", "r1v log"],
)  # fmt: skip
def test_every_form_gives_the_same_rows(text: str, tmp_path: Path) -> None:
    rows = read_rows(_write(tmp_path, text))
    assert [(row.completion, row.solution) for row in rows] == [
        ("<answer>4</answer>", "4"),
        ("4", "<answer> 5 </answer>"),
    ]


def test_numbers_as_solutions(tmp_path: Path) -> None:
    path = _write(tmp_path, json.dumps([{"completion": "", "solution": value} for value in (4, 4.0, 4.5, -1)]))
    assert [row.solution for row in read_rows(path)] == ["4", "4", "4.5", "-1"]


def test_one_row_is_a_file_too(tmp_path: Path) -> None:
    assert len(read_rows(_write(tmp_path, json.dumps(ROWS[0])))) == 1


def test_unusual_line_separators_inside_text_split_no_row(tmp_path: Path) -> None:
    row = {"completion": "a\u2028b\x85c", "solution": "4"}
    text = "\n".join([json.dumps(row, ensure_ascii=False)] * 2)
    assert [row.completion for row in read_rows(_write(tmp_path, text))] == ["a\u2028b\x85c"] * 2


GOOD = json.dumps(ROWS[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "rows.jsonl: there are no rows"),
        ("[]", "rows.jsonl: there are no rows"),
        ('{"results": []}', "rows.jsonl: there are no rows"),
        (f'{GOOD}\n{{"compleiton": "4", "solution": 4}}', ":2: no column 'completion'; is 'compleiton' meant?"),
        (f'[{GOOD}, {{"completion": "4"}}]', "rows.jsonl: row 2: no column 'solution'; the row has no other"),
        ('{"results": [{"model_output": "4", "id": 7}]}', "row 1: no column 'ground_truth'; the row also has: id"),
        (f"{GOOD}\n[]", "rows.jsonl:2: a row is an object with 'completion' and 'solution', not a list"),
        (f"{GOOD}\n\n{GOOD[:-4]}", "rows.jsonl:3: not JSON: "),
        ("[\n{,\n]", "rows.jsonl:2: not JSON: "),
        ("completion,solution\n4,4", "rows.jsonl:1: not JSON: "),
        ('{"completion": 4, "solution": 4}', "rows.jsonl:1: 'completion' is text, not a number"),
        ('{"completion": "4", "solution": null}', "rows.jsonl:1: 'solution' is text or a number, not null"),
        ('{"completion": "4", "solution": true}', "'solution' is text or a number, not true or false"),
        ("[" * 100_000, "nested too deeply"),
        ('{"completion": "4", "solution": ' + "9" * 5000 + "}", "rows.jsonl:1: not JSON: Exceeds the limit"),
    ],
)  # fmt: skip
def test_bad_file_is_named_with_its_place(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(_write(tmp_path, text))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path))


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        read_rows(tmp_path / "absent.jsonl")
    with pytest.raises(DataError, match="is a directory"):
        read_rows(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"completion": "\xe9"}')
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 16\)"):
        read_rows(tmp_path / "latin.jsonl")


def test_report() -> None:
    report = score([Row("<answer>4</answer>", "4"), Row("4", "<answer> 4 </answer>"), Row("", "4")], "r1v_counting")
    assert report.line() == "r1v_counting: 1/3 correct (33.3 %)"
    assert report.as_json() == [
        {"row": 1, "correct": True, "extracted": "4", "solution": "4"},
        {"row": 2, "correct": False, "extracted": None, "solution": "<answer> 4 </answer>"},
        {"row": 3, "correct": False, "extracted": None, "solution": "4"},
    ]


def test_score_names_the_row_of_a_solution_it_cannot_use() -> None:
    rows = [Row("4", "4", "rows.jsonl:1"), Row("4", "left", "rows.jsonl:2")]
    with pytest.raises(DataError, match=r"rows\.jsonl:2: r1v_counting needs a whole number as solution, not 'left'"):
        score(rows, "r1v_counting")


def test_score_needs_rows_and_a_known_protocol() -> None:
    with pytest.raises(DataError, match="no rows"):
        score([], "r1v_counting")
    with pytest.raises(SpecError, match="unknown protocol"):
        score([Row("4", "4")], "geoqa_r1v")


def test_r1vs_counting_log_row_by_row() -> None:
    path = _log("counting_superclevr200_qwen2vl_2b_base.json")
    report = score(read_rows(path), "r1v_counting")
    assert report.line() == "r1v_counting: 96/200 correct (48.0 %)"
    logged = [row["extracted_answer"] for row in json.loads(path.read_text(encoding="utf-8"))["results"]]
    assert [None if v.extracted is None else int(v.extracted) for v in report.verdicts] == logged


def test_r1vs_geoqa_log_row_by_row() -> None:
    path = _log("geoqa754_qwen2vl_7b_base.json")
    with Checker() as checker:
        report = score(read_rows(path), "r1v_geoqa", checker)
        assert checker.num_timeouts == 0
    assert report.line() == "r1v_geoqa: 231/754 correct (30.6 %)"
    assert [v.correct for v in report.verdicts] == [
        row["is_correct"] for row in json.loads(path.read_text())["results"]
    ]
