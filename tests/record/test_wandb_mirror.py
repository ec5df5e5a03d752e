"""The mirror against the real W&B client, offline, each run in a process of its own as a worker's is."""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import subprocess
import sys

import pytest

from harness.record import Recorder, read_json, read_jsonl, read_state
from harness.record.wandb_mirror import is_logged_in

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed")

WORKER = """
import sys
from PIL import Image
from harness.record import Recorder, RunFolder, WandbMirror
from harness.spec import Job

job = Job.model_validate_json(sys.argv[1])
num_steps, resume, queue_size = map(int, sys.argv[2:5])
folder = RunFolder(job.results, job.spec.run_id)
mirror = WandbMirror(folder, job, queue_size=queue_size)
recorder = Recorder(folder, job, mirror)
recorder.start("cpu")
recorder.resume_from(resume)
red, blue = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
for step in range(resume, num_steps):
    recorder.metrics(step, {"train/loss": step / 8})
    rows = [{"id": name, "completion": "<answer> 3 </answer>", "advantage": -0.5} for name in "aab"]
    if step < 8:
        recorder.completions(step, rows, {"a": red, "b": blue} if step else [red, red, blue])
recorder.validation(num_steps - 1, "counting", {"accuracy": 0.25, "format": 1.0})
rows = [{"index": i, "correct": i < 3, "format": True, "extracted": "3" if i else None} for i in range(4)]
recorder.evaluation("counting", rows)
recorder.complete({"evaluations": {"counting": {"num_examples": 4}}})
"""


def _run(job, *, num_steps=3, resume=0, queue_size=512, **more):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    environment |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-c", WORKER, job.model_dump_json(), str(num_steps), str(resume), str(queue_size)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def _records(file):
    """The records of a `.wandb` file: LevelDB's log format behind a header of seven bytes, with protobuf inside."""
    from wandb.proto.wandb_internal_pb2 import Record

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


def _item(item):
    return "/".join(item.nested_key) or item.key, json.loads(item.value_json)


def _read(folder):
    """The run, its history rows and its summary, as W&B would upload them."""
    (file,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    records = list(_records(file))
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    history = [dict(map(_item, record.history.item)) for record in records if record.HasField("history")]
    summary = {}
    for record in records:
        if record.HasField("summary"):
            summary |= dict(map(_item, record.summary.update))
    assert records[-1].WhichOneof("record_type") in ("exit", "final", "request", "stats", "summary", "telemetry")
    return run, history, summary


def test_an_offline_run_holds_what_the_folder_holds(folder, job):
    earlier = Recorder(folder, job)
    earlier.start("cpu")
    earlier.fail(RuntimeError("out of luck"))
    done = _run(job)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = done.stdout.splitlines()
    (files,) = folder.path.glob("wandb/offline-run-*")
    assert first == f"completed: {folder.path}"
    assert second == f"W&B: {files}; to upload it: wandb sync {files}"
    assert not folder.log.exists()

    run, history, summary = _read(folder)
    digest = folder.run_id.split("-")[-2]
    assert (run.run_id, run.display_name) == (f"{digest}-g2", folder.run_id)
    assert (run.project, run.run_group, run.job_type) == ("harness", "quickstart", "grpo")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["method"] == job.spec.model_dump(mode="json")["method"]

    steps = [row for row in history if "train/loss" in row]
    assert [(row["_step"], row["step"], row["train/loss"]) for row in steps] == [
        (0, 0, 0.0),
        (1, 1, 0.125),
        (2, 2, 0.25),
    ]
    assert all((row["completions/nrows"], row["completions/ncols"]) == (3, 4) for row in steps)
    assert steps[-1]["eval/counting/accuracy"] == 0.25
    assert steps[-1]["test/counting/examples/nrows"] == 4
    assert summary["test/counting/accuracy"] == 0.75
    assert summary["test/counting/num_examples"] == 4
    tables = [read_json(file) for file in files.glob("files/media/table/completions*.json")]
    assert [table["columns"] for table in tables] == [["image", "id", "completion", "advantage"]] * 3


def test_an_attempt_from_a_checkpoint_keeps_the_id(folder, job):
    earlier = Recorder(folder, job)
    earlier.start("cpu")
    earlier.interrupt(1)
    assert _run(job, resume=1).returncode == 0
    run, history, _ = _read(folder)
    assert run.run_id.endswith("-g1")
    assert [row["step"] for row in history if "train/loss" in row] == [1, 2]


def test_a_mirror_that_cannot_open_leaves_the_run_alone(folder, job, tmp_path):
    folder.path.mkdir(parents=True)
    (folder.path / "wandb").write_text("a file where W&B wants a folder")
    done = _run(job, num_steps=200, WANDB_CACHE_DIR=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "W&B: nothing was mirrored"
    assert read_state(folder).status == "completed"
    assert len(read_jsonl(folder.metrics)) == 201
    (line,) = folder.log.read_text().splitlines()
    assert line.startswith("W&B mirror: off for the rest of the run: ")


def test_a_full_queue_drops_events_and_says_so(folder, job):
    done = _run(job, num_steps=300, queue_size=4)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read_jsonl(folder.metrics)) == 301
    first, last = folder.log.read_text().splitlines()
    assert "events are dropped" in first
    num_dropped = int(last.split()[2])
    _, history, _ = _read(folder)
    assert num_dropped >= 200
    assert 0 < len(history) < 100


@pytest.fixture
def nobody(tmp_path, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    return file


def test_a_login_is_seen_in_the_environment(nobody, monkeypatch):
    assert not is_logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert is_logged_in()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not is_logged_in()


def test_a_login_is_seen_in_netrc(nobody, monkeypatch):
    nobody.write_text("machine example.org login x password y\n")
    assert not is_logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://example.org")
    assert is_logged_in()
    nobody.write_text("machine api.wandb.ai login user password y\n")
    assert not is_logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    assert is_logged_in()
    nobody.write_text("not a netrc file")
    assert not is_logged_in()
