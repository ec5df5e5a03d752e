"""The index answers as the run folders do, whatever happens to them, and only faster."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.record import index as index_module
from harness.record import remembered
from harness.record.atomic import encode_jsonl, file_digest, read_json, write_json, write_jsonl
from harness.record.folder import RunFolder, run_folders
from harness.record.index import RunIndex
from harness.record.remembered import INDEX
from harness.record.state import is_complete, read_state
from harness.report.collect import measure
from harness.report.frame import load_results
from harness.spec.methods import Evaluation
from harness.spec.run import RunSpec

MARGIN_S = 0.03
"""Several ticks of the file system's clock, in place of the two seconds of coarser ones."""

SPECS = [RunSpec.model_validate({"method": "sft", "source": "counting", "seed": seed}) for seed in range(3)]
ASKED = Evaluation(num_examples=4)
TARGETS = ("counting", "geometry")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(remembered, "MARGIN_NS", int(MARGIN_S * 1e9))
    return tmp_path / "results"


@pytest.fixture
def unindexed(results: Path, tmp_path: Path) -> Path:
    """The same runs as another results folder, which has no index."""
    other = tmp_path / "unindexed"
    other.mkdir()
    (other / "runs").symlink_to(results / "runs", target_is_directory=True)
    return other


def settle() -> None:
    time.sleep(2 * MARGIN_S)


def finish(results: Path, spec: RunSpec, verdicts: dict[str, list[int]], *, noted: bool = True) -> RunFolder:
    """A completed run, as the recorder leaves it."""
    folder = RunFolder(results, spec.run_id)
    for target, correct in verdicts.items():
        rows = [{"index": n, "correct": bool(one), "format": n % 2 == 0} for n, one in enumerate(correct)]
        write_jsonl(folder.evaluation(target), rows)
    evaluations = {target: {"num_examples": len(of), "num_correct": sum(of)} for target, of in verdicts.items()}
    files = {
        f"eval/{target}.jsonl": {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for target in verdicts
        for path in (folder.evaluation(target),)
    }
    job = {"sweep": "small", "targets": list(verdicts), "evaluation": ASKED.model_dump(mode="json")}
    spec_json = spec.model_dump(mode="json")
    origin = {"commit": "c0ffee", "dirty": False, "host": "here"}
    record = {"spec": spec_json, "job": job, "provenance": origin, "attempts": [{"measured": {"train_s": 1.5}}]}
    write_json(folder.run_json, record)
    write_json(folder.job_json, {**job, "spec": spec_json})
    write_json(folder.state_json, {"status": "completed", "step": 3, "num_steps": 3, "heartbeat": 1.25})
    write_json(folder.summary, {"evaluations": evaluations, **({"files": files} if noted else {})})
    return folder


def seen(results: Path, worth: int) -> dict[str, Any]:
    """Everything that an index tells of the runs."""
    found: dict[str, Any] = {}
    with RunIndex(results, worth=worth) as index:
        found["runs"] = index.run_ids()
        for spec in SPECS:
            run_id = spec.run_id
            found[run_id] = (index.status(run_id), index.job(run_id), index.recorded(run_id), index.measured(run_id))
            found[run_id] += (index.is_complete(run_id, TARGETS, ASKED), index.is_intact(run_id, TARGETS, ASKED))
    return found


def replace(path: Path, content: bytes) -> None:
    other = path.with_name(".other")
    other.write_bytes(content)
    os.replace(other, path)


def flipped(content: bytes) -> bytes:
    """Rows with as many bytes and as many right answers as before, the first two in each other's place."""
    lines = content.splitlines(keepends=True)
    return b"".join([*lines[1::-1], *lines[2:]])


def put_back_time(path: Path, change: Callable[[], object]) -> None:
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


KINDS = (
    *("finish", "unnoted", "one_target", "rewrite", "equal", "in_place", "truncate", "delete", "gone", "swap"),
    *("touch", "state", "restore"),
)


def disturb(results: Path, rng: random.Random) -> str:
    """Does one thing to one run folder; says which."""
    spec = rng.choice(SPECS)
    folder = RunFolder(results, spec.run_id)
    eval_file = folder.evaluation(rng.choice(TARGETS))
    files = [folder.summary, folder.run_json, folder.state_json, folder.job_json, eval_file]
    path = rng.choice(files)
    verdicts = [[rng.randrange(2) for _ in range(4)] for _ in TARGETS]
    what = rng.choice(KINDS)
    if what in ("finish", "unnoted"):
        finish(results, spec, dict(zip(TARGETS, verdicts, strict=True)), noted=what == "finish")
    elif what == "one_target":
        finish(results, spec, {"counting": verdicts[0]})
    elif not path.exists() or not eval_file.exists():
        return "nothing"
    elif what == "rewrite":
        replace(path, path.read_bytes())
    elif what == "equal":
        put_back_time(eval_file, lambda: replace(eval_file, flipped(eval_file.read_bytes())))
    elif what == "in_place":
        put_back_time(eval_file, lambda: eval_file.write_bytes(flipped(eval_file.read_bytes())))
    elif what == "truncate":
        os.truncate(path, rng.randrange(path.stat().st_size))
    elif what == "delete":
        path.unlink()
    elif what == "gone":
        shutil.rmtree(folder.path)
    elif what == "swap":
        other = RunFolder(results, SPECS[0].run_id if spec is not SPECS[0] else SPECS[1].run_id)
        if other.path.exists():
            aside = folder.path.with_name(".aside")
            folder.path.rename(aside)
            other.path.rename(folder.path)
            aside.rename(other.path)
    elif what == "touch":
        os.utime(path, ns=(0, rng.choice([0, time.time_ns() + 10**12])))
    elif what == "state":
        write_json(
            folder.state_json, {"status": rng.choice(["running", "failed", "pending"]), "step": rng.randrange(9)}
        )
    elif what == "restore":
        copy = path.with_name(".copy")
        shutil.copy2(path, copy)
        path.write_bytes(b"{}\n")
        os.replace(copy, path)
    return what


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_it_answers_as_without_one(results: Path, unindexed: Path, seed: int) -> None:
    rng = random.Random(seed)
    for spec in SPECS:
        finish(results, spec, {"counting": [1, 0, 1, 1], "geometry": [0, 0, 1, 0]})
    num_believed = 0
    for _ in range(60):
        if rng.random() < 0.4:
            settle()
        what = [disturb(results, rng) for _ in range(rng.randrange(3))]
        with RunIndex(results) as index:
            num_believed += sum(index.knows(spec.run_id) for spec in SPECS)
        found = seen(results, worth=1)
        assert found == seen(unindexed, worth=10**9), what
        for folder in (RunFolder(results, spec.run_id) for spec in SPECS):
            (_, state), *_, complete, _ = found[folder.run_id]
            assert (state, complete) == (read_state(folder), is_complete(folder, TARGETS, ASKED)), what
    assert num_believed > 30, "the index was hardly put to the test"
    assert not (unindexed / INDEX).exists()
    assert load_results(results).equals(load_results(unindexed))


def test_it_answers_as_the_run_folder_does(results: Path) -> None:
    folders = [finish(results, spec, {"counting": [1, 0, 1, 1], "geometry": [0, 0, 1, 0]}) for spec in SPECS[:2]]
    folders[1].evaluation("geometry").write_text("{}\n")
    settle()
    for _ in range(2):  # read, then from the index
        with RunIndex(results, worth=1) as index:
            assert index.run_ids() == [folder.run_id for folder in run_folders(results)]
            for folder in folders:
                run_id = folder.run_id
                assert index.status(run_id)[1] == read_state(folder)
                assert index.is_complete(run_id, TARGETS, ASKED) == is_complete(folder, TARGETS, ASKED)
                assert index.job(run_id) == read_json(folder.job_json)
                for target in TARGETS:
                    measured, verdicts = measure(results, run_id, target), index.recorded(run_id).of(target, "test")
                    assert (measured is None) == (verdicts is None)
            assert [index.is_intact(folder.run_id, TARGETS, ASKED) for folder in folders] == [True, False]
    run = index.recorded(SPECS[0].run_id).run
    assert run is not None
    assert (run["spec"], run["provenance"]) == (SPECS[0].model_dump(mode="json"), {"commit": "c0ffee", "dirty": False})


def test_what_has_just_changed_is_not_kept(results: Path) -> None:
    folder = finish(results, SPECS[0], {"counting": [1, 0, 1, 1]})
    for is_old in (False, True):
        if is_old:
            settle()
        with RunIndex(results, worth=1) as index:
            index.recorded(folder.run_id)
        with RunIndex(results) as index:
            assert index.knows(folder.run_id) == is_old
    folder.summary.touch()
    with RunIndex(results) as index:
        assert not index.knows(folder.run_id)


@pytest.mark.parametrize("damage", ["torn", "text", "list", "format", "folder", "entries"])
def test_an_index_that_cannot_be_used_is_made_again(results: Path, damage: str, monkeypatch: Any) -> None:
    run_id = finish(results, SPECS[0], {"counting": [1, 0, 1, 1]}).run_id
    settle()
    with RunIndex(results, worth=1) as index:
        expected = index.recorded(run_id)
    (file,) = (results / INDEX).iterdir()
    content = file.read_bytes()
    if damage == "torn":
        file.write_bytes(content[:-9])
    elif damage == "text":
        file.write_bytes(b"\xff\x00 no index")
    elif damage == "list":
        file.write_bytes(b"[]\n[]")
    elif damage == "entries":
        head, _, body = content.partition(b"\n")
        file.write_bytes(head + b"\n" + body.replace(b"c0ffee", b"c0ffe3"))
    elif damage == "format":
        monkeypatch.setattr(index_module, "FORMAT", (0,))
    else:
        shutil.rmtree(results / INDEX)
        (results / INDEX).write_text("in the way")
    with RunIndex(results, worth=1) as index:
        assert not index.knows(run_id)
        assert index.recorded(run_id) == expected
    with RunIndex(results) as index:
        assert index.knows(run_id) == (damage != "folder")


def test_it_is_written_only_where_that_is_worth_it(results: Path) -> None:
    run_ids = [finish(results, spec, {"counting": [1, 0]}).run_id for spec in SPECS[:2]]
    settle()
    with RunIndex(results, worth=2) as index:
        assert index.recorded(run_ids[0]) and index.recorded("sft-counting-s9-0123456789-v1").run is None
    assert not (results / INDEX).exists(), "a run without a folder is nothing to write down"
    with RunIndex(results, worth=2) as index:
        assert [index.recorded(run_id) for run_id in run_ids]
    assert [path.name for path in (results / INDEX).iterdir()] == ["recorded.json"]
    shutil.rmtree(RunFolder(results, run_ids[0]).path)
    (results / "runs" / SPECS[2].run_id).mkdir()
    with RunIndex(results, worth=1) as index:
        index.recorded(SPECS[2].run_id)
    kept = json.loads((results / INDEX / "recorded.json").read_text().partition("\n")[2])
    assert sorted(kept) == sorted([run_ids[1], SPECS[2].run_id]), "and one that was removed is forgotten"


def test_no_target_of_a_summary_leads_out_of_the_run_folder(results: Path) -> None:
    folder = finish(results, SPECS[0], {"counting": [1, 0]})
    outside = results / "outside.jsonl"
    outside.write_bytes(encode_jsonl([{"correct": True}]))
    names = {"../../../outside": {"num_examples": 1}, str(outside.with_suffix("")): {"num_examples": 1}, "..": {}}
    write_json(folder.summary, {"evaluations": names, "validations": names})
    with RunIndex(results) as index:
        assert index.recorded(folder.run_id).verdicts == {}
    assert [measure(results, folder.run_id, name) for name in names] == [None, None, None]


WRITER = """
import sys
from harness.record import index, remembered
from harness.record.folder import run_folders

remembered.MARGIN_NS = 0
for _ in range(25):
    with index.RunIndex(sys.argv[1], worth=0) as writer:
        for folder in run_folders(sys.argv[1]):
            writer.recorded(folder.run_id)
"""


def test_two_processes_write_at_the_same_time(results: Path) -> None:
    for spec in SPECS:
        finish(results, spec, {"counting": [1, 0, 1, 1], "geometry": [0, 0, 1, 0]})
    settle()
    with RunIndex(results, worth=1) as index:
        expected = [index.recorded(spec.run_id) for spec in SPECS]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(results)]) for _ in range(2)]
    num_looks = 0
    while any(writer.poll() is None for writer in writers):
        with RunIndex(results) as index:
            assert all(index.knows(spec.run_id) for spec in SPECS), "torn"
            assert [index.recorded(spec.run_id) for spec in SPECS] == expected
        num_looks += 1
    assert [writer.returncode for writer in writers] == [0, 0]
    assert num_looks > 10
    assert {path.suffix for path in (results / INDEX).iterdir()} == {".json"}, "nothing half-written is left"
