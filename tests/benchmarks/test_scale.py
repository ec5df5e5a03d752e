"""The runs of the scale benchmark are runs: the harness finds each of them complete, and reads what was put there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from recorded_run import CORRECT, record

from benchmarks import scale
from harness.record import RunFolder, is_complete, run_folders
from harness.record.atomic import read_json
from harness.record.index import RunIndex
from harness.report.frame import load_results
from harness.spec import Job, RunSpec
from harness.spec.methods import Evaluation

ASKED = Evaluation(num_examples=4)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    """A run of four examples per target, with a file that it needs no copy of."""
    spec = RunSpec.model_validate({"method": "grpo_d", "source": "counting"})
    job = Job(spec=spec, targets=tuple(CORRECT), results=str(tmp_path / "template"), evaluation=ASKED)
    record(job, 0, 4)
    folder = RunFolder(job.results, spec.run_id)
    folder.job_json.write_text(job.model_dump_json())
    folder.weights.mkdir()
    (folder.weights / "model.safetensors").write_bytes(b"weights")
    return folder.path


def test_a_hundred_runs_from_one(template: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    sweep = scale.write_sweep(tmp_path / "small.yaml", 100)
    made = scale.variants(template, tmp_path / "variants")
    scale.finish(sweep, results, template, made)

    assert [folder.run_id for folder in run_folders(results)] == sorted(sweep.runs) and len(sweep.runs) == 100
    with RunIndex(results) as index:
        for run in sweep.runs.values():
            folder = RunFolder(results, run.run_id)
            assert is_complete(folder, run.targets, ASKED) and index.is_intact(run.run_id, run.targets, ASKED)
            assert read_json(folder.run_json)["spec"] == run.spec.model_dump(mode="json")
            assert read_json(folder.job_json)["spec"] == run.spec.model_dump(mode="json")
            names = {path.relative_to(folder.path) for path in folder.path.rglob("*")}
            assert names == {path.relative_to(template) for path in template.rglob("*")}
    frame = load_results(results)
    assert len(frame) == 200
    assert set(frame.sweep) == {"small"}
    assert frame.groupby("target").num_correct.nunique().min() > 1, "verdicts of their own"


def test_a_command_is_timed_with_an_index_and_without(tmp_path: Path) -> None:
    index = tmp_path / "index"
    index.mkdir()
    seconds = scale.measure([sys.executable, "-c", "sum(range(10**6))"], index, 1, 2)
    assert not index.exists()
    assert {key: len(values) for key, values in seconds.items()} == {
        "cold_s": 1,
        "cold_cpu_s": 1,
        "warm_s": 2,
        "warm_cpu_s": 2,
    }
    assert all(0 < value < 60 for values in seconds.values() for value in values)
    assert scale.line("sum", seconds).startswith("sum ")
    with pytest.raises(RuntimeError, match="out of luck"):
        scale.timed([sys.executable, "-c", "raise SystemExit('out of luck')"])
