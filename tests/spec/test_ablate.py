"""`ablate` of a block: copies of cells, beside the ones that they are copied from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.spec.expand import Cell
from harness.spec.sweep import Sweep, load_sweep

HEAD = """
name: a
axes:
  method: [base, sft, grpo]
  source: [counting, geometry]
  seed: [0, 1, 2]
"""
WEIGHTS = """
  - where: {method: grpo, source: counting, seed: [0, 1]}
    ablate: {format_weight: [0, 1]}
"""
BETAS = """
  - where: {method: [sft, grpo], source: counting, seed: 0}
    ablate: {beta: [0.0, 0.5]}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Sweep]:
    def load(blocks: str, *overrides: str) -> Sweep:
        file = tmp_path / "a.yaml"
        file.write_text(f"{HEAD}blocks:{blocks}targets: [counting, geometry]\n")
        return load_sweep(file, overrides)

    return load


def copies(sweep: Sweep) -> list[Cell]:
    return [cell for cell in sweep.cells if cell.ablation is not None]


def test_cells_are_copied_and_stay_as_they_are(sweep) -> None:
    plain, ablated = sweep(" []\n"), sweep(WEIGHTS)
    assert [cell for cell in ablated.cells if cell.ablation is None] == list(plain.cells)
    found = [(c.ablation, c.spec.source, c.spec.seed, c.settings["method.format_weight"]) for c in copies(ablated)]
    assert found == [("format_weight", "counting", seed, weight) for seed in (0, 1) for weight in (0, 1)]
    # Weight 1 is the default, so these copies share a run with the cell that they are copied from. Base and two methods
    # on two sources with three seeds are 13 runs; weight 0 adds one per seed, after them.
    assert len(plain.runs) == 13
    assert list(ablated.runs)[:13] == list(plain.runs)
    assert len(ablated.runs) == 15


def test_no_ablation_copies_another_one_s_cells(sweep) -> None:
    both = sweep(WEIGHTS + BETAS)
    # SFT has no beta, so nothing can be ablated in it.
    found = [(c.ablation, c.spec.method.type, sorted(c.settings)[0]) for c in copies(both)]
    assert found == [("format_weight", "grpo", "method")] * 4 + [("beta", "grpo", "method")] * 2
    assert [set(c.settings) - {"method", "source", "seed"} for c in copies(both)[-2:]] == [{"method.schedule.beta"}] * 2
    # 3 methods, 2 sources, 3 seeds; once as they are, twice for each ablation's two values; two targets.
    assert both.num_runs_naive == 18 * (1 + 2 + 2) * 2


def test_later_settings_hold_for_copies_too(sweep) -> None:
    slower = sweep(WEIGHTS + "  - where: {method: grpo, source: counting}\n    set: {lr: 1e-7}\n")
    assert {cell.spec.method.lr for cell in copies(slower)} == {1e-7}
    assert len(copies(slower)) == 4


def test_two_settings_at_once_are_one_ablation(sweep) -> None:
    crossed = sweep("\n  - where: {method: grpo, seed: 0}\n    ablate: {format_weight: [0, 1], beta: [0.1, 0.2]}\n")
    assert [cell.ablation for cell in copies(crossed)] == ["format_weight x beta"] * 8


def test_an_option_takes_the_place_of_an_ablation(sweep) -> None:
    replaced = sweep(WEIGHTS, "format_weight=0.5")
    assert copies(replaced) == []
    assert len(replaced.runs) == 13


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("where: {method: grpo}\n    ablate: {beta: [0.1]}\n    set: {lr: 1e-4}", "has `ablate`, or `set` and `axes`"),
        ("where: {method: grpo}", "a `set`, `axes` or `ablate`"),
        ("where: {method: sft}\n    ablate: {beta: [0.1]}", "no cell with method 'sft' can have method.schedule.beta"),
        ("where: {method: grpo}\n    ablate: {beta: 0.1}", "must be a list of values"),
        ("where: {method: grpo, seed: 7}\n    ablate: {beta: [0.1]}", "this block selects no cell"),
    ],
)
def test_what_cannot_be_ablated_is_refused(sweep, block: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        sweep(f"\n  - {block}\n")
    assert "a.yaml:" in str(caught.value)
