"""From run folders to one tidy frame."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from harness.errors import UserError
from harness.record.atomic import file_digest, read_json, write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.record.sweep_record import write_sweep_record
from harness.report.collect import measure
from harness.report.frame import load_results
from harness.report.tables import build_tables
from harness.spec.methods import Evaluation
from harness.spec.run import RunSpec

BASE = RunSpec.model_validate({"method": "base"})
SFT = RunSpec.model_validate({"method": "sft", "source": "counting", "seed": 1})
GRPO_D = RunSpec.model_validate(
    {"method": {"type": "grpo_d", "format_weight": 0.5}, "source": "geometry", "num_train": 7}
)


def test_one_row_per_run_and_target(results: Path, write_run) -> None:
    base = write_run(BASE, {"counting": [1, 0, 0, 0], "geometry": [1, 1, 0, 0]})
    grpo_d = write_run(GRPO_D, {"counting": [1, 1, 1, 0, 0]})
    frame = load_results(results).set_index(["run_id", "target"])
    assert sorted(frame.index) == sorted([(base, "counting"), (base, "geometry"), (grpo_d, "counting")])

    row = frame.loc[(grpo_d, "counting")]
    assert (row.method, row.source, row.table, row.seed, row.model) == (
        "grpo_d",
        "geometry",
        "cross_task",
        0,
        "embedded",
    )
    assert (row.num_examples, row.num_correct, row.accuracy, row.format) == (5, 3, 0.6, 0.4)
    assert (row.num_train, row.format_weight, row.schedule, row.protocol) == (7, 0.5, "othink", "r1v_counting")
    assert (row.sweep, row.commit, row.dirty) == ("first", "c0ffee", False)
    assert row["method.format_weight"] == 0.5
    assert row["method.schedule.beta_max"] == 0.02

    row = frame.loc[(base, "geometry")]
    assert row.source is None
    assert (row.table, row.accuracy) == ("both", 0.5)


def test_a_sweep_counts_its_own_number_of_examples(results: Path, write_run, make_sweep) -> None:
    # Eight examples on record, four asked for: the first four count, here 1 of 4, though 5 of 8 are right.
    write_run(SFT, {"counting": [1, 0, 0, 0, 1, 1, 1, 1], "geometry": [1, 1, 1]})
    sweep = make_sweep(method="[sft]", source="[counting]", seed="[0, 1]")
    frame = load_results(results, sweep)
    assert frame[["target", "num_examples", "num_correct", "accuracy", "format", "sweep"]].values.tolist() == [
        ["counting", 4, 1, 0.25, 0.5, "small"]
    ]
    assert load_results(results).num_examples.tolist() == [8, 3]


def test_a_sweep_is_given_by_object_file_or_name(results: Path, tmp_path: Path, write_run, make_sweep) -> None:
    write_run(GRPO_D, {"counting": [1, 0, 1, 0], "geometry": [1, 1, 0, 0]})
    sweep = make_sweep(method="[grpo_d]", source="[geometry]", seed="[0]", num_train="[7, 8]", format_weight="[0.5, 1]")
    write_sweep_record(results, sweep)
    by_object = load_results(results, sweep)
    assert by_object.target.tolist() == ["counting", "geometry"]
    assert by_object.num_train.tolist() == [7, 7]
    for given in ("small", tmp_path / "small.yaml", str(tmp_path / "small.yaml")):
        assert load_results(results, given).equals(by_object)
    with pytest.raises(UserError, match="did you mean 'small'"):
        load_results(results, "smal")


def test_an_empty_results_folder_is_an_empty_frame(results: Path, make_sweep) -> None:
    for frame in (load_results(results), load_results(results, make_sweep(method="[base]"))):
        assert len(frame) == 0
        assert {"run_id", "method", "source", "target", "accuracy"} <= set(frame.columns)


def test_what_is_not_on_record_is_missing(results: Path, write_run) -> None:
    run_id = write_run(SFT, {"counting": [1, 0, 1]})
    assert measure(results, run_id, "geometry") is None
    assert measure(results, run_id, "counting", Evaluation(num_examples=4)) is None
    assert measure(results, run_id, "counting", Evaluation(num_examples=3, max_new_tokens=9)) is None
    assert measure(results, "sft-counting-s9-0123456789-v1", "counting") is None
    measured = measure(results, run_id, "counting", Evaluation(num_examples=3))
    assert measured is not None
    assert measured.correct.tolist() == [True, False, True]


def test_a_run_without_a_summary_does_not_count(results: Path, write_run) -> None:
    run_id = write_run(SFT, {"counting": [1, 0, 1]})
    RunFolder(results, run_id).summary.unlink()
    assert len(load_results(results)) == 0


@pytest.mark.parametrize("damage", ["shorter", "torn", "gone", "another", "run"])
def test_a_damaged_evaluation_is_missing_and_the_others_stay(results: Path, write_run, make_sweep, damage: str) -> None:
    damaged = write_run(SFT, {"counting": [1, 0, 1, 1], "geometry": [1, 0, 1, 0]})
    whole = write_run(BASE, {"counting": [1, 0, 0, 0], "geometry": [1, 1, 0, 0]})
    folder = RunFolder(results, damaged)
    path = folder.evaluation("counting")
    if damage == "shorter":
        write_jsonl(path, [{"correct": True, "format": True}])
    elif damage == "torn":
        os.truncate(path, path.stat().st_size - 5)
    elif damage == "gone":
        path.unlink()
    elif damage == "another":
        noted = {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        write_json(folder.summary, read_json(folder.summary) | {"files": {"eval/counting.jsonl": noted}})
        path.write_bytes(path.read_bytes().replace(b'"index": 0', b'"index": 9'))
    else:
        folder.run_json.write_text("{")
    left = [] if damage == "run" else [(damaged, "geometry")]
    sweep = make_sweep(method="[base, sft]", source="[counting]", seed="[1]")
    for frame in (load_results(results), load_results(results, sweep)):
        pairs = sorted(zip(frame.run_id, frame.target, strict=True))
        assert pairs == sorted([(whole, "counting"), (whole, "geometry"), *left])
    if damage != "run":
        assert measure(results, damaged, "counting") is None
        rows = {(row.method, row.target): row for row in build_tables(results, sweep)}
        assert rows["sft", "counting"].mean is None
        assert rows["sft", "counting"].missing_run_ids == (damaged,)
        assert rows["sft", "geometry"].mean == 0.5


def test_the_package_offers_load_results(results: Path, write_run) -> None:
    write_run(BASE, {"counting": [1]})
    assert harness.load_results(results).accuracy.tolist() == [1.0]
    assert harness.__version__


def test_reports_import_no_torch_and_the_package_nothing_heavy() -> None:
    code = (
        "import sys, harness\n"
        "assert not {'pandas', 'numpy', 'torch', 'pydantic'} & set(sys.modules)\n"
        "import harness.report.collect, harness.report.tables, harness.report.render\n"
        "harness.load_results('nowhere')\n"
        "assert 'pandas' in sys.modules\n"
        "assert not {'torch', 'transformers', 'wandb'} & set(sys.modules), 'heavy'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
