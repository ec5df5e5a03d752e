"""The one way to write into a folder that has an owner: whole files through the owner's stage, rows into its own files.

An owner may lose the folder without noticing, because it was stopped for longer than its lease. The next owner removes
the stage of the one before, so a file that was half way under another name can no longer take its final one; and it
replaces each file of rows by a copy, so a line that comes late ends in a file without a name. Neither depends on the
moment at which the late owner wakes up.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from harness.errors import FencedError
from harness.record.atomic import TEMPORARY_SUFFIX, encode_json, encode_jsonl, read_jsonl


class Files:
    """Writes files of one folder for one owner.

    Args:
        stage: The owner's folder for unfinished files, on the same file system: that of its lease, or, for files that
            nobody else writes, their own folder. It is not made here: where it is missing, another has taken over.
    """

    def __init__(self, stage: Path) -> None:
        self.stage = stage
        self._rows: dict[Path, IO[bytes]] = {}

    def check(self) -> None:
        """Does nothing for the owner.

        Raises:
            FencedError: The folder has another owner.
        """
        if not self.stage.is_dir():
            raise FencedError(f"another process has taken over: {self.stage} is gone")

    @contextlib.contextmanager
    def replacing(self, path: Path) -> Iterator[Path]:
        """Gives a path to write a file or a folder at, which takes its final name at the end of the block.

        Raises:
            FencedError: The folder has another owner; nothing has changed.
        """
        temporary = self.stage / f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"
        self.check()
        try:
            yield temporary
            os.replace(temporary, path)
        except FileNotFoundError:
            self.check()
            raise
        finally:
            _remove(temporary)

    def take_away(self, path: Path, to: Path | None = None) -> None:
        """Moves a file or a folder, or removes it, by way of the stage: a late owner does not touch what is another's.

        Raises:
            FencedError: The folder has another owner.
            FileNotFoundError: There is no such file.
        """
        self.forget(path)
        passing = self.stage / f".{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"
        try:
            os.rename(path, passing)
            if to is not None:
                os.rename(passing, to)
        except FileNotFoundError:
            self.check()
            raise
        finally:
            _remove(passing)

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Writes a whole file: after a crash it holds the old content or the new, never a part.

        Raises:
            FencedError: The folder has another owner.
        """
        self.check()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self.replacing(path) as temporary, temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())

    def write_json(self, path: Path, value: Any) -> None:
        """Writes one JSON value as a whole file, indented.

        Raises:
            FencedError: The folder has another owner.
            ValueError: A number is not finite; JSON has no word for it.
        """
        self.write_bytes(path, encode_json(value))

    def write_jsonl(self, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
        """Writes one JSON object per line as a whole file.

        Raises:
            FencedError: The folder has another owner.
            ValueError: A number is not finite.
        """
        self.forget(path)
        self.write_bytes(path, encode_jsonl(rows))

    def append_jsonl(self, path: Path, rows: Mapping[str, Any] | Iterable[Mapping[str, Any]]) -> None:
        """Appends rows in a single write; the first time, to a copy of the file without its torn last line.

        Raises:
            FencedError: The folder has another owner.
            ValueError: A number is not finite; nothing is written.
        """
        content = encode_jsonl([rows] if isinstance(rows, Mapping) else rows)
        stream = self._rows.get(path)
        if stream is None:
            self.write_bytes(path, encode_jsonl(read_jsonl(path) if path.exists() else ()))
            stream = self._rows[path] = open(path, "ab", buffering=0)  # noqa: SIM115 - stays open
        self.check()
        at = stream.seek(0, os.SEEK_END)
        try:
            written = stream.write(content)
            if written != len(content):
                raise OSError(28, os.strerror(28), str(path))
        except OSError:
            with contextlib.suppress(OSError):
                stream.truncate(at)
            raise

    def forget(self, path: Path) -> None:
        """Closes a file of rows that is about to be replaced or moved."""
        stream = self._rows.pop(path, None)
        if stream is not None:
            stream.close()

    def close(self) -> None:
        """Closes every file."""
        for path in list(self._rows):
            self.forget(path)


def _remove(path: Path) -> None:
    """Removes what is left of an unfinished file or folder: on a full disk it may be all that is in the way."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
