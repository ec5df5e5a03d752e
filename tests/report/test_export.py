from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, UserError
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.report.claims import judge_claims
from harness.report.export import export_sweep, restore
from harness.report.refresh import refresh_export
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


def test_an_export_of_restored_runs_says_so(exported: Path, tmp_path: Path) -> None:
    restore(exported, tmp_path / "again")
    export_sweep(tmp_path / "again", load_sweep(tmp_path / "small.yaml"), tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "about.json").read_text()) for name in ("out", "second"))
    assert "restored_from" not in first and second.pop("restored_from") == ["small"]
    assert (first.pop("command").split()[:2], second.pop("command").split()[:2]) == (
        ["harness", "run"],
        ["harness", "export"],
    )
    assert first == second
    for name in ("sweep.json", "runs.jsonl", "verdicts.csv", "tables.md", "claims.md"):
        assert (tmp_path / "second" / name).read_bytes() == (exported / name).read_bytes()


def test_half_an_export_is_refused(exported: Path, tmp_path: Path) -> None:
    (exported / "verdicts.csv").unlink()
    with pytest.raises(DataError, match="is not the folder of an export"):
        restore(exported, tmp_path / "again")


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda folder: folder.name)
def test_committed_answers_can_be_computed_from_their_committed_verdicts(folder: Path, tmp_path: Path) -> None:
    name = json.loads((folder / "sweep.json").read_text())["name"]
    files = refresh_export(folder, load_sweep(SWEEPS / f"{name}.yaml"), tmp_path)
    written = {file.relative_to(tmp_path) for file in files}
    answers = {path.relative_to(folder) for end in ("tables.*", "claims.*") for path in folder.glob(end)}
    assert answers and answers <= written
    # A picture's bytes depend on the fonts and libraries of a machine, its numbers do not.
    for file in sorted(written):
        if file.suffix != ".png":
            assert (tmp_path / file).read_text() == (folder / file).read_text(), file


def test_an_export_is_computed_again_in_place(exported: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()}
    for name in ("tables.json", "tables.md", "claims.md"):
        (exported / name).write_text("lost")
    (exported / "figures" / "same_task.csv").write_text("lost")
    arguments = ["export", str(tmp_path / "small.yaml"), "--from", str(exported)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    assert {path: path.read_bytes() for path in exported.rglob("*") if path.is_file()} == before


def test_an_export_of_another_sweep_is_refused(exported: Path, make_sweep) -> None:
    with pytest.raises(UserError, match="is an export of 'small', not of 'other'"):
        refresh_export(exported, dataclasses.replace(make_sweep(method="[base]"), name="other"))


def test_export_needs_a_folder(exported: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(tmp_path / "small.yaml")], catch_exceptions=False)
    assert done.exit_code == 2 and "export needs --out DIR to write to, or --from DIR" in done.stderr


def test_the_paper_in_miniature_holds_the_runs_of_its_ablations() -> None:
    lines = {folder.name: (folder / "runs.jsonl").read_text().splitlines() for folder in EXPORTS}
    whole = {json.loads(line)["run_id"]: json.loads(line) for line in lines["paper_mini"]}
    about = json.loads((REFERENCE / "cpu" / "paper_mini" / "about.json").read_text())
    sources = ("ablation_alpha", "ablation_beta", "ablation_schedule", "paper_mini")
    assert tuple(about["restored_from"]) == sources
    assert about["num_runs"] == about["num_completed"] == len(whole) == len(load_sweep(SWEEPS / "paper_mini.yaml").runs)
    for name in sources:
        assert all(whole[run["run_id"]] == run for run in map(json.loads, lines[name]))
