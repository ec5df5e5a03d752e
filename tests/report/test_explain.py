"""The runs behind a cell, by the cell's name or the beginning of one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.record.folder import RunFolder
from harness.report.explain import explain, explain_text
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep


def spec(method: str, source: str | None = None, seed: int = 0, **settings: object) -> RunSpec:
    return RunSpec.model_validate({"method": {"type": method, **settings}, "source": source, "seed": seed})


@pytest.fixture
def sweep(results: Path, write_run, make_sweep) -> Sweep:
    """Base and GRPO on counting at two format weights; of one weight a seed is missing."""
    write_run(spec("base"), {"counting": [1, 0, 0, 0], "geometry": [0, 0, 0, 0]})
    for weight, seeds in ((0.0, (1,)), (1.0, (0, 1))):
        for seed in seeds:
            run = spec("grpo", "counting", seed, format_weight=weight)
            write_run(run, {"counting": [1, 1, seed, 0], "geometry": [0, 0, 0, 1]})
    return make_sweep(method="[base, grpo]", source="[counting]", seed="[0, 1]", format_weight="[0.0, 1.0]")


def test_a_cell_by_hand(results: Path, sweep: Sweep) -> None:
    (cell,) = explain(results, sweep, "grpo/counting/counting/format_weight=0")
    missing, complete = cell.runs
    assert (missing.seed, missing.accuracy, missing.commit) == (0, None, None)
    assert (complete.seed, complete.accuracy, complete.commit, complete.dirty) == (1, 0.75, "c0ffee", False)
    assert Path(complete.folder) == RunFolder(results, complete.run_id).path
    lines = explain_text([cell]).splitlines()
    assert lines[0] == "grpo/counting/counting/format_weight=0: 75.0 %, 4 test examples, protocol r1v_counting"
    assert lines[2].split()[:3] == ["0", "missing", "-"]
    assert lines[3].split() == ["1", "75.0", "c0ffee", complete.folder]


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("base", ["base/counting", "base/geometry"]),
        ("grpo/counting/geometry", [f"grpo/counting/geometry/format_weight={weight}" for weight in (0, 1)]),
        ("grpo/format_weight=1", [f"grpo/counting/{target}/format_weight=1" for target in ("counting", "geometry")]),
    ],
)
def test_the_beginning_of_a_name_stands_for_several_cells(
    results: Path, sweep: Sweep, cell: str, names: list[str]
) -> None:
    assert [found.name for found in explain(results, sweep, cell)] == names


def test_no_such_cell_names_the_nearest(results: Path, sweep: Sweep) -> None:
    with pytest.raises(UserError, match=r"no cell 'base/countin': did you mean 'base/counting'\?"):
        explain(results, sweep, "base/countin")


def test_the_verb(results: Path, sweep: Sweep) -> None:
    arguments = ["tables", str(sweep.path), "--results", str(results), "--explain", "base/counting", "--format"]
    done = CliRunner().invoke(app, [*arguments, "json"], catch_exceptions=False)
    (record,) = json.loads(done.stdout)
    assert (done.exit_code, record["cell"], record["mean"]) == (0, "base/counting", 0.25)
    assert [run["run_id"] for run in record["runs"]] == record["run_ids"] == [spec("base").run_id]
    done = CliRunner().invoke(app, [*arguments, "latex"], catch_exceptions=False)
    assert done.exit_code == 2 and "--explain takes --format text or json, not 'latex'" in done.stderr
