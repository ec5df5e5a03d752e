"""Who works on a folder: a lease with a fencing token, a heartbeat and a stage for unfinished files.

`lease/<token>/` is the lease: the highest token is the owner's, and no token is given twice. It is taken by renaming a
prepared folder to the next number, which one process alone can do, also on a shared file system; then the stages of all
earlier owners are removed, whereupon nothing that they still try reaches a file (:mod:`harness.record.files`).

A driver *reserves* a run, then starts a worker that *claims* it under that reservation. A worker whose reservation was
passed over in the meantime finds a higher token and ends; a job that a queue starts anew claims again under its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import DataError, FencedError
from harness.record.atomic import encode_json, read_json
from harness.record.files import Files
from harness.record.process import ProcessId
from harness.record.pulse import Watch, seems_gone

LEASE = "lease"
OWNER = "owner.json"
RELEASED = "released.json"
"""What `owner.json` becomes when its owner lets go: a change of name needs no room on a full disk."""
STOP = "stop"
LEASE_S = 60.0
"""Seconds of silence after which an owner is taken for dead, where nothing better is known."""
BEATS = 6
"""Signs of life in the time of a lease."""

Role = Literal["driver", "worker"]


@dataclass(frozen=True)
class Owner:
    """Who holds a folder, as `owner.json` says.

    Attributes:
        path: The lease's folder.
        token: Higher than those of all earlier owners.
        role: A driver holds a run until its worker claims it, and while it writes down how a worker ended.
        reserved: The token of the reservation that this is, or was made under.
        process: Who.
        pulse: The file that it touches while it lives.
        lease_s: The silence that it may be taken for dead after.
        released: Whether it has let go.
    """

    path: Path
    token: int
    role: Role
    reserved: int
    process: ProcessId
    pulse: Path
    lease_s: float
    released: bool

    def is_gone(self, watch: Watch) -> bool:
        """Whether another may take over."""
        return self.released or watch.is_gone(self.process, self.pulse, self.lease_s)

    @property
    def seems_alive(self) -> bool:
        """A guess from one look, to be shown."""
        return not self.released and not seems_gone(self.process, self.pulse, self.lease_s)


class Lease:
    """A lease that is held; made by :func:`reserve` and :func:`claim`.

    Attributes:
        token: Of this owner.
        reserved: Of the reservation.
        path: Its folder.
        beat_s: Seconds between two signs of life.
        files: The way to write.
    """

    def __init__(self, path: Path, token: int, reserved: int, stage: Path, lease_s: float) -> None:
        self.path = path
        self.token = token
        self.reserved = reserved
        self.beat_s = lease_s / BEATS
        self.files = Files(stage)

    @property
    def pulse(self) -> Path:
        """The file to touch, for a worker."""
        return self.path / OWNER

    @property
    def stop_requested(self) -> bool:
        """Whether somebody asked the owner to save and end."""
        return os.path.exists(self.path / STOP)  # False where a failing disk cannot tell

    def release(self) -> None:
        """Lets go; what was passed on already stays with who has it."""
        self.files.close()
        with contextlib.suppress(OSError):  # passed on, or on a disk that has become read-only
            os.rename(self.path / OWNER, self.path / RELEASED)


def read_owner(folder: Path) -> Owner | None:
    """The last owner of a folder, also one that has let go; None where there never was one.

    An owner that cannot be read counts as one that never beats: it is dead after a lease's time.
    """
    for _ in range(100):
        token = _last_token(folder)
        if token == 0:
            return None
        path = folder / LEASE / str(token)
        for name in (OWNER, RELEASED):
            try:
                return _read(folder, path, token, name)
            except FileNotFoundError:
                continue
            except (DataError, KeyError, TypeError, ValueError):
                return Owner(path, token, "worker", 0, _NOBODY, path / name, LEASE_S, False)
    return Owner(path, token, "worker", 0, _NOBODY, path / OWNER, LEASE_S, False)


_NOBODY = ProcessId("", None, None, 0, None)


def _read(folder: Path, path: Path, token: int, name: str) -> Owner:
    record = read_json(path / name)
    pulse = record["pulse"]
    return Owner(
        path=path,
        token=token,
        role=record["role"],
        reserved=int(record["reserved"]),
        process=ProcessId.from_json(record["process"]),
        pulse=path / OWNER if pulse is None else folder / pulse,
        lease_s=float(record["lease_s"]),
        released=name == RELEASED,
    )


def reserve(folder: Path, over: Owner | None, *, pulse: Path, lease_s: float = LEASE_S) -> Lease | None:
    """Takes a folder for a driver.

    Args:
        folder: A run's, or any other; made where it is missing.
        over: The owner that was read and found to be gone; None where there was none.
        pulse: The driver's own sign of life.
        lease_s: The silence that is agreed on.

    Returns:
        None where another was quicker.
    """
    token = (over.token if over else 0) + 1
    return _take(folder, token, "driver", token, os.path.relpath(pulse, folder), lease_s)


def claim(folder: Path, reserved: int, lease_s: float = LEASE_S) -> Lease:
    """Takes a folder for a worker, under the reservation that it was started with.

    A job that was started anew by its queue finds its own earlier attempt, and waits until that is surely gone.

    Args:
        folder: The run's.
        reserved: The reservation's token; 0 for a worker that was started by hand, which takes a folder that nobody
            lives in, and waits only for as long as nobody can know.
        lease_s: The silence that is agreed on.

    Raises:
        FencedError: The run belongs to another.
    """
    watch = Watch()
    while True:
        owner = read_owner(folder)
        if reserved == 0:
            if owner is not None and not owner.is_gone(watch):
                if owner.process.is_alive or watch.has_changed(owner.pulse):
                    raise FencedError(f"{folder} belongs to process {owner.process.pid} on {owner.process.host}")
                time.sleep(min(1.0, lease_s / BEATS))
                continue
        elif owner is None or owner.reserved != reserved:
            raise FencedError(f"{folder} was given to another worker")
        elif owner.role == "worker" and not owner.is_gone(watch):
            time.sleep(min(1.0, lease_s / BEATS))
            continue
        token = (owner.token if owner else 0) + 1
        lease = _take(folder, token, "worker", reserved or token, None, lease_s)
        if lease is None:
            raise FencedError(f"{folder} was given to another worker")
        return lease


def is_held(folder: Path) -> bool:
    """Whether somebody seems to work on a folder; a guess from one look, to be shown."""
    owner = read_owner(folder)
    return owner is not None and owner.seems_alive


def request_stop(owner: Owner) -> None:
    """Asks an owner to save and end, wherever it is; it looks at every beat."""
    with contextlib.suppress(FileNotFoundError):
        (owner.path / STOP).touch()


def _last_token(folder: Path) -> int:
    try:
        names = os.listdir(folder / LEASE)
    except FileNotFoundError:
        return 0
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _take(folder: Path, token: int, role: Role, reserved: int, pulse: str | None, lease_s: float) -> Lease | None:
    leases = folder / LEASE
    leases.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:12]
    prepared, path = leases / f".{mark}", leases / str(token)
    record = {
        "token": token,
        "role": role,
        "reserved": reserved,
        "process": ProcessId.this().as_json(),
        "pulse": pulse,
        "lease_s": lease_s,
    }
    # A stage has a name of its own: should the whole lease folder be removed by hand, an old one never comes back.
    (prepared / mark).mkdir(parents=True)
    try:
        (prepared / OWNER).write_bytes(encode_json(record))
        os.rename(prepared, path)
    except OSError:
        if _last_token(folder) >= token:
            return None
        raise
    finally:
        shutil.rmtree(prepared, ignore_errors=True)
    if _last_token(folder) > token:  # the number was given, passed over and removed long ago
        shutil.rmtree(path, ignore_errors=True)
        return None
    _fence_off(leases, token)
    return Lease(path, token, reserved, path / mark, lease_s)


def _fence_off(leases: Path, token: int) -> None:
    """Removes the stages of all earlier owners; each vanishes in one step before its files are removed."""
    for name in os.listdir(leases):
        if name.isdecimal() and int(name) < token:
            gone = leases / f".{uuid.uuid4().hex[:12]}"
            with contextlib.suppress(FileNotFoundError):
                os.rename(leases / name, gone)
            shutil.rmtree(gone, ignore_errors=True)
