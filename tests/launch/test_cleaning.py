"""`harness clean`: what is found, what is spared, and that nothing else goes."""

from __future__ import annotations

import json
import os
import time

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.launch.cleaning import CATEGORIES, find_removable, remove
from harness.launch.presence import Presence
from harness.record.atomic import write_json
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.launches import LaunchRecord, write_launches
from harness.record.lease import claim
from harness.record.state import RunState, is_complete, write_state


@pytest.fixture
def there(sweep, results, run_ids, drive):
    """Three completed runs of a sweep on record."""
    assert drive(sweep).num_completed == 3
    return [RunFolder(results, run_id) for run_id in run_ids]


def names(found):
    return [(one.category, str(one.path.relative_to(one.path.parents[1]))) for one in found]


def everything(results, **options):
    return find_removable(results, set(CATEGORIES), **options)


def clean(results, *arguments, says=None):
    done = CliRunner().invoke(app, ["clean", *arguments, "--results", str(results)], input=says)
    return done.exit_code, done.stdout, done.stderr


def test_of_a_sweep_that_is_done_nothing_goes(results, there):
    assert everything(results) == []


def test_each_kind_is_found_and_removed_alone(sweep, results, there):
    first, second, third = there
    stray = RunFolder(results, "sft-counting-s9-0123456789-v1")
    stray.path.mkdir()
    (stray.path / "log.txt").write_text("x" * 5000)
    write_state(second, RunState(status="failed", error="no"), Files(second.path))
    second.summary.unlink()
    first.weights.mkdir()
    (first.weights / "model.safetensors").write_bytes(b"w" * 9000)
    third.quarantine.mkdir()
    (third.quarantine / "1-metrics.jsonl").write_text("torn")
    write_json(
        results / "drivers" / "gone.json",
        {
            "sweep": "small",
            "process": {"host": "h", "boot_id": None, "pid_namespace": None, "pid": 1, "started": 1},
            "lease_s": 1.0,
        },
    )
    os.utime(results / "drivers" / "gone.json", (1.0, 1.0))
    found = everything(results)
    assert names(found) == [
        ("orphaned", f"runs/{stray.run_id}"),
        ("failed", f"runs/{second.run_id}"),
        ("weights", f"{first.run_id}/weights"),
        ("leftovers", "drivers/gone.json"),
        ("leftovers", f"{third.run_id}/quarantine"),
    ]
    assert found[0].size >= 5000 and found[2].size >= 9000
    freed, left = remove(results, [one for one in found if one.category == "weights"])
    assert freed == found[2].size and left == []
    assert not first.weights.exists() and is_complete(first, ("counting",), sweep.evaluation)
    remove(results, everything(results))
    assert [path.name for path in sorted((results / "runs").iterdir())] == sorted([first.run_id, third.run_id])
    assert everything(results) == [] and not list((results / "drivers").iterdir())
    assert is_complete(third, ("counting",), sweep.evaluation)


def test_every_reason_lists_what_lies_in_a_folder_that_could_go_too(results, there):
    stray = RunFolder(results, "sft-counting-s9-0123456789-v1")
    there[0].path.rename(stray.path)
    stray.weights.mkdir()
    (stray.weights / "model.safetensors").write_bytes(b"w" * 9000)
    assert names(everything(results)) == [("orphaned", f"runs/{stray.run_id}")]
    found = everything(results, every_reason=True)
    assert names(found) == [
        ("orphaned", f"runs/{stray.run_id}"),
        ("superseded", f"runs/{stray.run_id}"),
        ("weights", f"{stray.run_id}/weights"),
    ]
    assert found[0].size == found[1].size > found[2].size >= 9000


def test_a_run_of_other_settings_by_now_is_superseded(results, there):
    first = there[0]
    record = json.loads(first.run_json.read_text())
    record["spec"]["seed"] = 77
    first.run_json.write_text(json.dumps(record))
    assert names(everything(results)) == [("superseded", f"runs/{first.run_id}")]


def test_who_works_on_a_run_keeps_it(results, there):
    first = there[0]
    write_state(first, RunState(status="failed", error="no"), Files(first.path))
    first.summary.unlink()
    (found,) = everything(results)
    lease = claim(first.path, 0)
    assert everything(results) == []
    assert remove(results, [found]) == (0, [first.run_id])
    assert first.run_json.exists()
    lease.release()
    assert remove(results, [found])[1] == []
    assert not first.path.exists()


def test_files_of_slurm_jobs_stay_until_their_runs_have_ended(results, there):
    first, second, _ = there
    folders = [results / "slurm" / f"small-{name}" for name in ("done", "failed", "queued")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "0.end.json").write_text("{}")
    done, failed, queued = ({"executor": "slurm", "folder": str(folder.absolute())} for folder in folders)
    write_launches(first, [LaunchRecord(1, 1.0, "", done)], Files(first.path))
    second.summary.unlink()
    records = [LaunchRecord(1, 1.0, "", failed, ended=2.0), LaunchRecord(2, 2.0, "", queued)]
    write_launches(second, records, Files(second.path))
    presence = Presence(results, "other", 60.0)
    assert everything(results) == []  # a driver may have submitted jobs that are not on record yet
    presence.close()
    found = everything(results)
    assert [one.path for one in found] == folders[:2]
    remove(results, found)
    assert [path.name for path in (results / "slurm").iterdir()] == ["small-queued"]


def test_by_age_and_by_sweep(results, there, run_ids):
    for folder in there:
        folder.weights.mkdir()
        (folder.weights / "model.safetensors").write_bytes(b"w")
    old = there[1].weights / "model.safetensors"
    os.utime(old, (time.time() - 10 * 86400,) * 2)
    weeks = find_removable(results, {"weights"}, older_than_s=7 * 86400)
    assert [one.path for one in weeks] == [there[1].weights]
    ones = find_removable(results, {"weights"}, run_ids={run_ids[2]})
    assert [one.path for one in ones] == [there[2].weights]


def test_a_link_is_never_followed(results, there, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "log.txt").write_text("mine")
    (results / "runs" / "sft-counting-s8-0123456789-v1").symlink_to(outside)
    assert everything(results) == []
    assert (outside / "log.txt").read_text() == "mine"


def test_the_verb_shows_first_and_removes_what_it_is_told_to(results, there, run_ids):
    for folder in there:
        folder.weights.mkdir()
        (folder.weights / "model.safetensors").write_bytes(b"w" * 9000)
    code, told, _ = clean(results)
    assert code == 0
    assert [line.split()[:2] for line in told.splitlines()] == [
        ["--orphaned", "0"],
        ["--failed", "0"],
        ["--superseded", "0"],
        ["--weights", "3"],
        ["--leftovers", "0"],
    ]
    assert "36.0 KiB" in told.splitlines()[3]  # blocks of 4096 bytes
    code, _, error = clean(results, "--yes")
    assert code == 2 and error == "--yes removes nothing by itself: say what, such as --failed or --weights\n"
    code, told, _ = clean(results, "--weights", says="n\n")
    assert code == 1 and all(f"runs/{run_id}/weights\n" in told for run_id in run_ids)
    assert all(folder.weights.exists() for folder in there)
    code, told, _ = clean(results, "--weights", "--sweep", "small", says="y\n")
    assert code == 0 and told.endswith("removed, 36.0 KiB set free\n")
    assert not any(folder.weights.exists() for folder in there)
    assert clean(results, "--weights") == (0, "nothing to remove\n", "")


def test_the_verb_leaves_alone_what_somebody_works_on(results, there):
    first, second, _ = there
    for folder in (first, second):
        folder.weights.mkdir()
    worker = claim(first.path, 0)
    code, told, _ = clean(results, "--weights", "--yes")
    assert code == 0 and second.run_id in told and first.run_id not in told
    assert first.weights.exists() and not second.weights.exists()
    worker.release()
