from __future__ import annotations

from pathlib import Path

from harness.record import RunFolder, run_folders
from harness.record.recorder import job_folder


def test_every_path_lies_in_the_folder_of_the_run():
    folder = RunFolder("results", "grpo-x")
    assert folder.path == Path("results/runs/grpo-x")
    names = {
        "job.json": folder.job_json,
        "run.json": folder.run_json,
        "state.json": folder.state_json,
        "metrics.jsonl": folder.metrics,
        "completions.jsonl": folder.completions,
        "validations.jsonl": folder.validations,
        "eval/geometry.jsonl": folder.evaluation("geometry"),
        "checkpoint": folder.checkpoint,
        "weights": folder.weights,
        "log.txt": folder.log,
        "summary.json": folder.summary,
    }
    assert {name: path.relative_to(folder.path).as_posix() for name, path in names.items()} == {n: n for n in names}


def test_evaluations_leave_out_what_a_killed_writer_left(folder):
    assert folder.evaluations() == {}
    file = folder.evaluation("counting")
    file.parent.mkdir(parents=True)
    file.touch()
    (file.parent / ".geometry.jsonl.1-1.tmp").touch()
    (file.parent / ".geometry.jsonl").touch()
    assert folder.evaluations() == {"counting": file}


def test_run_folders_finds_all_runs(recorder, folder, job, tmp_path):
    assert run_folders(tmp_path / "nothing") == []
    assert run_folders(job.results) == [folder] == [job_folder(job)]
