from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time

import pytest

from harness.errors import DataError
from harness.record.atomic import (
    read_json,
    read_jsonl,
    remove_temporaries,
    write_json,
    write_jsonl,
    write_text,
)
from harness.record.files import Files

WRITER = """
import sys
from pathlib import Path
from harness.record.atomic import write_json, write_jsonl
from harness.record.files import Files
folder = Path(sys.argv[1])
files = Files(folder)
number = 0
while True:
    rows = [{"number": number, "text": "x" * 40_000}] * 5
    write_json(folder / "value.json", rows)
    write_jsonl(folder / "whole.jsonl", rows)
    files.append_jsonl(folder / "rows.jsonl", rows)
    number += 1
"""


def test_what_is_written_is_read(tmp_path):
    value = {"a": [1, 0.1, None, True], "text": "zwölf\n"}
    write_json(tmp_path / "new" / "value.json", value)
    assert read_json(tmp_path / "new" / "value.json") == value
    write_jsonl(tmp_path / "rows.jsonl", ({"a": number} for number in (1, 2)))
    assert read_jsonl(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]
    assert (tmp_path / "rows.jsonl").read_text() == '{"a": 1}\n{"a": 2}\n'
    write_jsonl(tmp_path / "rows.jsonl", [])
    assert read_jsonl(tmp_path / "rows.jsonl") == []


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    file = tmp_path / "value.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(file, {"a": float("nan")})
    with pytest.raises(ValueError, match="Out of range float"):
        write_jsonl(file, [{"b": 1}, {"b": float("inf")}])
    with pytest.raises(UnicodeEncodeError):
        write_text(file, "\ud800")
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("tail", [b'{"a": 3', b"{", b"\xc3", b"\0\0\0\0", b"3"])
def test_a_torn_last_line_is_dropped(tmp_path, tail):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a": 1}\n{"a": 2}\n' + tail)
    assert read_jsonl(file) == [{"a": 1}, {"a": 2}]


def test_a_torn_only_line_is_dropped(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a"')
    assert read_jsonl(file) == []


def test_a_last_line_that_lacks_only_its_newline_is_kept(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}')
    assert read_jsonl(file) == [{"a": 1}]


@pytest.mark.parametrize("line", ["{", "", "3"])
def test_a_bad_line_elsewhere_is_an_error_with_file_and_line(tmp_path, line):
    file = tmp_path / "rows.jsonl"
    file.write_text(f'{{"a": 1}}\n{line}\n{{"a": 3}}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not a JSON object"):
        read_jsonl(file)


def test_broken_json_is_an_error_with_the_file(tmp_path):
    file = tmp_path / "value.json"
    file.write_text("{")
    with pytest.raises(DataError, match=r"value\.json is not valid JSON"):
        read_json(file)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "absent.json")


def test_a_writer_killed_anywhere_leaves_files_whole_or_absent(tmp_path):
    rows = []
    for attempt in range(6):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        before = rows
        end = time.monotonic() + 20
        size = sum(file.stat().st_size for file in tmp_path.glob("*.jsonl"))
        while sum(file.stat().st_size for file in tmp_path.glob("*.jsonl")) <= size:
            assert writer.poll() is None
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(0.003 * attempt)
        writer.send_signal(signal.SIGKILL)
        writer.wait()

        for file in (tmp_path / "value.json", tmp_path / "whole.jsonl"):
            if file.exists():
                content = read_json(file) if file.suffix == ".json" else read_jsonl(file)
                assert len(content) == 5
                assert len({json.dumps(row) for row in content}) == 1
        if (tmp_path / "rows.jsonl").exists():
            rows = read_jsonl(tmp_path / "rows.jsonl")
            assert rows[: len(before)] == before
            assert all(len(row["text"]) == 40_000 for row in rows)
    assert rows
    with contextlib.closing(Files(tmp_path)) as files:
        files.append_jsonl(tmp_path / "rows.jsonl", {"number": -1})
    assert read_jsonl(tmp_path / "rows.jsonl") == [*rows, {"number": -1}]
    remove_temporaries(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} <= {"value.json", "whole.jsonl", "rows.jsonl"}
