"""Values made from the files of run folders, kept while those files are what they were.

`<results>/.index/<table>.json` has by run a value, and what the files that it was made from were when they were read:
inode, size, time of modification and time of change, to the nanosecond. A value is believed while all of them are the
same. A file that was changed less than :data:`MARGIN_NS` before it was read could be changed again without a trace, by
the grain of a file system's clock, so what was made of it is not kept (the rule of git's index, which calls such a file
racily clean: https://git-scm.com/docs/racy-git). That takes the clock of the file system alone: the age of a reading is
counted back, by a clock that nobody sets, from the time that the table's own new file has there.

A table that is missing, torn, of another format, or cannot be written is no error. Whatever it lacks is read, so the
answer is the same, and only slower. Several processes may write at the same time: the last one wins. On a network file
system, what another machine has changed is seen as late as that file system's cache of times allows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from harness.errors import HarnessError
from harness.record.files import Files
from harness.record.folder import RunFolder, is_name

INDEX = ".index"

MARGIN_NS = 2_000_000_000
"""The coarsest clock of a file system in use: FAT's, of two seconds."""

WORTH = 256
"""Runs that have to be read before it is worth writing them down: about half a second."""

Identity = list[int] | None
"""What tells a file from what it was; None for a file that is not there."""


class Sight:
    """Notes what files are before they are read."""

    def __init__(self, folder: RunFolder) -> None:
        self.since = _now()
        self.files: dict[str, Identity] = {}
        self._folder = folder.path

    def note(self, *paths: Path) -> None:
        """What these files of the folder are now."""
        for path in paths:
            self.files[path.relative_to(self._folder).as_posix()] = _identity(str(path))


class Table:
    """One file of the index: by run a JSON value, with the files that it was made from.

    Args:
        results: The results folder.
        name: Of the table.
        form: Another one for each way to make values from the same files.
        worth: Runs that have to be read before the table is written.
        absent: The value of a run that has no folder.
    """

    def __init__(self, results: Path, name: str, form: Sequence[object], worth: int, absent: Any) -> None:
        self._results = results
        self._form = list(form)
        self._absent = absent
        self._runs = str(results / "runs")
        self._path = results / INDEX / f"{name}.json"
        self._worth = worth
        self._kept: dict[str, Any] | None = None
        self._read: dict[str, tuple[Sight, Any]] = {}

    def look(self, run_id: str, make: Callable[[RunFolder, Sight], Any]) -> Any:
        """The value of a run: the one on record while it can be believed, else made anew."""
        if self.knows(run_id):
            return self._entries[run_id][1]
        if not os.path.isdir(f"{self._runs}/{run_id}"):
            return self._absent
        folder = RunFolder(self._results, run_id)
        sight = Sight(folder)
        value = make(folder, sight)
        self._read[run_id] = sight, value
        return value

    @property
    def _entries(self) -> dict[str, Any]:
        if self._kept is None:
            self._kept = _load(self._path, self._form)
        return self._kept

    def knows(self, run_id: str) -> bool:
        """Whether the value of a run is on record, and can be believed."""
        entry = self._entries.get(run_id)
        if entry is None:
            return False
        files: Mapping[str, Identity] = entry[0]
        folder = f"{self._runs}/{run_id}/"
        try:
            for name, identity in files.items():
                if _identity(folder + name) != identity:
                    return False
        except OSError:
            return False
        return True

    def keep(self) -> None:
        """Writes the table where enough is new; nothing stands in the way of going on without."""
        if len(self._read) < self._worth:
            return
        with contextlib.suppress(OSError, HarnessError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with Files(self._path.parent).replacing(self._path) as temporary:
                temporary.touch()
                clock, now = temporary.stat().st_mtime_ns, _now()
                settled = {
                    run_id: [sight.files, value]
                    for run_id, (sight, value) in self._read.items()
                    if _is_settled(sight.files, clock - (now - sight.since) - MARGIN_NS)
                }
                there = set(run_ids(self._results))
                entries = {run_id: entry for run_id, entry in (self._entries | settled).items() if run_id in there}
                temporary.write_bytes(_encoded(entries, self._form))
            self._kept, self._read = entries, {}


def _now() -> int:
    """Nanoseconds of a clock that nobody sets and that runs on while the machine sleeps, where there is one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _is_settled(files: Mapping[str, Identity], moment: int) -> bool:
    """Whether these files had not changed for a while at a moment by their own clock."""
    return all(identity is None or max(identity[2:]) < moment for identity in files.values())


def _identity(path: str) -> Identity:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def run_ids(results: Path) -> list[str]:
    """The runs that have a folder, by name; as :func:`harness.record.folder.run_folders`."""
    try:
        with os.scandir(results / "runs") as entries:
            return sorted(entry.name for entry in entries if is_name(entry.name) and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _encoded(entries: Mapping[str, Any], form: list[object]) -> bytes:
    body = json.dumps(entries, separators=(",", ":")).encode()
    return json.dumps(_head(body, form)).encode() + b"\n" + body


def _head(body: bytes, form: list[object]) -> dict[str, Any]:
    return {"format": form, "sha256": hashlib.sha256(body).hexdigest()}


def _load(path: Path, form: list[object]) -> dict[str, Any]:
    """The entries of a table; none where it is missing, torn or of another format."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        if json.loads(head) != _head(body, form):
            return {}
        entries = from_json(body)
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
