from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from harness.errors import OutOfMemoryError
from harness.train.memory import TokenBudget


def test_splitting_by_hand() -> None:
    assert TokenBudget().split([5, 5, 5]) == [[0, 1, 2]]
    assert TokenBudget(10).split([5, 5, 5]) == [[0, 1], [2]]
    assert TokenBudget(10).split([11, 1, 9, 1]) == [[0], [1, 2], [3]]
    assert TokenBudget(1).split([3, 3]) == [[0], [1]]
    assert TokenBudget(4).split([]) == []


def test_every_place_is_in_one_part_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sizes = torch.randint(1, 30, (12,), generator=generator).tolist()
        budget = int(torch.randint(1, 60, (1,), generator=generator))
        parts = TokenBudget(budget).split(sizes)
        assert [place for part in parts for place in part] == list(range(12))
        assert all(len(part) == 1 or sum(sizes[place] for place in part) <= budget for part in parts)


def test_running_out_halves_the_budget_until_the_work_fits() -> None:
    budget, tried = TokenBudget(), []

    def work() -> str:
        tried.append(budget.tokens)
        if budget.tokens is None or budget.tokens > 30:
            torch.empty(1 << 60, dtype=torch.uint8)
        return "done"

    assert budget.attempt("update", 5, 100, work) == "done"
    assert tried == [None, 50, 25]


@pytest.mark.parametrize(
    ("tokens", "halvings", "largest", "total", "begun"),
    [
        (None, 0, 5, 100, None),
        (None, 1, 5, 100, 50),
        (None, 2, 5, 100, 25),
        (60, 1, 5, 100, 30),
        (400, 1, 5, 100, 50),  # more than there is counts as all there is
        (None, 5, 40, 100, 40),  # the largest piece goes through in any case
    ],
)
def test_a_budget_that_is_halved_from_the_start(
    tokens: int | None, halvings: int, largest: int, total: int, begun: int | None
) -> None:
    budget, tried = TokenBudget(tokens, halvings), []
    budget.attempt("update", largest, total, lambda: tried.append(budget.tokens))
    assert tried == [begun]
    budget.attempt("update", largest, total, lambda: tried.append(budget.tokens))
    assert tried == [begun, begun], "once, not with every step"


def test_a_budget_that_was_halved_goes_on_by_halves() -> None:
    budget, tried = TokenBudget(halvings=1), []

    def work() -> None:
        tried.append(budget.tokens)
        if len(tried) < 3:
            torch.empty(1 << 60, dtype=torch.uint8)

    budget.attempt("update", 5, 100, work)
    assert tried == [50, 25, 12]


def test_what_cannot_be_split_is_one_sentence() -> None:
    budget = TokenBudget()
    with pytest.raises(OutOfMemoryError, match="out of memory in the update with one piece of 40 tokens") as raised:
        budget.attempt("update", 40, 100, lambda: torch.empty(1 << 60, dtype=torch.uint8))
    assert budget.tokens == 40
    assert "\n" not in str(raised.value)


def test_another_error_is_not_taken_for_one_of_memory() -> None:
    def work() -> None:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        TokenBudget(4).attempt("update", 1, 8, work)


LIMITED = """
import resource, sys, torch
from harness.train.memory import TokenBudget
torch.set_num_threads(1)
torch.ones(4, 4) @ torch.ones(4, 4)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (192 << 20),) * 2)
budget = TokenBudget()
sizes = [16] * 16
def work():
    return sum(float(torch.ones(len(part) * 16, 1 << 18).sum()) for part in budget.split(sizes))
print(budget.attempt("update", 16, 256, work), budget.tokens)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_real_limit_on_memory_is_met_by_halving() -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True, timeout=120)
    *halvings, last = done.stdout.splitlines()
    total, tokens = last.split()
    assert float(total) == 256 * (1 << 18)
    assert int(tokens) in (64, 128) and len(halvings) == (1 if tokens == "128" else 2)
