"""Writes into a folder that has an owner: whole or not at all, and nothing by one who has lost it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from small_disk import fill, small_disk

from harness.errors import DataError, FencedError
from harness.record.atomic import read_json, read_jsonl
from harness.record.files import Files
from harness.record.lease import claim, read_owner, reserve

TAKEN_OVER = Path(__file__).with_name("taken_over.py")


@pytest.fixture
def files(tmp_path):
    """Those of an owner."""
    files = claim(tmp_path, 0).files
    yield files
    files.close()


def take_over(folder):
    (folder / "pulse").touch()
    return reserve(folder, read_owner(folder), pulse=folder / "pulse").files


def names(folder):
    """All but the leases, and what is in the stage."""
    stage = [path.name for path in folder.glob("lease/*/*/*")]
    return sorted(path.name for path in folder.iterdir() if path.name not in ("lease", "pulse")) + stage


def test_what_is_written_is_read(files, tmp_path):
    value = {"a": [1, 0.1, None, True], "text": "zwölf\n"}
    files.write_json(tmp_path / "new" / "value.json", value)
    assert read_json(tmp_path / "new" / "value.json") == value
    files.append_jsonl(tmp_path / "rows.jsonl", {"a": 1})
    files.append_jsonl(tmp_path / "rows.jsonl", ({"a": number} for number in (2, 3)))
    assert (tmp_path / "rows.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n{"a": 3}\n'
    files.write_jsonl(tmp_path / "rows.jsonl", [{"a": 9}])
    files.append_jsonl(tmp_path / "rows.jsonl", {"a": 10})  # to the new file
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 9}, {"a": 10}]
    assert names(tmp_path) == ["new", "rows.jsonl"]


@pytest.mark.parametrize("tail", [b'{"a": 3', b"{", b"\xc3", b"\0\0\0\0"])
def test_a_torn_last_line_is_dropped_before_the_first_append(files, tmp_path, tail):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2}\n' + tail)
    files.append_jsonl(file, {"a": 4})
    assert file.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a": 4}\n'


def test_rows_that_cannot_be_read_are_not_appended_to(files, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2"):
        files.append_jsonl(file, {"a": 3})
    assert file.read_text() == '{"a": 1}\n{\n{"a": 2}\n'


def test_a_failed_write_leaves_the_old_file_and_no_other(files, tmp_path):
    file = tmp_path / "value.json"
    files.write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        files.write_json(file, {"a": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        files.append_jsonl(tmp_path / "rows.jsonl", [{"b": 1}, {"b": float("inf")}])
    with pytest.raises(RuntimeError, match="half way"), files.replacing(file) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError("half way")
    assert read_json(file) == {"a": 1}
    assert names(tmp_path) == ["value.json"]


def test_a_folder_takes_its_place_whole_or_not_at_all(files, tmp_path):
    with pytest.raises(RuntimeError, match="half way"), files.replacing(tmp_path / "weights") as unfinished:
        unfinished.mkdir()
        (unfinished / "a").write_text("half")
        raise RuntimeError("half way")
    assert names(tmp_path) == []
    with files.replacing(tmp_path / "weights") as unfinished:
        unfinished.mkdir()
        (unfinished / "a").write_text("whole")
        assert not (tmp_path / "weights").exists()
    assert (tmp_path / "weights" / "a").read_text() == "whole"
    assert names(tmp_path) == ["weights"]


def test_nothing_that_was_begun_ends_after_a_take_over(files, tmp_path):
    file, rows = tmp_path / "value.json", tmp_path / "rows.jsonl"
    files.write_json(file, 1)
    files.append_jsonl(rows, {"a": 1})
    (tmp_path / "old").write_text("old")
    with pytest.raises(FencedError), files.replacing(file) as unfinished:
        unfinished.write_text("2")
        second = take_over(tmp_path)
    late = (
        lambda: files.write_json(file, 2),
        lambda: files.write_jsonl(rows, []),
        lambda: files.append_jsonl(rows, {"a": 2}),
        lambda: files.append_jsonl(tmp_path / "others.jsonl", {"a": 2}),
        lambda: files.take_away(tmp_path / "old"),
        lambda: files.take_away(tmp_path / "old", tmp_path / "new"),
        files.check,
    )
    for each in late:
        with pytest.raises(FencedError, match="another process has taken over"):
            each()
    assert read_json(file) == 1
    assert (tmp_path / "old").read_text() == "old"
    second.append_jsonl(rows, {"a": 3})
    assert read_jsonl(rows) == [{"a": 1}, {"a": 3}]
    second.close()
    assert names(tmp_path) == ["old", "rows.jsonl", "value.json"]


def test_a_line_that_comes_late_ends_in_a_file_without_a_name(files, tmp_path, monkeypatch):
    rows = tmp_path / "rows.jsonl"
    files.append_jsonl(rows, {"a": 1})
    second = take_over(tmp_path)
    second.append_jsonl(rows, {"a": 2})
    # As one who was stopped between his look at the stage and his write.
    monkeypatch.setattr(Files, "check", lambda self: None)
    files.append_jsonl(rows, {"a": 3})
    assert read_jsonl(rows) == [{"a": 1}, {"a": 2}]
    second.close()


def test_what_is_taken_away_is_gone_or_elsewhere(files, tmp_path):
    (tmp_path / "a").write_text("a")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("b")
    files.take_away(tmp_path / "a", tmp_path / "c")
    files.take_away(tmp_path / "folder")
    assert (tmp_path / "c").read_text() == "a"
    assert names(tmp_path) == ["c"]
    with pytest.raises(FileNotFoundError):
        files.take_away(tmp_path / "a")
    files.append_jsonl(tmp_path / "rows.jsonl", {"a": 1})
    files.take_away(tmp_path / "rows.jsonl")
    files.append_jsonl(tmp_path / "rows.jsonl", {"a": 2})
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 2}]


@pytest.mark.skipif(sys.platform == "win32", reason="signals that stop a process are POSIX's")
@pytest.mark.parametrize("num_moments", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_one_who_was_stopped_anywhere_changes_nothing_that_the_next_has_written(tmp_path, num_moments):
    # In memory, where there is such a disk: thousands of forced writes take their time on another.
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        command = [sys.executable, str(TAKEN_OVER), folder, str(num_moments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    interrupted = json.loads(done.stdout)
    assert sum(interrupted) == num_moments
    assert num_moments < 200 or all(interrupted), "some kind of work was never interrupted"


def test_a_disk_that_is_full_leaves_whole_rows_and_nothing_else(tmp_path):
    with small_disk(tmp_path / "disk", 64 * 4096) as disk:
        folder = disk / "run"
        files = claim(folder, 0).files
        rows, value = folder / "rows.jsonl", folder / "value.json"
        files.write_json(value, {"a": 1})
        files.append_jsonl(rows, {"number": 0})
        ballast = fill(disk, leave=5 * 4096)
        written = 1
        with pytest.raises(OSError, match="No space left") as raised:
            while True:
                files.append_jsonl(rows, [{"number": written, "text": "x" * 3000}])
                written += 1
        assert raised.value.errno == errno.ENOSPC
        assert written > 2
        assert [row["number"] for row in read_jsonl(rows)] == list(range(written))
        assert rows.read_bytes().endswith(b'"}\n')
        fill_again = disk / "rest"
        with fill_again.open("wb", buffering=0) as stream, pytest.raises(OSError):
            while True:
                stream.write(bytes(512))
        with pytest.raises(OSError, match="No space left"):
            files.write_json(value, {"a": "x" * 9000})
        with pytest.raises(OSError, match="No space left"), files.replacing(folder / "weights") as unfinished:
            unfinished.mkdir()
            (unfinished / "a").write_bytes(bytes(100_000))
        assert names(folder) == ["rows.jsonl", "value.json"]
        assert read_json(value) == {"a": 1}
        fill_again.unlink(), ballast.unlink()
        files.append_jsonl(rows, {"number": written})
        assert [row["number"] for row in read_jsonl(rows)] == list(range(written + 1))
        files.close()


LIMITED = """
import json, resource, signal, sys
from pathlib import Path
from harness.record.lease import claim
files = claim(Path(sys.argv[1]), 0).files
rows = Path(sys.argv[1], "rows.jsonl")
files.append_jsonl(rows, {"number": 0})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
errors = []
for number in range(1, 8):
    try:
        files.append_jsonl(rows, {"number": number, "text": "x" * 3000})
    except OSError as error:
        errors.append(error.errno)
files.append_jsonl(rows, {"number": 8})
print(json.dumps(errors))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on files is Linux's")
def test_a_write_that_is_cut_short_leaves_whole_rows(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    # Three rows of 3 kB fit into 10 kB; the fourth is written in part.
    assert json.loads(done.stdout) == [errno.ENOSPC] * 4
    assert [row["number"] for row in read_jsonl(tmp_path / "rows.jsonl")] == [0, 1, 2, 3, 8]
