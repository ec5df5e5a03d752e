"""Freed memory stays with the process: counted in page faults, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import torch
from harness.train.allocator import keep_freed_memory

if {keeps}:
    assert keep_freed_memory()
for _ in range(20):
    torch.ones(8 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc is meant")
def test_a_tensor_takes_the_memory_that_the_last_one_gave_back() -> None:
    def faults(keeps: bool) -> int:
        program = [sys.executable, "-c", PROGRAM.format(keeps=keeps)]
        return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)

    assert 10 * faults(keeps=True) < faults(keeps=False)
