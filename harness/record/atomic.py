"""Files that are whole or absent, and JSONL that loses at most the line being written.

A whole file goes to a temporary name in the same folder, is forced to disk and takes its final name in one step. Lines
are appended (:mod:`harness.record.files`) without forcing them to disk, one call per training step being too dear for
that; :func:`sync` does it where a checkpoint is made. A writer killed in the middle of a line leaves a tail without a
newline, which readers drop.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.errors import DataError

TEMPORARY_SUFFIX = ".tmp"


def write_text(path: Path, text: str) -> None:
    """Writes a whole UTF-8 file: after a crash it holds the old content or the new, never a part.

    That the new one outlasts a loss of power takes a :func:`sync` of the folder too, which doubles the cost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}-{threading.get_ident()}{TEMPORARY_SUFFIX}"
    try:
        with temporary.open("wb") as stream:
            stream.write(text.encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Writes one JSON value as a whole file, indented.

    Raises:
        ValueError: A number is not finite; JSON has no word for it.
        TypeError: A value is nothing that JSON knows.
    """
    write_text(path, encode_json(value).decode())


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object per line as a whole file.

    Raises:
        ValueError: A number is not finite.
    """
    write_text(path, encode_jsonl(rows).decode())


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: The file is not JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error


def read_json_or(path: Path, otherwise: Any) -> Any:
    """The value of a JSON file; something else where the file is missing, torn, or of another type than that."""
    try:
        value = read_json(path)
    except (FileNotFoundError, DataError):
        return otherwise
    return value if isinstance(value, type(otherwise)) else otherwise


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, without the last line where it was torn.

    Torn means that the last line neither ends in a newline nor holds a whole object.

    Raises:
        FileNotFoundError: There is no such file.
        DataError: Any other line is not a JSON object; names file and line.
    """
    *lines, tail = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        row = _object(line)
        if row is None:
            raise DataError(f"{path}:{number}: not a JSON object")
        rows.append(row)
    last = _object(tail)
    return rows if last is None else [*rows, last]


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Forces a file, or the names in a folder, to disk; a missing path is nothing to force."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, PermissionError):  # Windows opens no folder
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes the temporary files that killed writers left in a folder and the folders below it."""
    for path in folder.glob(f"**/.*{TEMPORARY_SUFFIX}"):
        path.unlink(missing_ok=True)


def encode_json(value: Any) -> bytes:
    """One JSON value, indented, as a file holds it.

    Raises:
        ValueError: A number is not finite; JSON has no word for it.
        TypeError: A value is nothing that JSON knows.
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def encode_jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object per line, as a file holds them.

    Raises:
        ValueError: A number is not finite.
    """
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows).encode()


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
