"""`harness data check`: everything that is wrong at once, and what a sweep needs before it starts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, SpecError
from harness.tasks.data.check import check, check_rows

Write = Callable[..., Path]


def invoked(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_fit_data(tmp_path: Path, write_rows: Write) -> None:
    found = check(str(write_rows(tmp_path / "data.jsonl", 20, solution={3: "2.5", 4: "140°"}, thinking={0: "a"})))
    assert (found.num_rows, found.splits) == ({"train": 20}, {"train": 14, "validation": 2, "test": 4})
    assert (found.problems, dict(found.sizes), found.num_reasoning) == ({}, {(6, 4): 20}, 1)
    assert dict(found.answers) == {"whole number": 18, "number": 1, "text": 1}
    assert found.fitting() == ["r1v_geoqa"]
    assert (found.protocol, found.is_stated) == ("r1v_geoqa", False)


def test_all_problems_at_once(tmp_path: Path, write_rows: Write) -> None:
    file = write_rows(tmp_path / "data.jsonl", 20, solution={2: "", 9: "140°"}, image={5: "none.png"}, problem={19: 4})
    (tmp_path / "images" / "7.png").write_bytes(b"broken")
    code, out, _ = invoked("data", "check", file, "--protocol", "r1v_counting", "--json")
    assert code == 2
    said = json.loads(out)
    assert sorted((problem["row"], problem["problem"].split(" /")[0]) for problem in said["problems"]) == [
        (f"{file}:10", "r1v_counting needs a whole number as solution, not '140°'"),
        (f"{file}:20", "'problem' is text, not a number"),
        (f"{file}:3", "the answer in 'solution' is empty"),
        (f"{file}:6", "there is no image"),
        (f"{file}:8", "the image"),
    ]
    assert said["sizes"] == {"6x4": 15}
    code, out, _ = invoked("data", "check", file)
    assert code == 2
    assert "problems   4" in out and "data.jsonl:8 " in out and "answers fit r1v_geoqa" in out


def test_rows_that_stand_in_two_splits(tmp_path: Path, write_rows: Write) -> None:
    file = write_rows(tmp_path / "data.jsonl", 10)
    assert check(str(file)).num_repeated == 0
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:9], lines[0]]))
    assert check(str(file)).num_repeated == 1


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text("\n")
    for path, message in (("counting", "is drawn, not stored"), (tmp_path / "data.jsonl", "there are no rows")):
        code, _, err = invoked("data", "check", path)
        assert code == 2 and message in err
    code, _, err = invoked("data", "check", tmp_path / "data.jsonl", "--protocol", "r1v_countin")
    assert code == 2 and "did you mean 'r1v_counting'?" in err


def test_before_a_run(tmp_path: Path, write_rows: Write) -> None:
    file = str(write_rows(tmp_path / "data.jsonl", 20))
    check_rows(file, "train", 14, {})
    check_rows("counting", "test", 10**9, {})
    with pytest.raises(SpecError, match=r"num_train is 15, but .* has 14 training rows"):
        check_rows(file, "train", 15, {})
    check_rows(file, "test", 5, {})
    few = str(write_rows(tmp_path / "few" / "data.jsonl", 7))
    with pytest.raises(DataError, match=r"few/data\.jsonl: there are no validation rows"):
        check_rows(few, "validation", 1, {})
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(DataError, match=r"data\.jsonl:9: there is no image .*harness data check"):
        check_rows(file, "test", 4, {})


def test_a_sweep_with_broken_rows_starts_nothing(tmp_path: Path, write_rows: Write) -> None:
    file = write_rows(tmp_path / "data.jsonl", 20, solution={0: ""})
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"name: s\nbase: {{num_train: 4}}\naxes: {{method: [sft], source: [{file}]}}\ntargets: [{file}]\n"
        "evaluation: {num_examples: 4}\n"
    )
    code, _, err = invoked("run", sweep, "--results", tmp_path / "results", "--no-wandb")
    assert (code, err) == (2, f"{file}:1: the answer in 'solution' is empty\n")
    assert not (tmp_path / "results").exists()
