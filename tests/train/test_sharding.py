"""Runs whose weights are divided up among two processes, beside the same runs in one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness.errors import ModelError, RunError
from harness.policy import load_policy
from harness.policy.families import Plain
from harness.policy.learning import choose_learning
from harness.record.atomic import read_json, read_jsonl, write_json
from harness.record.folder import RunFolder
from harness.record.recorder import job_folder
from harness.spec import Evaluation, Execution, Job, RunSpec
from harness.train.processes import Processes
from harness.train.sharding import FixedBudget, Sharding

GRPO = {"type": "grpo", "num_steps": 6, "group_size": 2, "max_completion_length": 20, "lr": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    # Two prompts in one process and one in the other, some without signal: they have different numbers of parts.
    "grpo": GRPO | {"prompts_per_step": 3, "updates_per_rollout": 2, "schedule": {"type": "constant", "beta": 0.0}},
    "sft": {"type": "sft", "num_steps": 3, "prompts_per_step": 5, "lr": 1e-3},
}
SHARDED = {"devices": 2, "sharding": "fsdp"}


def start(
    model: Path, results: Path, case: str, precision: str = "float32", **execution: Any
) -> subprocess.Popen[bytes]:
    job = Job(
        spec=RunSpec(model=str(model), method=CASES[case], source="counting", num_train=9, precision=precision),
        targets=("counting",),
        evaluation=Evaluation(num_examples=5, max_new_tokens=20),
        results=str(results),
        wandb=False,
        execution=Execution(device="cpu", **execution),
        num_threads=1,
        checkpoint_every=2,
    )
    folder = job_folder(job)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.job_json, job.model_dump(mode="json"))
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "harness.worker", str(folder.job_json)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(harness.__file__).parents[1])},
        )


def folder_of(results: Path) -> RunFolder:
    (path,) = (results / "runs").iterdir()
    return RunFolder(results, path.name)


def finish(worker: subprocess.Popen[bytes], results: Path) -> RunFolder:
    code = worker.wait(timeout=300)
    folder = folder_of(results)
    assert code == 0, folder.log.read_text()
    return folder


def assert_same(sharded: RunFolder, alone: RunFolder, tolerance: float) -> None:
    rows, others = read_jsonl(sharded.metrics), read_jsonl(alone.metrics)
    assert len(rows) == len(others) > 0
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        for key in row:
            if not key.startswith("time/"):
                assert row[key] == pytest.approx(other[key], rel=10 * tolerance, abs=tolerance), key
    weights, wanted = (load_file(folder.weights / "model.safetensors") for folder in (sharded, alone))
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, rtol=tolerance, atol=tolerance)


@pytest.mark.slow
def test_sharded_steps_are_those_of_one_process_also_behind_a_kill(policy_folder: Path, tmp_path: Path) -> None:
    alone = finish(start(policy_folder, tmp_path / "alone", "grpo"), tmp_path / "alone")
    results = tmp_path / "sharded"
    # One prompt with its completions makes a part; activations are made again.
    options = SHARDED | {"micro_batch_tokens": 60, "gradient_checkpointing": True}
    worker = start(policy_folder, results, "grpo", **options)
    folder = folder_of(results)
    deadline = time.monotonic() + 120
    while not (folder.metrics.exists() and len(read_jsonl(folder.metrics)) >= 4):
        assert worker.poll() is None and time.monotonic() < deadline, folder.log.read_text()
        time.sleep(0.005)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    assert any(folder.checkpoint.iterdir()) and not folder.weights.exists()
    finish(start(policy_folder, results, "grpo", **options), results)
    attempts = read_json(folder.run_json)["attempts"]
    assert attempts[1]["start_step"] in (2, 4)
    assert read_json(folder.run_json)["resolved"]["num_processes"] == 2
    assert_same(folder, alone, 1e-4)
    assert read_json(folder.summary)["evaluations"] == read_json(alone.summary)["evaluations"]


@pytest.mark.slow
def test_sharded_bf16_moves_float32_masters(policy_folder: Path, tmp_path: Path) -> None:
    alone, sharded = (
        finish(start(policy_folder, tmp_path / name, "sft", "bf16", **options), tmp_path / name)
        for name, options in (("alone", {}), ("sharded", SHARDED))
    )
    first, same = (read_jsonl(folder.metrics)[0] for folder in (alone, sharded))
    assert same["train/loss"] == pytest.approx(first["train/loss"], rel=0.01)
    assert same["train/grad_norm"] == pytest.approx(first["train/grad_norm"], rel=0.01)
    wanted, weights = (load_file(folder.weights / "model.safetensors") for folder in (alone, sharded))
    assert weights.keys() == wanted.keys()
    for name, value in wanted.items():
        assert weights[name].dtype == torch.bfloat16
        # Three updates of at most the learning rate each, in either direction, and the rounding of a weight near 1.
        torch.testing.assert_close(weights[name], value, rtol=2**-7, atol=6e-3)


def test_what_cannot_be_sharded_is_one_sentence(policy_folder: Path) -> None:
    policy = load_policy(str(policy_folder))
    choose_learning(policy, vision=True, lora_rank=2)
    with pytest.raises(ModelError, match="with lora_rank, set it to 'none'"):
        Sharding(policy, Processes("cpu"))
    policy = load_policy(str(policy_folder))
    policy.family = Plain(policy.model, None)
    with pytest.raises(ModelError, match="for model families with an adapter"):
        Sharding(policy, Processes("cpu"))


def test_memory_that_runs_out_is_one_sentence() -> None:
    def work() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nand more words")

    with pytest.raises(
        RunError, match=r"set execution.micro_batch_tokens below 90 \(CUDA out of memory\. Tried"
    ) as caught:
        FixedBudget(None).attempt("update", 30, 90, work)
    assert "\n" not in str(caught.value)
