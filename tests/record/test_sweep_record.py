from __future__ import annotations

import pytest

from harness.errors import UserError
from harness.record import read_sweep_record, sweep_names, write_sweep_record
from harness.spec.sweep import load_sweep

SWEEP = """
name: small
description: Two methods.
base: {model: Qwen/Qwen2-VL-2B-Instruct, source: counting}
axes: {method: [sft, grpo], seed: [0, 1]}
targets: [counting, geometry]
evaluation: {num_examples: 20}
"""


def test_a_sweep_on_record_says_what_was_asked_for(tmp_path):
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    sweep = load_sweep(file)
    path = write_sweep_record(tmp_path / "results", sweep)
    assert path == tmp_path / "results" / "sweeps" / "small.json"
    record = read_sweep_record(tmp_path / "results", "small")
    assert {key: record[key] for key in ("name", "description", "path", "targets")} == {
        "name": "small",
        "description": "Two methods.",
        "path": str(file),
        "targets": ["counting", "geometry"],
    }
    assert record["evaluation"]["num_examples"] == 20
    assert [cell["run_id"] for cell in record["cells"]] == [cell.run_id for cell in sweep.cells]
    assert {tuple(cell["settings"].values()) for cell in record["cells"]} == {
        ("sft", 0),
        ("sft", 1),
        ("grpo", 0),
        ("grpo", 1),
    }
    assert sweep_names(tmp_path / "results") == ["small"]


def test_an_unknown_sweep_names_the_nearest(tmp_path):
    with pytest.raises(UserError, match=r"no sweep 'smal' on record in .*: none is there yet"):
        read_sweep_record(tmp_path, "smal")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "small.json").write_text("{}")
    with pytest.raises(UserError, match="did you mean 'small'"):
        read_sweep_record(tmp_path, "smal")
