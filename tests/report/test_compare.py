"""Two runs and two sweeps side by side: differences and disagreements by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, UserError
from harness.record.atomic import read_json, read_jsonl, write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.report.compare import compare_runs, compare_sweeps
from harness.report.render_compare import render_compared
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep

NUMBERS = {"sft": [1, 1, 0, 0], "grpo": [1, 0, 1, 1]}


def spec(method: str, source: str | None = None, seed: int = 0, **settings: object) -> RunSpec:
    return RunSpec.model_validate({"method": {"type": method, **settings}, "source": source, "seed": seed})


def add_texts(results: Path, run_id: str, text: str) -> None:
    """Gives a run's answers their texts."""
    path = RunFolder(results, run_id).evaluation("counting")
    about = {"question": "How many?", "solution": "3", "completion": text, "extracted": text[-1]}
    write_jsonl(path, [row | about for row in read_jsonl(path)])


@pytest.fixture
def runs(results: Path, write_run) -> dict[str, str]:
    """A run of SFT and one of GRPO, with what they took and their last reward."""
    ids = {}
    for method, counting in NUMBERS.items():
        run_id = write_run(spec(method, "counting", lr=0.001), {"counting": counting, "geometry": [1, 1, 1, 1]})
        folder = RunFolder(results, run_id)
        spent = {"started": "2026-01-01T10:00:00+0000", "ended": "2026-01-01T10:00:30+0000"}
        write_json(folder.run_json, read_json(folder.run_json) | {"attempts": [spent]})
        train = {"train/loss": 0.5} if method == "sft" else {"train/loss": 0.25, "train/kl": 0.01}
        write_json(folder.summary, read_json(folder.summary) | {"train": train})
        add_texts(results, run_id, f"{method} says 3")
        ids[method] = run_id
    return ids


def test_two_runs_by_hand(results: Path, runs: dict[str, str]) -> None:
    found = compare_runs(results, runs["sft"], runs["grpo"])
    (pair,) = found.pairs
    by_setting = {one.setting: (one.a, one.b) for one in pair.settings}
    assert by_setting["method"] == ("sft", "grpo")
    assert by_setting["method.target"] == ("answer_only", "-")
    assert by_setting["method.schedule.beta"] == ("-", 0.04)
    assert "method.lr" not in by_setting and "source" not in by_setting and "seed" not in by_setting
    assert pair.metrics == {"train/loss": (0.5, 0.25), "train/kl": (None, 0.01), "worker_s": (30.0, 30.0)}
    counting, geometry = pair.targets
    assert (counting.a.mean, counting.b.mean, counting.difference.mean) == (0.5, 0.75, -0.25)
    assert counting.difference.low is not None and counting.difference.low < -0.25 < counting.difference.high
    assert [one.id for one in counting.disagreements] == [f"counting/test/{at}" for at in (1, 2, 3)]
    assert [one.a.right_frac for one in counting.disagreements] == [1.0, 0.0, 0.0]
    assert (geometry.difference, geometry.disagreements) == ((0.0, 0.0, 0.0), ())


def test_the_text_shows_what_each_side_answered(results: Path, runs: dict[str, str]) -> None:
    add_texts(results, runs["sft"], "<answer>\x1b[31m 4")
    text = render_compared(compare_runs(results, runs["sft"], runs["grpo"]), num_examples=1)
    assert "A right on 1, B on 2), the first 1:" in text
    assert "counting/test/1: How many?  (solution: 3)" in text
    assert "A right: <answer>\\u001b[31m 4" in text and "\x1b" not in text
    assert "B wrong: grpo says 3" in text and "counting/test/2" not in text


def test_examples_that_are_not_the_same_are_refused(results: Path, runs: dict[str, str]) -> None:
    path = RunFolder(results, runs["sft"]).evaluation("counting")
    write_jsonl(path, [row | {"question": "What is x?"} for row in read_jsonl(path)])
    with pytest.raises(DataError, match=r"counting: the runs did not answer the same examples; question"):
        compare_runs(results, runs["sft"], runs["grpo"])


def sweep_of(make_sweep, name: str, **axes: str) -> Sweep:
    return dataclasses.replace(make_sweep(source="[counting]", seed="[0, 1, 2]", **axes), name=name)


def test_two_sweeps_by_hand(results: Path, write_run, make_sweep) -> None:
    for lr, hits in ((0.1, 1), (0.2, 3)):
        for seed in range(3):
            verdicts = [1] * hits + [0] * (4 - hits)
            write_run(spec("grpo", "counting", seed, lr=lr), {"counting": verdicts, "geometry": [seed == 0, 1, 0, 0]})
    write_run(spec("base"), {"counting": [1, 0, 0, 0], "geometry": [1, 0, 0, 0]})
    left = sweep_of(make_sweep, "left", method="[base, grpo]", lr="[0.1]")
    right = sweep_of(make_sweep, "right", method="[base, grpo, sft]", lr="[0.2]")
    found = compare_sweeps(results, left, right)
    base, grpo = found.pairs
    assert base.is_shared and base.targets[0].difference.mean == 0
    assert [(one.setting, one.a, one.b) for one in grpo.settings] == [("method.lr", 0.1, 0.2)]
    counting, geometry = grpo.targets
    assert (counting.a.num_runs, counting.a.mean, counting.b.mean) == (3, 0.25, 0.75)
    # No verdict varies between seeds and every resample of examples keeps the sign.
    assert counting.difference.mean == -0.5 and counting.difference.high <= 0
    assert [one.id for one in counting.disagreements] == ["counting/test/1", "counting/test/2"]
    assert geometry.difference == (0.0, 0.0, 0.0) and geometry.disagreements == ()
    assert found.only_a == () and [line.spec.method.type for line in found.only_b] == ["sft"]
    text = render_compared(found, num_examples=5)
    assert "In right alone" in text and "0 of 3 right" in text and "3 of 3 right" in text
    assert json.loads(json.dumps(found.as_json(), allow_nan=False))["only_b"][0]["label"] == "sft (lr=0.2) on counting"


def test_lines_go_with_those_that_differ_least(results: Path, write_run, make_sweep) -> None:
    for weight in (0.0, 1.0):
        for beta in (0.01, 0.04):
            run = spec("grpo", "counting", 0, format_weight=weight, schedule={"type": "constant", "beta": beta})
            write_run(run, {"counting": [1, 0, 0, 0], "geometry": [1, 0, 0, 0]})
    one = make_sweep(method="[grpo]", source="[counting]", seed="[0]", format_weight="[0.0, 1.0]", beta="[0.04]")
    other = make_sweep(method="[grpo]", source="[counting]", seed="[0]", format_weight="[1.0, 0.0]", beta="[0.01]")
    found = compare_sweeps(results, one, other)
    assert [[part.setting for part in pair.settings] for pair in found.pairs] == [["method.schedule.beta"]] * 2
    assert [pair.a.spec.method.format_weight for pair in found.pairs] == [0.0, 1.0]


def test_sweeps_about_other_splits_are_refused(results: Path, make_sweep) -> None:
    test = make_sweep(method="[base]", source="[counting]", seed="[0]")
    validation = dataclasses.replace(test, evaluation=test.evaluation.model_copy(update={"splits": ("validation",)}))
    with pytest.raises(UserError, match="small is about test examples and small about validation examples"):
        compare_sweeps(results, test, validation)


def test_the_verb_tells_runs_from_sweeps(results: Path, runs: dict[str, str], tmp_path: Path) -> None:
    def harness(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["compare", *arguments, "--results", str(results)], catch_exceptions=False)
        return done.exit_code, done.stdout, done.stderr

    file = tmp_path / "one.yaml"
    file.write_text("name: one\naxes: {method: [sft], source: [counting], seed: [0]}\ntargets: [counting]\n")
    code, said, _ = harness("sft", "grpo", "--json")
    assert code == 0 and json.loads(said)["a"] == runs["sft"]
    assert harness(str(file), "grpo")[0::2] == (2, f"'{file}' is a sweep and 'grpo' a run: compare two of one kind\n")
    code, _, said = harness("sft", runs["grpo"][:-1] + "7")
    assert code == 2 and f"did you mean '{runs['grpo']}'?" in said
    assert harness(str(file), str(file))[0] == 0
