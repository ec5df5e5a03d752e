"""No name and no link leads out of the results folder: names of sweeps, runs, tasks and files, wherever they come from.

Every place that makes a path of a name has its test here: :class:`RunFolder`, records of sweeps, the study's file,
figures and reports of a sweep on record, exports, jobs, and the names that a command is given.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from recorded_run import record
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, SpecError, UserError
from harness.record import RunFolder, read_sweep_record, run_folders, sweep_names, write_sweep_record
from harness.record.atomic import read_json, write_json, write_jsonl
from harness.record.folder import is_name
from harness.record.mirror.mirror import Mirror
from harness.record.mirror.tensorboard_sink import TensorboardSink
from harness.record.studies import default_storage
from harness.record.sweep_record import sweep_record_path
from harness.report.export import export_sweep, restore
from harness.spec import Job
from harness.spec.data import task_name
from harness.spec.sweep import Sweep, load_sweep

EVIL = [
    "../outside", "..", ".", "", "/etc/passwd", "a/b", "a/../../b", "..\\outside", "C:\\x", "C:", "a\nb", "a\x00b",
    "a\n",
    ".hidden", "-rf", "--help", "~", "~root", "a b", "x" * 5000, "é", "\u202ea", "a*", "a?", "con\t",
    "$(touch canary)",
]  # fmt: skip
"""None is the name of anything."""

SWEEP = """\
name: small
base: {model: Qwen/Qwen2-VL-2B-Instruct, source: counting}
axes: {method: [sft, grpo], seed: [0]}
targets: [counting, geometry]
evaluation: {num_examples: 4}
"""


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder beside the results, the same when a test is over."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    folder = tmp_path / "outside"
    (folder / "wandb").mkdir(parents=True)
    (folder / "precious.txt").write_text("keep me")
    (folder / "wandb" / "precious.txt").write_text("keep me too")
    before = contents(folder)
    yield folder
    assert contents(folder) == before
    assert not any((place / "canary").exists() for place in (folder, tmp_path, Path.cwd()))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    return load_sweep(file)


@pytest.fixture
def results(tmp_path: Path, sweep: Sweep, outside: Path) -> Path:
    """One completed run, one that was never started, and the sweep on record."""
    folder = tmp_path / "results"
    job = _job(folder, sweep)
    record(job, 0, 2)
    run = RunFolder(folder, job.spec.run_id).run_json
    write_json(run, read_json(run) | {"resolved": {"device": "cpu", "num_threads": 1}})
    write_sweep_record(folder, sweep)
    return folder


def _job(results: Path, sweep: Sweep) -> Job:
    first = next(iter(sweep.runs.values()))
    return Job(spec=first.spec, targets=first.targets, results=str(results), sweep=sweep.name, wandb=False)


def told(*words: str | Path) -> str:
    """What a command that refuses its words says: one line, exit code 2."""
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    lines = done.stderr.splitlines()
    assert done.exit_code == 2 and len(lines) == 1 and lines[0].isprintable(), (words, done.exit_code, done.output)
    assert len(lines[0]) < 600
    return lines[0]


@pytest.mark.parametrize("name", EVIL)
def test_no_name_of_a_sweep_leads_out(tmp_path: Path, name: str) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(SWEEP.replace("name: small", f"name: {json.dumps(name)}"))
    with pytest.raises(SpecError, match=r"sweep\.yaml:1: (name must be a word|.*character)"):
        load_sweep(file)
    file.write_text(SWEEP)
    with pytest.raises(SpecError, match="--set name="):
        load_sweep(file, [f"name={json.dumps(name)}"])


@pytest.mark.parametrize("name", EVIL)
def test_no_path_is_made_of_a_name_that_is_none(tmp_path: Path, sweep: Sweep, name: str) -> None:
    folder = RunFolder(tmp_path, next(iter(sweep.runs)))
    makers: list[Callable[[str], Any]] = [
        lambda name: RunFolder(tmp_path, name),
        lambda name: sweep_record_path(tmp_path, name),
        lambda name: read_sweep_record(tmp_path, name),
        folder.evaluation,
        lambda name: folder.evaluation(name, "validation"),
        lambda name: folder.evaluation("counting", name),  # type: ignore[arg-type]
        lambda name: folder.evaluations(name),  # type: ignore[arg-type]
    ]
    for make in makers:
        with pytest.raises(DataError) as caught:
            make(name)
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_names_that_the_harness_makes_are_names(tmp_path: Path, sweep: Sweep) -> None:
    assert all(is_name(run_id) for run_id in sweep.runs)
    assert Path(default_storage(tmp_path, sweep).removeprefix("sqlite:///")).parent == tmp_path / "studies"
    folder = RunFolder(tmp_path, next(iter(sweep.runs)))
    assert folder.evaluation("mine-0a1b2c").parent.parent == folder.path == tmp_path / "runs" / folder.run_id


@pytest.mark.parametrize("name", ["..", "a b", "-rf", ".hidden", "ä\nö", "x" * 200, "$(touch canary)", "..\\up"])
def test_data_in_a_folder_of_any_name_makes_a_name_of_its_own(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "a" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.jsonl").write_text('{"image": "a.png", "problem": "?", "solution": "<answer> 1 </answer>"}\n')
    made = task_name(str(folder))
    assert is_name(made) and is_name(f"grpo_d-{made}-s{2**31 - 1}-0123456789-v1")


@pytest.mark.parametrize("label", EVIL)
def test_no_label_of_a_task_file_leads_out(tmp_path: Path, label: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"image": "a.png", "problem": "?", "solution": "1"}\n')
    (tmp_path / "task.yaml").write_text(f"name: {json.dumps(label)}\ntrain: rows.jsonl\n")
    with pytest.raises(SpecError, match=r"task\.yaml:1: (the name .* is not|.*character)"):
        task_name(str(tmp_path / "task.yaml"))


def test_names_on_the_command_line(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(results.parent)
    before = contents(results)
    words: list[str | Path] = ["--results", results]
    for name in (
        "../outside",
        "..",
        ".",
        "",
        "/etc/passwd",
        "a\nb",
        "a\x00b",
        ".hidden",
        "-rf",
        "--help",
        "~",
        "x" * 5000,
    ):
        # What begins with a dash is an option, unless `--` says otherwise.
        told("tables", *words, "--", name)
        told("wandb", "sync", *words, "--", name)
        told("compare", *words, "--", name, "small")
        told("show", *words, "--", name)
    for name in ("../outside", "..", "a\nb"):
        for verb in ("figures", "report", "examples"):
            told(verb, *(words if verb != "examples" else ()), "--", name)
    assert contents(results) == before


def _with(record: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of a record with one value changed."""
    copy: dict[str, Any] = json.loads(json.dumps(record))
    inner: Any = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return copy


NAMES_ON_RECORD: list[tuple[str | int, ...]] = [
    ("name",),
    ("targets", 0),
    ("cells", 0, "run_id"),
    ("cells", 1, "targets", 0),
    ("cells", 0, "ablation"),
]


def test_no_record_of_a_sweep_leads_out(results: Path, sweep: Sweep) -> None:
    right = read_sweep_record(results, "small")
    file = sweep_record_path(results, "small")
    for evil in ("../outside", "../../outside/wandb", "/etc", "..", "a\nb", "", 3, ["x"]):
        for place in NAMES_ON_RECORD:
            write_json(file, _with(right, *place, to=evil))
            with pytest.raises(DataError, match=r"small\.json: not the record of a sweep: \w+"):
                read_sweep_record(results, "small")
    write_json(file, _with(right, "cells", 0, "settings", to={"../../outside/x": 1}))
    with pytest.raises(DataError, match=r"not the record of a sweep: cells\.0\.settings"):
        read_sweep_record(results, "small")


@pytest.mark.filterwarnings("ignore:Pydantic V1 style")  # wandb_workspaces' own
@pytest.mark.parametrize("place", [("name",), ("cells", 0, "run_id")])
def test_no_verb_follows_a_record_that_leads_out(results: Path, place: tuple[str | int, ...]) -> None:
    file = sweep_record_path(results, "small")
    write_json(file, _with(read_sweep_record(results, "small"), *place, to="../../outside"))
    before = contents(results)
    for verb in (["tables"], ["figures"], ["report"], ["wandb", "sync"], ["wandb", "workspace", "--dry-run"]):
        assert "small.json: not the record of a sweep" in told(*verb, "small", "--results", results)
    assert contents(results) == before


@pytest.mark.parametrize(
    "content", ["", "[]", "3", "null", "{}", '{"cells": 1}', "\x00", "[" * 5000, '{"name": "small"}']
)
def test_a_record_that_is_none_is_told_in_one_sentence(results: Path, content: str) -> None:
    sweep_record_path(results, "small").write_text(content)
    told("tables", "small", "--results", results)


def test_records_and_runs_with_other_names_are_nobodys(results: Path) -> None:
    before = sweep_names(results), run_folders(results)
    (results / "sweeps" / "my notes.json").write_text("{}")
    (results / "runs" / "copy of a run").mkdir()
    (results / "runs" / "-rf").mkdir()
    assert (sweep_names(results), run_folders(results)) == before


def test_no_export_leads_out(tmp_path: Path, results: Path, outside: Path, sweep: Sweep) -> None:
    exported = tmp_path / "export"
    export_sweep(results, sweep, exported)
    restore(exported, tmp_path / "back")
    assert [folder.run_id for folder in run_folders(tmp_path / "back")] == [next(iter(sweep.runs))]
    kept, [run] = read_json(exported / "sweep.json"), [json.loads((exported / "runs.jsonl").read_text())]
    verdicts = (exported / "verdicts.csv").read_text()
    for evil in ("../outside", "../../outside", "/tmp/outside"):
        planted: dict[str, Any] = {
            "sweep.json": _with(kept, "name", to=evil),
            "runs.jsonl": [_with(run, "run_id", to=evil)],
            "target": verdicts.replace(",counting,", f",{evil},"),
            "split": verdicts.replace(",test,", f",{evil},"),
        }
        for name, content in planted.items():
            folder = tmp_path / "into" / name / "results"
            write_json(exported / "sweep.json", content if name == "sweep.json" else kept)
            write_jsonl(exported / "runs.jsonl", content if name == "runs.jsonl" else [run])
            (exported / "verdicts.csv").write_text(content if name in ("target", "split") else verdicts)
            with pytest.raises(DataError) as caught:
                restore(exported, folder)
            assert str(caught.value).isprintable()
            written = [path.relative_to(tmp_path / "into") for path in (tmp_path / "into").rglob("*") if path.is_file()]
            assert all(path.parts[1] == "results" for path in written)


@pytest.mark.parametrize("evil", ["../outside", "/etc/passwd", "a\nb", "a\x00b", "é-0a1b2c", "..", "x" * 5000])
def test_no_job_leads_out(results: Path, sweep: Sweep, evil: str) -> None:
    right = _job(results, sweep).model_dump(mode="json")
    for place in (("spec", "source"), ("targets", 0)):
        with pytest.raises(ValidationError):
            Job.model_validate(_with(right, *place, to=evil))


@pytest.mark.parametrize("kind", ["run", "wandb", "tensorboard", "eval", "weights", "log.txt", "eval/geometry.jsonl"])
def test_nothing_is_written_or_removed_behind_a_link(results: Path, outside: Path, sweep: Sweep, kind: str) -> None:
    job = _job(results, sweep)
    folder = RunFolder(results, job.spec.run_id)
    folder.refuse_links()
    path = folder.path if kind == "run" else folder.path / kind
    if path.exists():
        os.rename(path, outside.parent / "moved")
    there = outside / "precious.txt" if path.suffix else outside
    path.symlink_to(outside.parent / "moved" if kind == "run" else there)
    with pytest.raises(DataError, match="is a link to") as caught:
        folder.refuse_links()
    assert str(caught.value).isprintable()
    moved = contents(outside.parent / "moved") if kind == "run" else {}
    done = CliRunner().invoke(app, ["wandb", "sync", "small", "--results", str(results)], catch_exceptions=False)
    assert done.exit_code == 3 and "is a link to" in done.output
    with pytest.raises(DataError, match="is a link to"):
        TensorboardSink(folder)
    assert kind != "run" or contents(outside.parent / "moved") == moved


def test_a_mirror_keeps_to_the_run_folder_behind_a_link(results: Path, outside: Path, sweep: Sweep) -> None:
    job = _job(results, sweep)
    folder = RunFolder(results, job.spec.run_id)
    folder.tensorboard.symlink_to(outside)
    mirror = Mirror(folder, "TensorBoard", lambda: TensorboardSink(folder))
    mirror.look()
    mirror.finish(timeout_s=60)
    assert "TensorBoard mirror: off for the rest of the run: DataError" in folder.log.read_text()


def test_reading_follows_a_run_that_was_moved_to_another_disk(results: Path, tmp_path: Path, sweep: Sweep) -> None:
    run_id = next(iter(sweep.runs))
    os.rename(results / "runs" / run_id, tmp_path / "elsewhere")
    (results / "runs" / run_id).symlink_to(tmp_path / "elsewhere")
    done = CliRunner().invoke(app, ["status", "--json", "--results", str(results)], catch_exceptions=False)
    assert done.exit_code == 0 and run_id in done.stdout


@pytest.mark.parametrize("place", ["file", "file/below", "new\nline", "x" * 5000])
def test_results_folders_that_cannot_be(tmp_path: Path, sweep: Sweep, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    results = tmp_path / place
    if place == "new\nline":  # a folder may be called so; it is told on one line
        assert told("show", "nothing", "--results", results).count("\\n") == 1
        return
    assert "--results" in told("run", sweep.path, "--results", results)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    assert str(UserError("a\nb\x1b[2J\u202e")) == "a\\nb\\x1b[2J\\u202e"
