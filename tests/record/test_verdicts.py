"""Two bits per example, and none where the file is not the one that the summary was made from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from harness.record.atomic import encode_jsonl
from harness.record.folder import RunFolder
from harness.record.verdicts import sound_rows, verdicts_of

ROWS = [
    {"correct": True, "format": 1.0},
    {"correct": False, "format": 0.0},
    {"correct": True, "format": 1.0},
    {"correct": True, "format": 1.0},
    {"correct": False, "format": 0.0},
    {"correct": False, "format": 0.0},
    {"correct": False, "format": 0.0},
    {"correct": False, "format": 0.0},
    {"correct": True, "format": None},
]
CONTENT = encode_jsonl(ROWS)
COUNTED = {"num_examples": 9, "num_correct": 4}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path, "run")
    folder.evaluation("counting").parent.mkdir(parents=True)
    folder.evaluation("counting").write_bytes(CONTENT)
    return folder


def summary(counted: Any = COUNTED, content: bytes | None = CONTENT) -> dict[str, Any]:
    noted = content and {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return {"evaluations": {"counting": counted}} | ({"files": {"eval/counting.jsonl": noted}} if noted else {})


def test_bits_by_hand() -> None:
    found = verdicts_of(ROWS)
    # 1011 0000 1 and 1011 0000 0, filled up with zeros to whole bytes.
    assert found == (9, "b080", "b000", 8)
    assert [found.num_correct(first) for first in (1, 2, 3, 4, 8, 9)] == [1, 1, 2, 3, 3, 4]
    assert [found.format_frac(first) for first in (1, 2, 8, 9)] == [1.0, 0.5, 3 / 8, None]
    assert verdicts_of([]) == (0, "", "", 0)


def test_rows_that_the_summary_was_made_from(folder: RunFolder) -> None:
    assert sound_rows(folder, "counting", "test", summary()) == ROWS
    assert sound_rows(folder, "counting", "test", summary(content=None)) == ROWS, "a summary of an older version"
    assert sound_rows(folder, "counting", "test", summary({"num_examples": 2}, None)) == ROWS
    assert sound_rows(folder, "counting", "validation", summary()) is None
    assert sound_rows(folder, "geometry", "test", summary()) is None
    assert sound_rows(folder, "counting", "test", None) is None


@pytest.mark.parametrize(
    "content",
    [
        CONTENT[:-1],  # torn in its last byte alone
        CONTENT[:-5],
        CONTENT + b'{"correct": true}\n',
        CONTENT.replace(b"true", b"null", 1),  # as many bytes
        b"",
    ],
)
def test_another_file_is_no_evidence(folder: RunFolder, content: bytes) -> None:
    folder.evaluation("counting").write_bytes(content)
    assert sound_rows(folder, "counting", "test", summary()) is None


@pytest.mark.parametrize(
    "content",
    [
        CONTENT[:-5],  # eight whole rows
        CONTENT.replace(b"}\n{", b"}{", 1),
        CONTENT.replace(b"}\n{", b"},{", 1),
        CONTENT.replace(b"}\n{", b"},{", 1).replace(b"}\n{", b"}\n\n{", 1),
        CONTENT.replace(b"true", b"false", 1),  # three right answers
        CONTENT.replace(b"correct", b"correcd", 1),
        b"\xff" + CONTENT,
        b"[1]\n" * 9,
        b"",
    ],
)
def test_damage_is_seen_without_a_digest_too(folder: RunFolder, content: bytes) -> None:
    folder.evaluation("counting").write_bytes(content)
    assert sound_rows(folder, "counting", "test", summary(content=None)) is None


@pytest.mark.parametrize("counted", [{}, {"num_examples": None}, {"num_examples": 0}, {"num_examples": "9"}, 9, None])
def test_a_summary_that_counts_nothing_has_no_rows(folder: RunFolder, counted: Any) -> None:
    assert sound_rows(folder, "counting", "test", summary(counted)) is None


def test_a_missing_file_or_folder_is_no_evidence(folder: RunFolder, tmp_path: Path) -> None:
    folder.evaluation("counting").unlink()
    assert sound_rows(folder, "counting", "test", summary()) is None
    assert sound_rows(RunFolder(tmp_path, "other"), "counting", "test", summary()) is None
