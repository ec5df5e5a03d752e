"""What files of rows held at a checkpoint, and whether they still begin so."""

from __future__ import annotations

import hashlib

import pytest

from harness.errors import FencedError
from harness.record.atomic import read_json, write_json
from harness.record.files import Files
from harness.record.marks import KEPT, last_step, lost_rows, write_mark

FIRST = b'{"step": 0}\n'


@pytest.fixture
def marked(folder, files):
    """Two steps on record, a mark after each, and a row behind the last mark."""
    for step in range(2):
        files.append_jsonl(folder.metrics, {"step": step})
        write_mark(folder, files, step + 1)
    files.append_jsonl(folder.metrics, {"step": 2})
    return folder


def test_a_mark_is_what_the_files_held(marked):
    first, second = read_json(marked.marks)["marks"]
    assert first == {
        "step": 1,
        "files": {"metrics.jsonl": {"bytes": 12, "sha256": hashlib.sha256(FIRST).hexdigest()}},
    }
    assert (second["step"], second["files"]["metrics.jsonl"]["bytes"]) == (2, 24)
    assert last_step(marked) == 2


def test_rows_behind_a_mark_are_free_and_those_before_it_are_not(marked):
    assert [lost_rows(marked, step) for step in (1, 2)] == [[], []]
    content = marked.metrics.read_bytes()
    assert len(content) == 36
    marked.metrics.write_bytes(content[:24])
    assert [lost_rows(marked, step) for step in (1, 2)] == [[], []]
    marked.metrics.write_bytes(content[:23])
    assert [lost_rows(marked, step) for step in (1, 2)] == [[], [marked.metrics]]
    marked.metrics.write_bytes(content.replace(b"0", b"1", 1))
    assert [lost_rows(marked, step) for step in (1, 2)] == [[marked.metrics]] * 2
    marked.metrics.unlink()
    assert [lost_rows(marked, step) for step in (1, 2)] == [[marked.metrics]] * 2


def test_without_a_mark_nothing_can_be_told(marked):
    assert lost_rows(marked, 3) == []
    marked.marks.unlink()
    assert (lost_rows(marked, 2), last_step(marked)) == ([], 0)


def test_the_last_marks_are_kept_and_those_of_steps_to_be_made_again_are_not(marked, files):
    for step in range(3, 7):
        write_mark(marked, files, step)
    assert [mark["step"] for mark in read_json(marked.marks)["marks"]] == list(range(7 - KEPT, 7))
    write_mark(marked, files, 5)  # gone on from step 4
    assert [mark["step"] for mark in read_json(marked.marks)["marks"]] == [4, 5]


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"marks": 3}', '{"marks": [3]}', '{"marks": [{"step": 1}]}'])
def test_marks_that_cannot_be_read_are_none(marked, content):
    marked.marks.write_text(content)
    assert (lost_rows(marked, 2), last_step(marked)) == ([], 0)


@pytest.mark.parametrize("noted", [3, None, {}, {"bytes": 12}, {"bytes": "12", "sha256": "x"}, {"bytes": 12.5}])
def test_a_mark_that_tells_of_nothing_is_not_met(marked, noted):
    write_json(marked.marks, {"marks": [{"step": 1, "files": {"metrics.jsonl": noted}}]})
    assert lost_rows(marked, 1) == [marked.metrics]


def test_one_who_was_passed_over_marks_nothing(marked):
    before = marked.marks.read_bytes()
    with pytest.raises(FencedError):
        write_mark(marked, Files(marked.path / "lease" / "1" / "gone"), 3)
    assert marked.marks.read_bytes() == before
