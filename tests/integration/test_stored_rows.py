"""Real pictures through the command line: rows of CLEVR and MATH-V are trained on and evaluated.

The data is no part of the project: `HARNESS_EXTERNAL_DATA` names the folder that holds `clevr_sample`,
`mathv_geometry_sample` and R1-V's test questions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.record.atomic import read_json, read_jsonl
from harness.spec.data import task_name

ROOT = os.environ.get("HARNESS_EXTERNAL_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="HARNESS_EXTERNAL_DATA is not set")


def harness(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_real_rows_are_fit() -> None:
    assert ROOT is not None
    clevr = json.loads(harness("data", "check", Path(ROOT, "clevr_sample"), "--json"))
    assert (clevr["num_rows"], clevr["sizes"], clevr["problems"]) == ({"train": 48}, {"480x320": 48}, [])
    assert clevr["fitting_protocols"] == ["r1v_counting", "r1v_geoqa"]
    mathv = json.loads(harness("data", "check", Path(ROOT, "mathv_geometry_sample"), "--json"))
    assert (mathv["num_rows"], mathv["problems"]) == ({"train": 40}, [])


@pytest.mark.parametrize(
    ("file", "num", "kinds"),
    [
        ("geoqa_test_prompts.jsonl", 754, {"whole number", "number", "text"}),
        ("superclevr_test200_counting_problems.jsonl", 200, {"whole number"}),
    ],
)
def test_r1v_s_test_questions_lack_nothing_but_their_pictures(file: str, num: int, kinds: set[str]) -> None:
    from harness.tasks.data.check import check

    assert ROOT is not None
    found = check(str(Path(ROOT, "r1v_eval_logs", file)))
    assert found.splits == {"train": 0, "validation": 0, "test": num}
    assert len(found.problems) == num and all("there is no image" in problem for problem in found.problems.values())
    assert found.answers.keys() == kinds


@pytest.mark.slow
def test_real_rows_are_trained_on_and_evaluated(tmp_path: Path) -> None:
    assert ROOT is not None
    clevr, mathv = Path(ROOT, "clevr_sample"), Path(ROOT, "mathv_geometry_sample")
    counts = tmp_path / "clevr.yaml"
    counts.write_text(f"name: clevr_counts\nprotocol: r1v_counting\ntrain: {clevr / 'data.jsonl'}\n")
    sweep = tmp_path / "stored.yaml"
    sweep.write_text(
        "name: stored\nbase: {num_train: 20, num_steps: 3, prompts_per_step: 4}\n"
        f"axes: {{method: [grpo_d], source: [{counts}, {mathv}], seed: [0]}}\n"
        f"targets: [{counts}, {mathv}]\nevaluation: {{num_examples: 8, every: 3, num_validation: 4}}\n"
    )
    names = [task_name(str(counts)), task_name(str(mathv))]
    results = tmp_path / "results"
    harness("run", sweep, "--results", results, "--slots", "1", "--no-wandb")
    frame: list[dict[str, Any]] = json.loads(harness("tables", sweep, "--results", results, "--format", "json"))
    assert {(row["source"], row["target"]) for row in frame} == {(one, other) for one in names for other in names}
    assert all(row["mean"] is not None and row["num_examples"] == 8 for row in frame)
    for folder in (results / "runs").iterdir():
        summary = read_json(folder / "summary.json")
        assert list(summary["evaluations"]) == sorted(names)
        assert summary["evaluations"][names[0]]["protocol"] == "r1v_counting"
        assert summary["train"][f"eval/{names[1]}/accuracy"] >= 0
        rows = read_jsonl(folder / "eval" / f"{names[0]}.jsonl")
        assert [row["id"] for row in rows] == [f"{names[0]}/test/{index}" for index in range(8)]
        assert rows[0]["question"] == "How many items are there in the image?"
    assert "2 completed" in harness("plan", sweep, "--results", results)
