"""That a driver is there: a file under `results/drivers/` that it touches, and where others ask it to stop."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError
from harness.record.atomic import read_json, write_json
from harness.record.lease import BEATS
from harness.record.process import ProcessId
from harness.record.pulse import Heart, Watch, seems_gone


@dataclass(frozen=True)
class Driver:
    """A driver, as its presence file tells.

    Attributes:
        path: The file.
        sweep: The name of the sweep that it runs.
        process: Who.
        lease_s: The silence, in seconds, that it may be taken for dead after.
    """

    path: Path
    sweep: str
    process: ProcessId
    lease_s: float

    @property
    def seems_alive(self) -> bool:
        """A guess from one look."""
        return not seems_gone(self.process, self.path, self.lease_s)

    def is_gone(self, watch: Watch) -> bool:
        """Whether it is dead, or silent for so long that it may be taken for dead."""
        return watch.is_gone(self.process, self.path, self.lease_s)

    def request_stop(self) -> None:
        """Asks it to stop as Ctrl-C does, wherever it runs."""
        _request(self.path).touch()


class Presence:
    """This driver's own.

    Args:
        results: The results folder.
        sweep: The sweep's name.
        lease_s: The silence, in seconds, that it may be taken for dead after.
    """

    def __init__(self, results: Path, sweep: str, lease_s: float) -> None:
        process = ProcessId.this()
        self.path = results / "drivers" / f"{process.host}-{process.pid}-{process.started}.json"
        write_json(self.path, {"sweep": sweep, "process": process.as_json(), "lease_s": lease_s})
        # A thread of its own: the driver may wait for a slow disk, and shall not be taken for dead meanwhile.
        self._heart = Heart(self.path, lease_s / BEATS)

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked it to stop."""
        return _request(self.path).exists()

    def close(self) -> None:
        """The driver is leaving."""
        self._heart.stop()
        self.path.unlink(missing_ok=True)
        _request(self.path).unlink(missing_ok=True)


def read_driver(path: Path) -> Driver | None:
    """A driver by its presence file; None where that is gone or cannot be read."""
    try:
        record = read_json(path)
        return Driver(path, record["sweep"], ProcessId.from_json(record["process"]), float(record["lease_s"]))
    except (FileNotFoundError, DataError, KeyError, TypeError, ValueError):
        return None


def drivers(results: Path) -> Iterator[Driver]:
    """The drivers that left a presence file in a results folder, the dead among them."""
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(results / "drivers")):
            driver = read_driver(results / "drivers" / name) if name.endswith(".json") else None
            if driver is not None:
                yield driver


def _request(path: Path) -> Path:
    return path.with_suffix(".stop")
