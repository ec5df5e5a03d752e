"""Worker processes that are stopped and killed, and a run that comes out the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

import harness
from harness.record import RunFolder, is_complete, read_state
from harness.record.atomic import read_json, read_jsonl, write_json
from harness.record.recorder import job_folder
from harness.spec import Evaluation, Execution, Job, RunSpec

METHODS: Mapping[str, Mapping[str, Any]] = {
    "grpo_d": {
        "num_steps": 12,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_completion_length": 20,
        "lr": 1e-3,
        "schedule": {"type": "adaptive", "target_kl": 0.001},
    },
    "sft": {"num_steps": 40, "prompts_per_step": 4, "lr": 1e-3},
}

pytestmark = pytest.mark.slow


def make_job(model: Path, method: str, results: Path, checkpoint_every: int = 2) -> Job:
    spec = RunSpec(model=str(model), method={"type": method, **METHODS[method]}, source="counting", num_train=9)
    job = Job(
        spec=spec,
        targets=("counting", "relations"),
        evaluation=Evaluation(num_examples=6, every=6, num_validation=3, max_new_tokens=20),
        results=str(results),
        wandb=False,
        execution=Execution(device="cpu"),
        num_threads=1,
        checkpoint_every=checkpoint_every,
    )
    folder = job_folder(job)
    folder.path.mkdir(parents=True)
    write_json(folder.job_json, job.model_dump(mode="json"))
    return job


def start(job: Job) -> subprocess.Popen[bytes]:
    folder = job_folder(job)
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.worker", str(folder.job_json)],
            stdout=log,
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(harness.__file__).parents[1])},
        )


def finish(job: Job) -> None:
    code = start(job).wait(timeout=240)
    assert code == 0, job_folder(job).log.read_text()


def num_rows(folder: RunFolder) -> int:
    return folder.metrics.read_text().count("\n") if folder.metrics.exists() else 0


def send(job: Job, number: signal.Signals, due: Callable[[RunFolder], bool]) -> int:
    """Starts a worker, sends it a signal once that is due, and returns how it ended."""
    worker = start(job)
    try:
        deadline = time.monotonic() + 120
        while not due(job_folder(job)):
            assert worker.poll() is None, job_folder(job).log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        worker.send_signal(number)
        return worker.wait(timeout=120)
    finally:
        worker.kill()


def outcome(job: Job) -> dict[str, Any]:
    """Everything that must not depend on how often a run was stopped."""
    folder = job_folder(job)
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")} for row in read_jsonl(folder.metrics)
    ]
    return {
        "summary": {key: value for key, value in read_json(folder.summary).items() if key != "attempt_s"},
        "metrics": rows,
        "completions": read_jsonl(folder.completions) if folder.completions.exists() else None,
        "validations": read_jsonl(folder.validations) if folder.validations.exists() else None,
        "evaluations": {target: read_jsonl(path) for target, path in folder.evaluations().items()},
        "weights": (folder.weights / "model.safetensors").read_bytes(),
    }


@pytest.fixture(scope="module")
def undisturbed(policy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    outcomes = {}
    for method in METHODS:
        job = make_job(policy_folder, method, tmp_path_factory.mktemp(method))
        finish(job)
        outcomes[method] = outcome(job)
        steps = [row["step"] for row in outcomes[method]["metrics"] if "train/loss" in row]
        assert steps == list(range(METHODS[method]["num_steps"]))
    return outcomes


def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_end(
    policy_folder: Path, tmp_path: Path, undisturbed: dict[str, dict[str, Any]]
) -> None:
    job = make_job(policy_folder, "grpo_d", tmp_path, checkpoint_every=0)
    folder = job_folder(job)
    assert send(job, signal.SIGTERM, lambda folder: num_rows(folder) >= 1) == 143
    state = read_state(folder)
    assert state.status == "pending" and 0 < state.step < METHODS["grpo_d"]["num_steps"]
    assert num_rows(folder) >= state.step
    assert not folder.summary.exists() and not folder.weights.exists()
    finish(job)
    assert outcome(job) == undisturbed["grpo_d"]
    attempts = read_json(folder.run_json)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "completed"]
    assert attempts[1]["start_step"] == state.step


@pytest.mark.parametrize("method", METHODS)
def test_a_run_that_was_killed_goes_on_to_the_same_end(
    policy_folder: Path, tmp_path: Path, undisturbed: dict[str, dict[str, Any]], method: str
) -> None:
    job = make_job(policy_folder, method, tmp_path)
    folder = job_folder(job)
    assert send(job, signal.SIGKILL, lambda folder: num_rows(folder) >= 5) == -signal.SIGKILL
    assert not folder.summary.exists()
    # Behind the training; a fast machine may have finished by then.
    assert send(job, signal.SIGKILL, lambda folder: folder.weights.exists()) in (-signal.SIGKILL, 0)
    finish(job)
    assert outcome(job) == undisturbed[method]
    assert not folder.checkpoint.exists()


def test_a_completed_run_answers_a_further_target_without_training(policy_folder: Path, tmp_path: Path) -> None:
    job = make_job(policy_folder, "sft", tmp_path)
    finish(job)
    before = outcome(job)
    further = job.model_copy(update={"targets": ("counting", "charts")})
    write_json(job_folder(job).job_json, further.model_dump(mode="json"))
    finish(further)
    after = outcome(further)
    assert after["metrics"] == before["metrics"] and after["weights"] == before["weights"]
    assert after["evaluations"].keys() == {"counting", "relations", "charts"}
    assert after["summary"]["evaluations"].keys() == {"counting", "relations", "charts"}
    assert after["summary"]["evaluations"]["counting"] == before["summary"]["evaluations"]["counting"]


def test_a_run_that_fails_says_why(policy_folder: Path, tmp_path: Path) -> None:
    job = make_job(policy_folder, "sft", tmp_path)
    broken = job.model_copy(update={"execution": Execution(device="cuda:9")})
    write_json(job_folder(job).job_json, broken.model_dump(mode="json"))
    assert start(broken).wait(timeout=120) == 1
    state = read_state(job_folder(job))
    assert state.status == "failed" and state.error
    assert json.dumps(state.error).count("\\n") == 0


def test_a_completed_run_answers_its_validation_split_without_training(policy_folder: Path, tmp_path: Path) -> None:
    job = make_job(policy_folder, "sft", tmp_path)
    finish(job)
    before = outcome(job)
    asked = job.evaluation.model_copy(update={"splits": ("validation",)})
    folder = job_folder(job)
    assert is_complete(folder, job.targets, job.evaluation) and not is_complete(folder, job.targets, asked)
    further = job.model_copy(update={"evaluation": asked})
    write_json(folder.job_json, further.model_dump(mode="json"))
    finish(further)
    assert is_complete(folder, job.targets, job.evaluation) and is_complete(folder, job.targets, asked)
    after = outcome(further)
    assert (after["metrics"], after["weights"], after["evaluations"]) == (
        before["metrics"],
        before["weights"],
        before["evaluations"],
    )
    rows = read_jsonl(folder.evaluation("counting", "validation"))
    assert [row["id"] for row in rows] == [f"counting/validation/{index}" for index in range(3)]
    validated = after["summary"]["validations"]["counting"]
    assert validated["num_correct"] == sum(row["correct"] for row in rows)
    # Greedy answers of the same weights: the last look during training saw the same.
    assert validated["accuracy"] == after["summary"]["train"]["eval/counting/accuracy"]
