"""Every worker that drivers started on a run, and how it ended: `launches.json`, what a policy looks back on.

A driver writes it while it holds the run: an entry when a worker is started, so that another driver can find that
worker, and the entry's end where the worker did not complete the run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import DataError
from harness.record.atomic import read_json
from harness.record.failures import Failure
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.marks import last_step

KEPT = 200
"""Entries on record; older ones are dropped."""


@dataclass(frozen=True)
class LaunchRecord:
    """One worker of a run.

    Attributes:
        token: Of the reservation that it was started under.
        started: Unix seconds, by its driver's clock.
        driver: The presence file of its driver, relative to the results folder.
        handle: Finds it again; empty until its executor has said what that is.
        place: Where it ran, for people.
        halvings: How often its passes were halved from the start.
        ended: Unix seconds; None while nobody has looked.
        code: Its exit code; None where unknown.
        failure: The class of its end; None where it was asked to stop.
        error: One sentence.
        progress: What of the run was safe on disk at its end, see :func:`progress_of`.
    """

    token: int
    started: float
    driver: str
    handle: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""
    halvings: int = 0
    ended: float | None = None
    code: int | None = None
    failure: Failure | None = None
    error: str | None = None
    progress: tuple[int, ...] = ()


def read_launches(folder: RunFolder) -> list[LaunchRecord]:
    """The launches on record, oldest first; none where the file is missing or cannot be trusted."""
    known = {one.name for one in dataclasses.fields(LaunchRecord)}
    try:
        entries = read_json(folder.launches)["launches"]
        records = [
            LaunchRecord(**{key: value for key, value in entry.items() if key in known} | _progress(entry))
            for entry in entries
        ]
    except (FileNotFoundError, DataError, KeyError, TypeError, AttributeError):
        return []
    return [one for one in records if isinstance(one.token, int) and isinstance(one.handle, Mapping)]


def write_launches(folder: RunFolder, launches: list[LaunchRecord], files: Files) -> None:
    """Writes the launches of a run.

    Raises:
        FencedError: The folder has another owner.
    """
    files.write_json(folder.launches, {"launches": [dataclasses.asdict(one) for one in launches[-KEPT:]]})


def progress_of(folder: RunFolder) -> tuple[int, ...]:
    """How much of a run is safe on disk; a larger tuple is further.

    Returns:
        Evaluations made, whether the weights are there, and the steps behind the last checkpoint.
    """
    evaluations = len(folder.evaluations("test")) + len(folder.evaluations("validation"))
    steps = last_step(folder) if folder.checkpoint.is_dir() else 0
    return evaluations, int(folder.weights.is_dir()), steps


def _progress(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"progress": tuple(entry.get("progress", ()))}
