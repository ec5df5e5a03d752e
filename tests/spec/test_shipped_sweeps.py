"""Every sweep in the repository loads and can be planned."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.launch.plan import make_plan
from harness.spec.sweep import load_sweep

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("**/*.yaml"))


def test_there_are_sweeps() -> None:
    assert SWEEPS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_it_loads_and_plans(path: Path, tmp_path: Path) -> None:
    sweep = load_sweep(path)
    assert sweep.name == path.stem
    assert sweep.description
    planned = make_plan(sweep, tmp_path)
    assert 0 < planned.num_runs <= planned.num_runs_naive
    assert {run.status for run in planned.runs} == {"pending"}


def test_names_are_unique() -> None:
    names = [load_sweep(path).name for path in SWEEPS]
    assert len(set(names)) == len(names)


def test_the_quickstart_shares_runs() -> None:
    sweep = load_sweep(next(path for path in SWEEPS if path.stem == "quickstart"))
    # 3 trained methods x 2 sources x 3 seeds and one base; the grid has 4 x 2 x 3 combinations x 2 targets
    assert (len(sweep.runs), sweep.num_runs_naive) == (19, 48)
