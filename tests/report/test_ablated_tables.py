"""What a sweep ablates has tables and figures of its own, and leaves those of its main comparison alone."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from harness.record.sweep_record import write_sweep_record
from harness.report.figures.ablated import ablations
from harness.report.figures.data import read_sweep_data
from harness.report.figures.groups import trained_groups
from harness.report.figures.same_task import same_task_numbers
from harness.report.grids import grids
from harness.report.render import render_tables
from harness.report.tables import build_tables
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep

BLOCKS = (
    "[{where: {method: grpo, seed: [0, 1]}, ablate: {format_weight: [0.0, 1.0]}}, "
    "{where: {method: grpo, seed: 0}, ablate: {schedule: [constant]}}, "
    "{where: {method: grpo_d, seed: 0}, ablate: {schedule: [othink, linear]}}]"
)
VERDICTS = {"grpo": [1, 1, 0, 0], "grpo_d": [1, 1, 1, 0]}


@pytest.fixture
def sweep(results: Path, write_run, make_sweep) -> Sweep:
    """Main runs of three seeds, 2/4 and 3/4; weight 0 is 1/4 and a linear schedule 4/4."""
    loaded = make_sweep(BLOCKS, method="[base, grpo, grpo_d]", source="[counting]", seed="[0, 1, 2]")

    def verdicts(spec: RunSpec) -> list[int]:
        method = spec.method.model_dump()
        if spec.source is None or method.get("format_weight") == 0:
            return [1, 0, 0, 0]
        return [1, 1, 1, 1] if method["schedule"]["type"] == "linear" else VERDICTS[method["type"]]

    for run in loaded.runs.values():
        write_run(run.spec, {"counting": verdicts(run.spec), "geometry": [0, 0, 0, 1]})
    return loaded


def test_an_ablation_s_rows_are_over_its_own_seeds(results: Path, sweep: Sweep) -> None:
    rows = [row for row in build_tables(results, sweep) if row.target == "counting"]
    main = [(row.method, dict(row.settings), row.num_seeds, row.mean) for row in rows if row.ablation is None]
    assert main[:3] == [("base", {}, 1, 0.25), ("grpo", {}, 3, 0.5), ("grpo_d", {}, 3, 0.75)]
    ablated = [(r.ablation, r.method, list(r.settings.values()), r.num_seeds, r.mean) for r in rows if r.ablation]
    assert ablated == [
        ("format_weight", "grpo", [0.0], 2, 0.25),
        ("format_weight", "grpo", [1.0], 2, 0.5),
        ("schedule", "grpo", [], 1, 0.5),
        ("schedule", "grpo_d", ["othink"], 1, 0.75),
        ("schedule", "grpo_d", ["linear"], 1, 1.0),
    ]


def test_a_row_is_compared_within_its_ablation(results: Path, sweep: Sweep) -> None:
    rows = build_tables(results, sweep)
    gains = {
        (row.ablation, row.settings.get("method.schedule")): row.improvements["grpo"].mean
        for row in rows
        if row.method == "grpo_d" and row.table == "same_task"
    }
    assert gains == {(None, None): 0.5, ("schedule", "othink"): 0.5, ("schedule", "linear"): 1.0}


def test_every_format_tells_ablations_apart(results: Path, sweep: Sweep) -> None:
    rows = build_tables(results, sweep)
    titles = [grid.title for grid in grids(rows)]
    assert titles[2:4] == ["Ablation of format_weight", "Ablation of schedule"]
    weights = grids(rows)[2]
    assert weights.stubs == [["base", ""], ["grpo", "0"], ["grpo", "1"]]
    assert weights.pairs == ["counting -> counting", "counting -> geometry"]
    assert [[cell[0] for cell in line] for line in weights.cells] == [
        ["25.0 [0.0, 75.0]", "25.0 [0.0, 75.0]"],
        ["25.0", "25.0"],
        ["50.0", "25.0"],
    ]
    # The main comparison has no column for what is ablated.
    assert grids(rows)[0].stub_heads == ["method"]
    told = {record.get("ablation") for record in json.loads(render_tables(rows, "json"))}
    assert told == {None, "format_weight", "schedule"}
    listed = {record["ablation"] for record in csv.DictReader(io.StringIO(render_tables(rows, "csv")))}
    assert listed == {"", "format_weight", "schedule"}
    assert "compared with nothing outside of its table" in " ".join(render_tables(rows).split())


def test_the_record_of_a_sweep_knows_its_ablations(results: Path, sweep: Sweep) -> None:
    write_sweep_record(results, sweep)
    assert build_tables(results, "small") == build_tables(results, sweep)


def test_figures_of_the_sweep_leave_ablations_to_their_own(results: Path, sweep: Sweep) -> None:
    data = read_sweep_data(results, sweep)
    assert [(group.label, len(group.run_ids)) for group in trained_groups(data)] == [("grpo", 3), ("grpo_d", 3)]
    assert list(same_task_numbers(data.rows)["method"]) == ["base", "grpo", "grpo_d"]
    found = ablations(data.asked, data.specs)
    points = {key: [(p.label, len(p.run_ids)) for p in one.points] for key, [one] in found.items()}
    assert points == {
        "method.format_weight": [("0", 2), ("1", 2)],
        "method.schedule": [("constant (grpo)", 1), ("othink", 1), ("linear", 1)],
    }
