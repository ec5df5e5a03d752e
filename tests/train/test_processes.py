from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import harness
from harness.errors import ModelError
from harness.train.checkpoint import FILE
from harness.train.processes import Processes

SCRIPT = Path(__file__).with_name("train_small.py")
GRPO = {"type": "grpo", "num_steps": 3, "prompts_per_step": 5, "group_size": 4, "max_completion_length": 20, "lr": 1e-3}
CASES: dict[str, dict[str, Any]] = {
    "grpo": GRPO,
    # With one prompt for each process, some steps have signal in one of them only.
    "grpo without reference": GRPO
    | {"prompts_per_step": 2, "group_size": 2, "schedule": {"type": "constant", "beta": 0.0}},
    "sft": {"type": "sft", "num_steps": 3, "prompts_per_step": 5, "lr": 1e-3},
}


def train(
    model: Path,
    case: str,
    out: Path,
    *,
    num_processes: int = 1,
    precision: str = "float32",
    execution: dict[str, Any] | None = None,
) -> dict[str, Any]:
    spec = {"model": str(model), "method": CASES[case], "source": "counting", "num_train": 10, "precision": precision}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    subprocess.run(
        [
            sys.executable,
            *(torchrun if num_processes > 1 else []),
            str(SCRIPT),
            json.dumps(spec),
            str(out),
            json.dumps(execution or {}),
        ],
        check=True,
        timeout=240,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(harness.__file__).parents[1])},
    )
    return json.loads((out / "record.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_two_processes_make_the_steps_of_one(policy_folder: Path, tmp_path: Path, case: str) -> None:
    one = train(policy_folder, case, tmp_path / "one")
    two = train(policy_folder, case, tmp_path / "two", num_processes=2)
    assert (one["num_processes"], two["num_processes"]) == (1, 2)
    assert len(one["metrics"]) == 3
    for alone, shared in zip(one["metrics"], two["metrics"], strict=True):
        assert {key for key in alone if "time/" not in key} == {key for key in shared if "time/" not in key}
        for key in alone:
            if not key.startswith("time/"):
                assert shared[key] == pytest.approx(alone[key], rel=1e-4, abs=1e-6), key
    assert two["answers"] == one["answers"]
    weights = load_file(tmp_path / "two" / "weights.safetensors")
    for name, value in load_file(tmp_path / "one" / "weights.safetensors").items():
        torch.testing.assert_close(weights[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_sharded_processes_keep_a_share_each(policy_folder: Path, tmp_path: Path) -> None:
    whole = train(policy_folder, "sft", tmp_path / "whole", num_processes=2)
    shares = train(
        policy_folder, "sft", tmp_path / "shares", num_processes=2, execution={"devices": 2, "sharding": "fsdp"}
    )
    (every, same), (first, second) = whole["moments"], shares["moments"]
    assert every == same == first + second
    assert first == pytest.approx(every / 2, rel=0.05)
    for alone, shared in zip(whole["metrics"], shares["metrics"], strict=True):
        assert shared["train/loss"] == pytest.approx(alone["train/loss"], rel=1e-4)
        assert shared["train/grad_norm"] == pytest.approx(alone["train/grad_norm"], rel=1e-4)
    # Whole tensors under the same names: either could go on from the other's checkpoint.
    checkpoints = [load_file(tmp_path / name / "checkpoint" / FILE) for name in ("whole", "shares")]
    assert checkpoints[0].keys() == checkpoints[1].keys()
    for name, value in checkpoints[0].items():
        torch.testing.assert_close(checkpoints[1][name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["grpo", "sft"])
def test_bf16_makes_nearly_the_same_step(policy_folder: Path, tmp_path: Path, case: str) -> None:
    exact = train(policy_folder, case, tmp_path / "float32")
    coarse = train(policy_folder, case, tmp_path / "bf16", precision="bf16")
    first, same = exact["metrics"][0], coarse["metrics"][0]
    if case == "grpo":
        assert same["train/kl"] == pytest.approx(0, abs=1e-9)
        assert same["rollout/reward"] == pytest.approx(first["rollout/reward"], abs=0.15)
    else:
        assert same["train/loss"] == pytest.approx(first["train/loss"], rel=0.02)
        assert same["train/grad_norm"] == pytest.approx(first["train/grad_norm"], rel=0.1)
    weights = load_file(tmp_path / "bf16" / "weights.safetensors")
    assert all(value.dtype == torch.bfloat16 and value.isfinite().all() for value in weights.values())


def test_one_process_adds_nothing_up() -> None:
    processes = Processes("cpu")
    assert (processes.rank, processes.count, processes.is_main, processes.device.type) == (0, 1, True, "cpu")
    assert processes.add({"a": 1.5}) == processes.add_ragged({"a": 1.5}) == {"a": 1.5}
    assert processes.gather([1, 2]) == [1, 2]


def test_the_peak_of_memory_is_the_highest_so_far() -> None:
    processes = Processes("cpu")
    before = processes.own_peak_memory()
    assert before["peak_device_gib"] is None and before["peak_host_gib"] is not None
    torch.ones(1 << 28)  # 1 GiB of float32, gone at once
    after = processes.own_peak_memory()["peak_host_gib"]
    assert after is not None and after >= 1.0
    assert processes.peak_memory() == {"peak_host_gib": pytest.approx(after, abs=0.01), "peak_device_gib": None}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(ModelError, match="device 'cuda:1' was asked for, but torch sees no GPU here"):
        Processes("cuda:1")
