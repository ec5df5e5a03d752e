from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.report.claims import judge_claims
from harness.report.export import export_sweep, restore
from harness.report.render import render_tables
from harness.report.render_claims import render_claims
from harness.report.tables import build_tables
from harness.spec.run import RunSpec
from harness.spec.sweep import load_sweep

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
SWEEPS = Path(__file__).parents[2] / "sweeps"
EXPORTS = sorted(path.parent for path in REFERENCE.glob("*/*/verdicts.csv"))

ATTEMPT = {
    "started": "2026-01-01T10:00:00+0000",
    "ended": "2026-01-01T10:00:07+0000",
    "start_step": 0,
    "outcome": "completed",
    "device": "cpu",
    "commit": "c0ffee",
    "dirty": False,
}


@pytest.fixture
def exported(results: Path, write_run, tmp_path: Path) -> Path:
    """Three seeds of two methods, four examples each."""
    file = tmp_path / "small.yaml"
    file.write_text(
        "name: small\naxes: {method: [sft, grpo], source: [counting], seed: [0, 1, 2]}\ntargets: [counting, geometry]\n"
        "evaluation: {num_examples: 4}\nclaims:\n  - {name: a, says: b, better: {method: grpo}, than: {method: sft}, "
        "on: same_task}\n"
    )
    for method, correct in (("sft", [1, 0, 0, 0]), ("grpo", [1, 1, 0, 1])):
        for seed in range(3):
            spec = RunSpec.model_validate({"method": method, "source": "counting", "seed": seed})
            folder = RunFolder(results, write_run(spec, {"counting": correct, "geometry": [0, 0, 0, 1]}))
            record = json.loads(folder.run_json.read_text())
            record |= {"resolved": {"device": "cpu", "num_threads": 1}, "attempts": [ATTEMPT]}
            record["provenance"]["versions"] = {"torch": "2.13.0"}
            write_json(folder.run_json, record)
    export_sweep(results, load_sweep(file), tmp_path / "out")
    return tmp_path / "out"


def test_an_export_gives_the_same_tables_and_claims_again(exported: Path, tmp_path: Path) -> None:
    restore(exported, tmp_path / "again")
    sweep = load_sweep(tmp_path / "small.yaml")
    tables = render_tables(build_tables(tmp_path / "again", sweep), "json") + "\n"
    assert tables == (exported / "tables.json").read_text()
    claims = render_claims(judge_claims(tmp_path / "again", sweep), "json") + "\n"
    assert claims == (exported / "claims.json").read_text()
    assert json.loads(tables)[0]["mean"] == 0.25


def test_an_export_says_where_it_comes_from(exported: Path) -> None:
    about = json.loads((exported / "about.json").read_text())
    assert (about["num_runs"], about["num_completed"], about["worker_s"]) == (6, 6, 42.0)
    assert about["commits"] == ["c0ffee"] and about["versions"] == [{"torch": "2.13.0"}]
    assert (exported / "figures" / "same_task.png").is_file()


def test_half_an_export_is_refused(exported: Path, tmp_path: Path) -> None:
    (exported / "verdicts.csv").unlink()
    with pytest.raises(DataError, match="is not the folder of an export"):
        restore(exported, tmp_path / "again")


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda folder: folder.name)
def test_a_committed_table_can_be_computed_from_its_committed_verdicts(folder: Path, tmp_path: Path) -> None:
    restore(folder, tmp_path)
    committed = (folder / "tables.json").read_text()
    name = json.loads((folder / "sweep.json").read_text())["name"]
    assert render_tables(build_tables(tmp_path, name), "json") + "\n" == committed
    if (folder / "claims.json").exists():
        answers = judge_claims(tmp_path, load_sweep(SWEEPS / f"{name}.yaml"))
        assert render_claims(answers, "json") + "\n" == (folder / "claims.json").read_text()
