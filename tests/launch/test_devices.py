"""What this machine has, asked as the driver asks it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.launch.executors.devices import (
    gpu_memory_gib,
    host_memory_gib,
    listed_gpus,
    num_cores,
    num_out_of_memory,
    visible_gpus,
)


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """A program of that name that says what it is told to say."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")

    def says(*lines: str, code: int = 0) -> None:
        program = folder / "nvidia-smi"
        program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines) + f"exit {code}\n")
        program.chmod(0o755)

    return says


def test_visible_gpus_reads_the_variable_as_cuda_does():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0, 2,-1,3"}) == ("0", "2")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-8f,MIG-1"}) == ("GPU-8f", "MIG-1")


def test_gpus_are_taken_from_nvidia_smi_where_nothing_is_chosen(nvidia_smi):
    nvidia_smi("GPU 0: NVIDIA H200 (UUID: GPU-1a-2b)", "GPU 1: NVIDIA H200 (UUID: GPU-3c)")
    assert visible_gpus({}) == ("GPU-1a-2b", "GPU-3c")
    nvidia_smi("GPU 0: NVIDIA H200 (UUID: GPU-1a-2b)", code=9)
    assert visible_gpus({}) == ()


def test_a_gpu_cut_into_mig_devices_counts_as_these():
    listing = """\
GPU 0: NVIDIA A100 (UUID: GPU-aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-GPU-aa/1/0)
  MIG 3g.20gb     Device  1: (UUID: MIG-bb)
GPU 1: NVIDIA A100 (UUID: GPU-cc)
"""
    assert listed_gpus(listing) == ("MIG-GPU-aa/1/0", "MIG-bb", "GPU-cc")
    assert listed_gpus("No devices found.\n") == ()


def test_the_smallest_gpu_sets_the_memory_by_index_or_by_uuid(nvidia_smi):
    nvidia_smi("0, GPU-aa, 81920", "1, GPU-bb, 40960", "2, GPU-cc, 10240")
    assert gpu_memory_gib(("0", "1")) == 40
    assert gpu_memory_gib(("GPU-aa",)) == 80
    assert gpu_memory_gib(("2", "GPU-bb")) == 10


def test_memory_that_is_not_told_is_not_known(nvidia_smi):
    nvidia_smi("0, GPU-aa, 81920", "1, GPU-bb, [N/A]")
    assert gpu_memory_gib(()) is None
    assert gpu_memory_gib(("0", "1")) is None
    assert gpu_memory_gib(("MIG-bb",)) is None
    nvidia_smi(code=9)
    assert gpu_memory_gib(("0",)) is None


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="asked of Linux's /proc")
def test_what_the_system_says_of_itself():
    assert 1 <= num_cores() <= len(os.sched_getaffinity(0))
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    memory = host_memory_gib()
    assert memory is not None and 0 < memory <= total * 1.001
    before = num_out_of_memory()
    assert num_out_of_memory() >= before >= 0
