"""Every sweep in the repository loads and can be planned."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from harness.launch.plan import make_plan
from harness.spec.sweep import load_sweep

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("**/*.yaml"))
SWEEPS_BY_NAME = {path.stem: path for path in SWEEPS}


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


PAPER_RUNS = {"paper_2b": 19, "paper_7b": 19, "paper_alpha": 16, "paper_beta": 19}


@pytest.mark.parametrize("name", PAPER_RUNS)
def test_the_papers_sweeps_plan_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("a plan reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "empty"))
    planned = make_plan(load_sweep(SWEEPS_BY_NAME[name]), tmp_path / "results")
    assert planned.num_runs == PAPER_RUNS[name]
    trained = [run.spec for run in planned.runs if run.spec.source is not None]
    assert {spec.seed for spec in trained} >= {0, 1, 2}
    assert {(spec.model.removeprefix("Qwen/Qwen2-VL-"), spec.precision) for spec in trained} == {
        ("7B-Instruct" if name == "paper_7b" else "2B-Instruct", "bf16")
    }
    # Geometry: two passes over the data, 16 prompts a step. Counting: R1-V's step 100.
    for spec in trained:
        method = spec.method.model_dump()
        passes = -(-2 * spec.num_train // method["prompts_per_step"])
        assert method["num_steps"] == (passes if spec.source == "geoqa" else 100)


def test_the_papers_ablations_share_its_main_run() -> None:
    main, alpha, beta = (set(load_sweep(SWEEPS_BY_NAME[f"paper_{name}"]).runs) for name in ("2b", "alpha", "beta"))
    # Base, and GRPO on geometry with three seeds.
    assert len(main & alpha & beta) == 4
    assert len(alpha & beta) == 4


def test_names_are_unique() -> None:
    names = [load_sweep(path).name for path in SWEEPS]
    assert len(set(names)) == len(names)


def test_the_quickstart_shares_runs() -> None:
    sweep = load_sweep(next(path for path in SWEEPS if path.stem == "quickstart"))
    # 3 trained methods x 2 sources x 3 seeds and one base; the grid has 4 x 2 x 3 combinations x 2 targets
    assert (len(sweep.runs), sweep.num_runs_naive) == (19, 48)
