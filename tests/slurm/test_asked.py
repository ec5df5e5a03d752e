"""What a run asks SLURM for, and what is said where it cannot be had; needs no SLURM."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.launch.executor import Demand
from harness.launch.executors.slurm import SlurmExecutor, resources
from harness.launch.executors.slurm_queue import is_job, said
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

SLURM = ExecutorSettings(type="slurm")


def test_devices_cores_and_memory_follow_the_demand() -> None:
    asked = resources(SLURM, Execution(), Demand(devices=4, host_gib=10.1))
    assert (asked["gpus_per_node"], asked["cpus_per_task"]) == (4, 8)
    assert asked["mem"] == "12928M"  # 10.1 * 1.25 * 1024
    assert asked["time"] is asked["partition"] is None  # the cluster's own


def test_settings_come_before_what_was_measured() -> None:
    settings = ExecutorSettings(
        type="slurm", cpus=3, memory_gib=2, partition="p", account="a", qos="q", constraint="c", time_min=90
    )
    asked = resources(settings, Execution(device="cpu"), Demand(devices=2, host_gib=50))
    assert asked == {
        "partition": "p",
        "account": "a",
        "qos": "q",
        "constraint": "c",
        "time": 90,
        "ntasks_per_node": 1,
        "cpus_per_task": 3,
        "gpus_per_node": None,
        "mem": "2048M",
    }


def test_without_slurm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs SLURM's commands, but there is no sbatch here"):
        SlurmExecutor(SLURM, Execution())


def test_without_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "submitit" else find(name))
    with pytest.raises(UserError, match=r"pip install 'grpo-d-harness\[slurm\]'"):
        SlurmExecutor(SLURM, Execution())


def test_a_time_limit_leaves_time_beside_the_grace() -> None:
    pytest.importorskip("submitit")
    with pytest.raises(UserError, match=r"executor.time_min 1 leaves no time beside the 60 s of grace_s"):
        SlurmExecutor(ExecutorSettings(type="slurm", time_min=1, grace_s=60), Execution())


@pytest.mark.parametrize(
    ("name", "expected"), [("12", True), ("12_3", True), ("-u", False), ("12_", False), (7, False)]
)
def test_what_is_passed_to_scancel_is_a_job(name: object, expected: bool) -> None:
    assert is_job(name) is expected


def test_complaints_become_one_line() -> None:
    text = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: Invalid\n"
    assert said(text) == "invalid partition specified: x; Batch job submission failed: Invalid"
    assert said(None) == ""
