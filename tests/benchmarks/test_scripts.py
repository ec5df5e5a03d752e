"""The scripts from end to end, at the smallest size and without the peer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ours, phases
from benchmarks.children import NO_GPU
from benchmarks.workload import Case
from harness.policy import sample
from harness.train import grpo

ROOT = Path(__file__).parents[2]


def script(*arguments: str) -> str:
    """What a script prints where there is no GPU."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--num-threads", "1"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def record(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["provenance"]["versions"]["torch"]
    assert content["ceilings"]["small"]["flops_per_s"] > 0
    # Rows of what was not measured are absent, not empty.
    assert [row["workload"] for row in content["results"]] == ["small"]
    return content


def test_steps_of_sft_are_measured() -> None:
    case = Case("ours", "sft", "embedded", "embedded", num_prompts=2, num_steps=2, num_threads=1)
    found = ours.measure(case)
    assert len(found["steps"]) == 2
    for step in found["steps"]:
        assert step["step_s"] == pytest.approx(step["collect_s"] + step["update_s"])
        assert step["num_tokens"] > 2
        assert "sampling_s" not in step


def test_phases_of_grpo_stand_beside_their_limits() -> None:
    case = Case("ours", "grpo", "embedded", "embedded", num_prompts=2, num_steps=2, num_threads=1)
    limits = {"flops_per_s": 1e12, "bytes_per_s": 1e11}
    found = phases.rollout(case, limits, 1) | phases.update(case, limits, 1)
    assert set(found) == {"prefill", "decode", "update"}
    for phase in found.values():
        assert phase["measured_s"] > 0
        assert phase["limit_s"] == pytest.approx(max(phase["operations"] / 1e12, phase["bytes"] / 1e11))
    # Every token of 16 completions of 48 but the first.
    decode = found["decode"]
    assert decode["tokens_per_s"] * decode["measured_s"] == pytest.approx(16 * 47)
    assert grpo.sample is sample


@pytest.mark.slow
def test_a_step_is_measured_at_forced_lengths_and_without_cuda_rows(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    flags = ["--peer", "none", "--steps", "1", "--warmup", "1", "--rounds", "1", "--models", str(tmp_path)]
    printed = script("benchmarks.step", "--workloads", "small", "qwen2_vl_2b", *flags, "--out", str(out))
    assert NO_GPU in printed
    assert record(out)["unmeasured"] == ["qwen2_vl_2b"]
    (row,) = record(out)["results"]
    assert row["ours"]["num_tokens"] == 2 * 8 * 16
    assert row["ours"]["step_s"] > row["ours"]["collect_s"] > row["ours"]["sampling_s"] > 0
    assert row["ours"]["update_flops_frac"] > 0
    assert row["ours"]["decode_bytes_frac"] > 0
