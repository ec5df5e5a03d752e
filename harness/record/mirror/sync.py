"""Publishes to W&B what is missing or incomplete there, from the run folders alone; again changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.lease import is_held
from harness.record.mirror.mirror import copy
from harness.record.mirror.publication import (
    OFFLINE,
    Destination,
    Publication,
    content_digest,
    publications,
)
from harness.record.mirror.tables import Pictures
from harness.record.mirror.wandb_sink import WandbSink
from harness.record.state import read_state

UPLOAD_TIMEOUT_S = 3600.0
"""For one run; what is not there by then is sent by the next `sync`."""

_EXIT_CODES = {"completed": 0, "pruned": 0, "failed": 1}
_INTERRUPTED = 143


@dataclass(frozen=True)
class Synced:
    """What became of one run.

    Attributes:
        run_id: The run.
        outcome: `published` now; `there` already; `running`, and so left to its worker; `unfinished`, which offline
            files cannot hold; `not_started`; `failed` to be published.
        num_steps: Training steps that were sent now.
        evaluated: Targets whose evaluations were sent now.
        where: One line, for a run that was published or is there.
        error: Why it failed.
    """

    run_id: str
    outcome: Literal["published", "there", "running", "unfinished", "not_started", "failed"]
    num_steps: int = 0
    evaluated: tuple[str, ...] = ()
    where: str | None = None
    error: str | None = None


def sync(
    folders: Sequence[RunFolder],
    where: Destination,
    pictures: Callable[[dict[str, str]], Pictures | None] = lambda data: None,
) -> Iterator[Synced]:
    """Publishes runs one after the other, and tells of each as it is done.

    What `wandb.json` calls whole is believed offline, and online if the server still has it. Whatever stops this in the
    middle, the next call goes on after the last step that the server has. A run that cannot be published ends it.

    Args:
        folders: The runs.
        where: The destination.
        pictures: Makes what finds the pictures of a run, from where its stored rows lie.
    """
    known = {folder.run_id: publications(folder).get(where.name) for folder in folders}
    alive = _on_server(where, [one for one in known.values() if one is not None])
    for folder in folders:
        there = known[folder.run_id]
        result = _sync(folder, where, there, there is not None and there.id not in alive, pictures)
        yield result
        if result.outcome == "failed":
            return


def _sync(
    folder: RunFolder,
    where: Destination,
    there: Publication | None,
    deleted: bool,
    pictures: Callable[[dict[str, str]], Pictures | None],
) -> Synced:
    if not folder.run_json.exists() or not (folder.metrics.exists() or folder.summary.exists()):
        return Synced(folder.run_id, "not_started")
    state = read_state(folder)
    if state.status == "running" and is_held(folder.path):
        return Synced(folder.run_id, "running")
    if where.mode == OFFLINE and not folder.summary.exists():
        return Synced(folder.run_id, "unfinished")
    if there is not None and not deleted and _is_whole(folder, where, there):
        return Synced(folder.run_id, "there", where=there.url or there.files)
    job: dict[str, Any] = read_json(folder.run_json).get("job") or {}
    sink = WandbSink(
        folder,
        pictures(job.get("data") or {}),
        where=where,
        deleted=deleted,
        finish_timeout_s=UPLOAD_TIMEOUT_S,
    )
    try:
        copy(folder, sink, exit_code=_EXIT_CODES.get(state.status, _INTERRUPTED))
    except Exception as error:  # W&B raises what it likes; the next call goes on from here
        return Synced(folder.run_id, "failed", error=f"{type(error).__name__}: {' '.join(str(error).split())}")
    return Synced(folder.run_id, "published", sink.num_steps, tuple(sink.evaluated), sink.whereabouts)


def _is_whole(folder: RunFolder, where: Destination, there: Publication) -> bool:
    has_files = where.mode != OFFLINE or (there.files is not None and (folder.path / there.files).is_dir())
    return has_files and there.content == content_digest(folder)


def _on_server(where: Destination, known: Sequence[Publication]) -> set[str]:
    """The ids of those of these runs that still exist; offline all of them."""
    ids = {one.id for one in known}
    if where.mode == OFFLINE or not ids:
        return ids
    import wandb

    entity = next((one.entity for one in known if one.entity), where.entity)
    api = wandb.Api(overrides={"base_url": where.server})
    try:
        runs = api.runs(f"{entity}/{where.project}", filters={"name": {"$in": sorted(ids)}}, per_page=200)
        return {run.id for run in runs}
    except ValueError as error:
        if "Could not find project" in str(error):  # it was deleted, and every run with it
            return set()
        raise
