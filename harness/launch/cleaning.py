"""What a results folder could do without: found first, shown, and removed only when that was wished for.

Nothing that somebody works on is removed: a run is reserved first, as a driver would. A folder vanishes under another
name before its files are removed, so nobody ever reads half of one.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.launch.presence import Presence, drivers
from harness.record.atomic import read_json_or
from harness.record.folder import RunFolder, run_folders
from harness.record.launches import read_launches
from harness.record.lease import LEASE_S, is_held, read_owner, reserve
from harness.record.pulse import Watch
from harness.record.state import read_state, read_summary
from harness.record.sweep_record import read_sweep_record, sweep_names
from harness.spec import RunSpec

Category = Literal["orphaned", "failed", "superseded", "weights", "leftovers"]

CATEGORIES: dict[Category, str] = {
    "orphaned": "runs that no sweep on record asks for",
    "failed": "runs that failed",
    "superseded": "runs whose settings have another run id by now, for the code or the model has changed",
    "weights": "trained weights of completed runs; a sweep that asks for another target trains them again",
    "leftovers": "quarantined and unfinished files, what dead drivers left, and files of SLURM jobs that are over",
}


@dataclass(frozen=True)
class Removable:
    """Something that could be removed.

    Attributes:
        path: A folder or file below the results folder.
        run: The run that it belongs to; None where it belongs to none.
        category: Why.
        size: Bytes on disk.
        age_s: Seconds since it was last written.
    """

    path: Path
    run: RunFolder | None
    category: Category
    size: int
    age_s: float


def find_removable(
    results: Path,
    categories: Collection[Category],
    *,
    older_than_s: float = 0.0,
    run_ids: Collection[str] | None = None,
    every_reason: bool = False,
) -> list[Removable]:
    """What could be removed, by category and name; what is in use or linked from elsewhere is passed over.

    Args:
        results: The results folder.
        categories: What to look for.
        older_than_s: Only what was last written at least so long ago.
        run_ids: Only what belongs to these runs; None for all.
        every_reason: Whether a run's folder is listed once for each category that it is in, and what lies in it too.
            Otherwise it is listed once, and goes as a whole.
    """
    asked_for = {cell["run_id"] for name in sweep_names(results) for cell in read_sweep_record(results, name)["cells"]}
    found = []
    for folder in run_folders(results):
        if folder.path.is_symlink() or (run_ids is not None and folder.run_id not in run_ids) or is_held(folder.path):
            continue
        for path, category in _of_run(folder, categories, asked_for):
            found.append(_measured(path, folder, category))
            if path == folder.path and not every_reason:
                break
    if run_ids is None and "leftovers" in categories:
        found += [_measured(path, None, "leftovers") for path in _of_nobody(results)]
    order = list(CATEGORIES)
    old = [one for one in found if one.age_s >= older_than_s]
    return sorted(old, key=lambda one: (order.index(one.category), str(one.path)))


def remove(results: Path, removable: list[Removable]) -> tuple[int, list[str]]:
    """Removes what was found, unless somebody has begun to work on it since.

    Args:
        results: The results folder.
        removable: From :func:`find_removable`.

    Returns:
        Bytes set free, and the run ids that were left alone.
    """
    freed, left = 0, []
    presence = Presence(results, "clean", LEASE_S)
    try:
        for one in removable:
            if one.run is None and one.path.is_dir():
                shutil.rmtree(one.path, ignore_errors=True)
            elif one.run is None:
                one.path.unlink(missing_ok=True)
            elif not _remove_of_run(one.path, one.run, presence.path):
                left.append(one.run.run_id)
                continue
            freed += one.size
    finally:
        presence.close()
    return freed, left


def _remove_of_run(path: Path, folder: RunFolder, pulse: Path) -> bool:
    owner = read_owner(folder.path)
    if owner is not None and not owner.is_gone(Watch()):
        return False
    lease = reserve(folder.path, owner, pulse=pulse)
    if lease is None:
        return False
    gone = folder.path.parent / f".removed-{uuid.uuid4().hex[:12]}"
    try:
        os.rename(path, gone)
    except FileNotFoundError:
        return True
    finally:
        lease.release()
    if gone.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)
    return True


def _of_run(
    folder: RunFolder, categories: Collection[Category], asked_for: Collection[str]
) -> Iterator[tuple[Path, Category]]:
    """What is in these categories, the folder as a whole first."""
    if "orphaned" in categories and folder.run_id not in asked_for:
        yield folder.path, "orphaned"
    if "failed" in categories and read_state(folder).status == "failed":
        yield folder.path, "failed"
    if "superseded" in categories and _is_superseded(folder):
        yield folder.path, "superseded"
    if "weights" in categories and folder.weights.is_dir() and read_summary(folder) is not None:
        yield folder.weights, "weights"
    if "leftovers" in categories:
        if folder.quarantine.is_dir():
            yield folder.quarantine, "leftovers"
        for path in folder.path.glob(".*.tmp"):
            yield path, "leftovers"


def _of_nobody(results: Path) -> Iterator[Path]:
    known = list(drivers(results))
    for driver in known:
        if not driver.seems_alive:
            yield driver.path
            stop = driver.path.with_suffix(".stop")
            if stop.exists():
                yield stop
    if not any(driver.seems_alive for driver in known):  # one may have submitted jobs that are not on record yet
        used = {path.resolve() for path in _slurm_folders_in_use(results)}
        for path in (results / "slurm").glob("*"):
            if path.is_dir() and not path.is_symlink() and path.resolve() not in used:
                yield path


def _slurm_folders_in_use(results: Path) -> Iterator[Path]:
    """Those through which a job and the next driver may still speak."""
    for folder in run_folders(results):
        launches = read_launches(folder)
        if launches and launches[-1].ended is None and "folder" in launches[-1].handle and read_summary(folder) is None:
            yield Path(str(launches[-1].handle["folder"]))


def _is_superseded(folder: RunFolder) -> bool:
    spec = read_json_or(folder.run_json, {}).get("spec")
    if spec is None:
        return False
    try:
        return RunSpec.model_validate(spec).run_id != folder.run_id
    except (ValueError, HarnessError):  # of settings that are no more, or of a model that is not here
        return False


def _measured(path: Path, run: RunFolder | None, category: Category) -> Removable:
    size = written = 0
    for file in [path] if path.is_file() else _files(path):
        try:
            status = os.lstat(file)
        except FileNotFoundError:
            continue
        size += status.st_blocks * 512
        written = max(written, int(status.st_mtime))
    return Removable(path, run, category, size, max(time.time() - written, 0.0) if written else 0.0)


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield f"{parent}/{name}"
