"""What of a run arrives in W&B, with the real SDK: from a stand-in server, and from the files it writes offline."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from recorded_run import record
from wandb.proto.wandb_internal_pb2 import Record
from wandb_server import Server

from harness.record import RunFolder, read_jsonl, read_state
from harness.record.mirror.publication import find_destination, publications
from harness.record.mirror.sync import sync
from harness.spec import Job
from harness.tasks.base import load_task
from harness.tasks.example_pictures import ExamplePictures

COMPLETIONS = "/completions.table.json"
LOSSES = {0: 0.0, 1: 0.125, 2: 0.25, 3: 0.375}
SCORES = {
    "status": "completed",
    "test/counting/accuracy": 0.75,
    "test/geometry/accuracy": 0.25,
    "test/counting/num_examples": 4,
    "score/same_task": 0.75,
    "score/cross_task": 0.25,
}


def _records(file: Path) -> Iterator[Record]:
    """The records of a `.wandb` file: LevelDB's log format behind a header of seven bytes, with protobuf inside."""
    content = file.read_bytes()
    assert content[:4] == b":W&B"
    position, parts = 7, b""
    while position < len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def _item(item: Any) -> tuple[str, Any]:
    return "/".join(item.nested_key) or item.key, json.loads(item.value_json)


def _offline(folder: RunFolder) -> tuple[Any, list[dict[str, Any]], dict[str, Any], dict[str, Any]]:
    """The run, its history rows, its summary and its metrics, as W&B would upload them."""
    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(_records(file))
    (run,) = [one.run for one in records if one.WhichOneof("record_type") == "run"]
    history = [dict(map(_item, one.history.item)) for one in records if one.HasField("history")]
    summary: dict[str, Any] = {}
    for one in records:
        if one.HasField("summary"):
            summary |= dict(map(_item, one.summary.update))
    metrics = {one.metric.name or one.metric.glob_name: one.metric for one in records if one.HasField("metric")}
    return run, history, summary, metrics


def _tables(folder: RunFolder) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """The tables that wait for their upload, in order, each with the files that go with it."""
    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    found = []
    for one in _records(file):
        if one.WhichOneof("record_type") == "artifact":
            files = {entry.path: Path(entry.local_path) for entry in one.artifact.manifest.contents}
            assert all(path.is_relative_to(folder.path) for path in files.values())
            contents = {name: path.read_bytes() for name, path in files.items()}
            (table,) = (json.loads(content) for name, content in contents.items() if name.endswith(".table.json"))
            found.append((table, contents))
    return found


def _show_pictures(table: dict[str, Any], files: dict[str, bytes]) -> None:
    """Three completions of two questions: each shows the example it is about."""
    paths = [row[0]["path"] for row in table["data"]]
    assert paths[0] == paths[1]
    for path, index in zip(paths[1:], (0, 1), strict=True):
        drawn = load_task("counting").example("train", index).image
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(files[path])).convert("RGB")), np.asarray(drawn))


def _is_whole(history: list[dict[str, Any]]) -> None:
    """Every step once and in order, with what belongs to it; then the evaluations."""
    steps = [row for row in history if "train/loss" in row]
    assert {row["_step"]: row["train/loss"] for row in steps} == LOSSES
    assert [row["_step"] for row in history] == [0, 1, 2, 3, 4, 5]
    assert [row["_step"] for row in history if "completions" in row or "completions/nrows" in row] == [0, 2]
    assert {row["_step"]: row["eval/counting/accuracy"] for row in steps if "eval/counting/accuracy" in row} == {
        1: 0.125,
        3: 0.375,
    }
    assert all(row["step"] == row["_step"] for row in steps)


@pytest.mark.slow
def test_a_run_that_was_killed_and_resumed_offline_arrives_whole_and_once(
    folder: RunFolder, job: Job, work: Any
) -> None:
    assert work(job, 0, 3, "killed").returncode == 9
    assert work(job, 1, 3, "interrupted").returncode == 0
    assert not list(folder.path.glob("wandb/offline-run-*"))
    done = work(job, 2, 4)
    assert (done.returncode, done.stderr) == (0, "")
    (files,) = folder.path.glob("wandb/offline-run-*")
    assert done.stdout.splitlines() == [
        f"completed: {folder.path}",
        f"W&B: {files}; to upload it: harness wandb sync",
    ]
    assert not folder.log.exists()
    run, history, summary, metrics = _offline(folder)
    digest = folder.run_id.split("-")[-2]
    assert (run.run_id, run.display_name) == (f"{digest}-g1", folder.run_id)
    assert (run.project, run.run_group, run.job_type) == ("harness", "quickstart", "grpo")
    assert list(run.tags) == [
        *("grpo", "schedule:constant", "source:counting", "seed:3", "model:Qwen2-VL-2B-Instruct", "sweep:quickstart"),
    ]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config.items() >= job.spec.model_dump(mode="json").items()
    assert config["targets"] == ["counting", "geometry"] and config["run_id"] == folder.run_id
    _is_whole(history)
    assert summary.items() >= SCORES.items()
    assert summary["rollout/reward"] == {"last": 0, "max": 3}
    assert metrics["train/*"].step_metric == "step" and metrics["step"].options.hidden
    assert metrics["eval/counting/accuracy"].summary.max and not metrics["train/*"].summary.max
    completions, _, counting, _ = _tables(folder)
    _show_pictures(*completions)
    table, images = counting
    assert table["columns"] == ["image", "id", "completion", "extracted", "correct", "format", "num_tokens"]
    assert [row[4] for row in table["data"]] == [True, True, True, False]
    assert len({row[0]["path"] for row in table["data"]} & images.keys()) == 4


def test_offline_files_are_written_from_the_folder_alone_and_once(
    folder: RunFolder, job: Job, environment: None
) -> None:
    record(job, 0, 3, "interrupted")
    where = find_destination("offline")
    assert [one.outcome for one in sync([folder], where)] == ["unfinished"]
    record(job, 3, 4)
    assert not (folder.path / "wandb").exists()
    (done,) = sync([folder], where, ExamplePictures)
    assert (done.outcome, done.num_steps, done.evaluated) == ("published", 4, ("counting", "geometry"))
    _is_whole(_offline(folder)[1])
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert [one.outcome for one in sync([folder], where)] == ["there"]
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


@pytest.mark.slow
def test_a_server_gets_a_run_step_by_step_and_each_step_once(
    folder: RunFolder, job: Job, work: Any, server: Server
) -> None:
    assert work(job, 0, 3, "failed").returncode == 0
    (run,) = server.runs.values()
    assert [row["_step"] for row in run.history] == [0, 1]  # the last one waits: it may not be whole
    assert run.exit_code == 1
    done = work(job, 2, 4)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = server.runs.values()
    assert done.stdout.splitlines()[-1] == f"W&B: {server.url}/someone/harness/runs/{run.id}"
    assert not folder.log.exists()
    assert run.id == f"{folder.run_id.split('-')[-2]}-g1" and run.exit_code == 0
    assert (run.display_name, run.group, run.job_type) == (folder.run_id, "quickstart", "grpo")
    _is_whole(run.history)
    assert run.summary.items() >= SCORES.items()
    (path, table), *_ = ((name, json.loads(made)) for name, made in server.stored.items() if name.endswith(COMPLETIONS))
    stored = server.stored.items()
    images = {name.removeprefix(path.removesuffix(COMPLETIONS) + "/"): content for name, content in stored}
    _show_pictures(table, images)

    (place,) = publications(folder)
    assert place == f"{server.url}/-/harness"
    calls = len(server.operations)
    assert [one.outcome for one in sync([folder], find_destination("online"))] == ["there"]
    assert set(server.operations[calls:]) <= {"Viewer", "GetDefaultEntity", "Runs"}


@pytest.mark.slow
def test_sync_goes_on_where_a_server_was_left_and_passes_over_a_deleted_id(
    folder: RunFolder, job: Job, work: Any, server: Server
) -> None:
    assert work(job, 0, 2, "killed").returncode == 9
    record(job, 1, 4)
    where = find_destination("online")
    (done,) = sync([folder], where)
    assert done.outcome == "published" and done.evaluated == ("counting", "geometry")
    (run,) = server.runs.values()
    _is_whole(run.history)
    assert run.summary.items() >= SCORES.items()

    server.delete(run.id)
    (done,) = sync([folder], where)
    assert (done.outcome, done.num_steps, done.evaluated) == ("published", 4, ("counting", "geometry"))
    (again,) = server.runs.values()
    assert again.id == run.id.replace("-g1", "-g2")
    _is_whole(again.history)
    assert [one.outcome for one in sync([folder], where)] == ["there"]


def test_an_evaluation_that_came_later_is_added(folder: RunFolder, job: Job, server: Server) -> None:
    where = find_destination("online")
    record(job, 0, 4)
    assert [one.outcome for one in sync([folder], where)] == ["published"]
    rows = read_jsonl(folder.evaluation("geometry"))
    text = "".join(json.dumps(row | {"correct": True}) + "\n" for row in rows)
    folder.evaluation("geometry").write_text(text)
    (done,) = sync([folder], where)
    assert (done.outcome, done.num_steps, done.evaluated) == ("published", 0, ("geometry",))
    (run,) = server.runs.values()
    assert [row["_step"] for row in run.history] == [0, 1, 2, 3, 4, 5, 6]


def test_training_anew_gets_the_next_generation(folder: RunFolder, job: Job, server: Server) -> None:
    where = find_destination("online")
    record(job, 0, 3, "interrupted")
    assert [one.outcome for one in sync([folder], where)] == ["published"]
    record(job, 0, 4)
    assert [one.outcome for one in sync([folder], where)] == ["published"]
    _is_whole(server.runs[f"{folder.run_id.split('-')[-2]}-g2"].history)


def test_a_mirror_that_cannot_open_leaves_the_run_alone(folder: RunFolder, job: Job, work: Any, tmp_path: Path) -> None:
    folder.path.mkdir(parents=True)
    (folder.path / "wandb").write_text("a file where W&B wants a folder")
    done = work(job, 0, 4, WANDB_CACHE_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "W&B: nothing was mirrored"
    assert read_state(folder).status == "completed"
    (line,) = folder.log.read_text().splitlines()
    assert line.startswith("W&B mirror: off for the rest of the run: ")


@pytest.mark.parametrize("status", ["running", "not_started"])
def test_what_cannot_be_published_yet_is_left_alone(
    status: str, folder: RunFolder, job: Job, environment: None
) -> None:
    from harness.record import Recorder
    from harness.record.lease import claim

    lease = None
    if status == "running":
        lease = claim(folder.path, 0)
        recorder = Recorder(folder, job, files=lease.files)
        recorder.start("cpu")
        recorder.metrics(0, {"train/loss": 1.0})
    assert [one.outcome for one in sync([folder], find_destination("offline"))] == [status]
    if lease is not None:
        lease.release()
        assert [one.outcome for one in sync([folder], find_destination("offline"))] == ["unfinished"]
