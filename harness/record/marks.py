"""What the files of rows held when a checkpoint was made, so that a run goes on from all of it or begins again.

A checkpoint stands for steps whose rows are on record before it. Should a file have lost some of them since, the steps
that the checkpoint skips would never be told of again; `marks.json` has each file's length and SHA-256 at the last
checkpoints.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.record.atomic import file_digest, read_json
from harness.record.files import Files
from harness.record.folder import RunFolder

KEPT = 3
"""Marks on record; a writer may be killed between a mark and its checkpoint."""


def write_mark(folder: RunFolder, files: Files, step: int) -> None:
    """Notes what the files of rows hold when `step` steps are done.

    Raises:
        FencedError: The folder has another owner.
    """
    contents = {
        path.name: {"bytes": path.stat().st_size, "sha256": file_digest(path)} for path in folder.rows if path.exists()
    }
    marks = [mark for mark in _marks(folder) if mark["step"] < step]
    files.write_json(folder.marks, {"marks": [*marks, {"step": step, "files": contents}][-KEPT:]})


def last_step(folder: RunFolder) -> int:
    """The steps done at the last mark; 0 where there is none."""
    return max((mark["step"] for mark in _marks(folder)), default=0)


def lost_rows(folder: RunFolder, step: int) -> list[Path]:
    """The files that no longer begin with what they held when `step` steps were done; none where there is no mark."""
    mark = next((mark for mark in _marks(folder) if mark["step"] == step), None)
    return [] if mark is None else [folder.path / name for name in mark["files"] if not _begins(folder, name, mark)]


def _begins(folder: RunFolder, name: str, mark: dict[str, Any]) -> bool:
    try:
        noted = mark["files"][name]
        content, digest = (folder.path / name).read_bytes()[: noted["bytes"]], noted["sha256"]
    except (FileNotFoundError, KeyError, TypeError):  # lost, or nobody can tell any more
        return False
    return hashlib.sha256(content).hexdigest() == digest


def _marks(folder: RunFolder) -> list[dict[str, Any]]:
    try:
        marks = read_json(folder.marks)["marks"]
        return [mark for mark in marks if isinstance(mark["step"], int) and isinstance(mark["files"], dict)]
    except (FileNotFoundError, DataError, KeyError, TypeError):
        return []
