"""Disks that are full or read-only: small file systems in memory, and the kernel's own refusals."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from small_disk import small_disk
from sweep_contents import everything

from harness.errors import UserError
from harness.record.folder import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a file system of its own"),
]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts small file systems in memory, and takes them away again."""
    with contextlib.ExitStack() as mounts:
        yield lambda mib: mounts.enter_context(small_disk(tmp_path / f"disk{mib}", mib << 20))


def make_room_when_paused(results: Path, told: list[str], over: threading.Event) -> None:
    """Removes the ballast once it has stopped growing; what failed to be written gives a little room back meanwhile."""
    ballast, size = results / "ballast", 0
    while not over.wait(1.0):
        before, size = size, ballast.stat().st_size if ballast.exists() else 0
        if size and size == before:
            ballast.unlink()
            told.append("made room")


@pytest.mark.parametrize("what", ["metrics.jsonl", "checkpoint.safetensors", "eval/geometry.jsonl", "summary.json"])
def test_a_full_disk_pauses_the_sweep(what, run, sweep, undisturbed, mounted):
    """The disk fills up to its last byte just before the file is written, in every run at the first attempt."""
    results = mounted(400)
    over, told_by_us = threading.Event(), []
    thread = threading.Thread(target=make_room_when_paused, args=(results, told_by_us, over))
    thread.start()
    try:
        name = Path(what).name
        outcome, told = run(results, {"*": [{"do": "fill", "path": name}]})
    finally:
        over.set()
        thread.join()
    assert told_by_us, told
    assert (outcome.num_completed, outcome.num_failed) == (3, 0), told
    assert f"paused: the disk of {results} is full; the sweep goes on by itself once there is room" in told
    assert "going on: there is room on the disk again" in told
    assert everything(sweep, results) == undisturbed


def test_a_run_folder_that_is_read_only_fails_alone(run, sweep, undisturbed, mounted, tmp_path):
    results = tmp_path / "results"
    closed = list(sweep.runs)[1]
    disk = mounted(1)
    folder = RunFolder(results, closed)
    folder.path.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(disk), str(folder.path)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder.path)], check=True)
        outcome, told = run(results)
        assert (outcome.num_completed, outcome.num_failed) == (2, 1), told
        assert f"failed     {closed}: {folder.path} cannot be written to: [Errno 30] Read-only file system" in told
    finally:
        subprocess.run(["umount", str(folder.path)], check=True)
    outcome, told = run(results)
    assert outcome.num_completed == 3, told
    assert everything(sweep, results) == undisturbed


def test_a_results_folder_that_is_read_only_is_one_sentence(run, mounted):
    results = mounted(1)
    subprocess.run(["mount", "-o", "remount,ro", str(results)], check=True)
    with pytest.raises(UserError, match=f"^{results} cannot be written to: read-only file system$"):
        run(results)
