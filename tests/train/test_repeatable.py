"""Two threads add up a shared row's gradient in one order, however busy the machine is."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import sys, torch
torch.set_num_threads(2)
if sys.argv[1] == "repeatable":
    from harness.train.randomness import repeatable
    repeatable()
rows = torch.arange(8).repeat(40000)
weights = torch.randn(rows.numel(), 4, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-2.0, 2.0)
seen = set()
for _ in range(20):
    table = torch.zeros(8, 4, requires_grad=True)
    (table[rows] * weights).sum().backward()
    seen.add(tuple(table.grad.flatten().tolist()))
print(len(seen))
"""


def distinct_gradients(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", SCRIPT, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_repeated_gradient_has_the_same_bits() -> None:
    assert distinct_gradients("repeatable") == 1


def test_without_it_threads_race() -> None:
    """The control: where it fails, this machine cannot show a race and the test above shows nothing."""
    if distinct_gradients("as torch is") == 1:
        pytest.skip("one core, or a torch without the race: nothing to be repeatable against")
