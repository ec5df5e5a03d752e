"""The quickstart sweep in miniature, as a user runs it: through the command line, in processes of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import harness

ROOT = Path(__file__).parents[2]
QUICKSTART = str(ROOT / "sweeps" / "quickstart.yaml")
SMALL = ("seed=[0]", "num_steps=3", "prompts_per_step=2", "num_train=6", "evaluation.num_examples=8")
SETTINGS = [
    word for setting in (*SMALL, "evaluation.every=2", "evaluation.num_validation=4") for word in ("--set", setting)
]

pytestmark = pytest.mark.slow


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "harness", *words]


def call(*words: str, expect: int = 0) -> str:
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr if expect else done.stdout


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature sweep, run once."""
    folder = tmp_path_factory.mktemp("results")
    output = call("run", QUICKSTART, "--results", str(folder), "--no-wandb", *SETTINGS)
    assert "counting -> counting" in output
    return folder


def test_every_planned_run_is_completed(results: Path) -> None:
    plan = json.loads(call("plan", QUICKSTART, "--json", "--results", str(results), *SETTINGS))
    # base once; three methods on two sources; each once, whatever its targets.
    assert plan["num_runs"] == 7
    assert plan["num_runs_naive"] == 4 * 2 * 1 * 2
    assert {run["status"] for run in plan["runs"]} == {"completed"}
    assert sorted({run["method"] for run in plan["runs"]}) == ["base", "grpo", "grpo_d", "sft"]
    for run in plan["runs"]:
        assert (results / "runs" / run["run_id"] / "summary.json").is_file()


def test_tables_hold_every_cell_and_name_their_runs(results: Path) -> None:
    rows = json.loads(call("tables", QUICKSTART, "--format", "json", "--results", str(results), *SETTINGS))
    same = {(row["method"], row["source"], row["target"]) for row in rows if row["table"] == "same_task"}
    cross = {(row["method"], row["source"], row["target"]) for row in rows if row["table"] == "cross_task"}
    trained = ("sft", "grpo", "grpo_d")
    other = {"counting": "geometry", "geometry": "counting"}
    assert same == {(m, t, t) for m in trained for t in other} | {("base", None, t) for t in other}
    assert cross == {(m, s, other[s]) for m in trained for s in other} | {("base", None, t) for t in other}
    for row in rows:
        assert row["num_examples"] == 8
        assert row["num_seeds"] == 1
        assert 0 <= row["mean"] <= 1
        for run_id in row["run_ids"]:
            lines = (results / "runs" / run_id / "eval" / f"{row['target']}.jsonl").read_text().splitlines()
            assert sum(json.loads(line)["correct"] for line in lines) / 8 == row["mean"]


def test_results_are_a_tidy_frame(results: Path) -> None:
    frame = harness.load_results(results)
    assert len(frame) == 7 * 2
    assert not frame.duplicated(["run_id", "target"]).any()
    trained = frame[frame.method != "base"]
    assert trained.validation_accuracy.notna().all()
    assert (frame.accuracy == frame.num_correct / 8).all()


def test_a_run_folder_tells_everything(results: Path) -> None:
    [folder] = (results / "runs").glob("grpo_d-geometry-*")
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [row for row in metrics if "train/loss" in row]
    assert [row["step"] for row in steps] == [0, 1, 2]
    assert all(row["train/beta"] >= 0 and 0 <= row["rollout/format"] <= 1 for row in steps)
    assert {key for row in metrics for key in row} >= {"eval/counting/accuracy", "eval/geometry/accuracy"}
    run = json.loads((folder / "run.json").read_text())
    assert run["spec"]["method"]["schedule"]["type"] == "othink"
    assert run["provenance"]["versions"]["torch"]
    assert (folder / "weights" / "model.safetensors").is_file()
    assert not (folder / "checkpoint").exists()
    completions = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
    assert {"id", "completion", "reward", "advantage"} <= set(completions[0])


def test_a_finished_sweep_trains_nothing_and_is_quick(results: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in results.glob("runs/*/summary.json")}
    times = []
    for _ in range(3):
        started = time.monotonic()
        call("run", QUICKSTART, "--results", str(results), "--no-wandb", *SETTINGS)
        times.append(time.monotonic() - started)
    assert {path: path.stat().st_mtime_ns for path in results.glob("runs/*/summary.json")} == before
    assert min(times) < 2


def test_a_new_target_is_evaluated_without_training(results: Path) -> None:
    metrics = {path: path.read_bytes() for path in results.glob("runs/sft-counting-*/metrics.jsonl")}
    narrow = [*SETTINGS, "--set", "method=[sft]", "--set", "source=[counting]", "--set", "targets=[counting, charts]"]
    call("run", QUICKSTART, "--results", str(results), "--no-wandb", *narrow)
    assert {path: path.read_bytes() for path in results.glob("runs/sft-counting-*/metrics.jsonl")} == metrics
    [folder] = (results / "runs").glob("sft-counting-*")
    assert (folder / "eval" / "charts.jsonl").is_file()
    summary = json.loads((folder / "summary.json").read_text())
    assert set(summary["evaluations"]) == {"counting", "geometry", "charts"}


def test_one_failed_run_does_not_stop_the_others(tmp_path: Path) -> None:
    sweep = tmp_path / "failing.yaml"
    sweep.write_text(
        "name: failing\ndescription: One run cannot be.\n"
        "base: {method.num_steps: 1, method.prompts_per_step: 2}\n"
        "axes: {method: [sft], source: [counting], seed: [0], num_train: [100000, 4]}\n"
        "targets: [counting]\nevaluation: {num_examples: 4}\n"
    )
    output = call("run", str(sweep), "--results", str(tmp_path / "results"), "--no-wandb", expect=3)
    assert "1 failed" in output
    rows = json.loads(call("status", str(sweep), "--json", "--results", str(tmp_path / "results")))
    assert sorted(row["status"] for row in rows) == ["completed", "failed"]
    [failed] = [row for row in rows if row["status"] == "failed"]
    assert "num_train is 100000, but counting has 20000 training examples" in failed["error"]


def test_an_interrupted_sweep_goes_on_and_ends_as_if_left_alone(tmp_path: Path) -> None:
    settings = ["--set", "method=[grpo_d]", "--set", "source=[counting]", "--set", "num_steps=12"]
    settings = [*SETTINGS[:6], *settings, "--set", "evaluation.num_examples=4", "--no-wandb"]
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed"
    call("run", QUICKSTART, "--results", str(alone), *settings)
    driver = subprocess.Popen(
        command("run", QUICKSTART, "--results", str(disturbed), *settings), cwd=ROOT, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not any(path.stat().st_size > 300 for path in disturbed.glob("runs/*/metrics.jsonl")):
        assert driver.poll() is None and time.monotonic() < deadline, "no step was seen before the driver ended"
        time.sleep(0.02)
    os.kill(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=60) == 3
    [folder] = (disturbed / "runs").iterdir()
    assert not (folder / "summary.json").exists()
    assert (folder / "checkpoint" / "checkpoint.safetensors").is_file()
    call("run", QUICKSTART, "--results", str(disturbed), *settings)
    [undisturbed] = (alone / "runs").iterdir()

    def told(path: Path) -> list[dict[str, object]]:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]

    assert told(folder / "metrics.jsonl") == told(undisturbed / "metrics.jsonl")
    assert told(folder / "completions.jsonl") == told(undisturbed / "completions.jsonl")
    for name in ("weights/model.safetensors", "eval/counting.jsonl", "eval/geometry.jsonl"):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes()
    ours, theirs = (json.loads((run / "summary.json").read_text()) for run in (folder, undisturbed))
    assert ours["train"] == theirs["train"]
    assert ours["evaluations"] == theirs["evaluations"]
    assert len(json.loads((folder / "run.json").read_text())["attempts"]) == 2


def test_wandb_mirrors_a_run_offline(tmp_path: Path) -> None:
    settings = [*SETTINGS, "--set", "method=[sft]", "--set", "source=[counting]"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment["HOME"] = str(tmp_path)
    done = subprocess.run(
        command("run", QUICKSTART, "--results", str(tmp_path / "results"), *settings),
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    [folder] = (tmp_path / "results" / "runs").iterdir()
    assert list(folder.glob("wandb/**/*.wandb")), sorted(folder.rglob("*"))
    assert "wandb sync" in (folder / "log.txt").read_text()
