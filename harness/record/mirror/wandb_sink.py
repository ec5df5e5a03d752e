"""One run in W&B, written from its folder: online as the run goes on, offline whole at its end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.record.atomic import file_digest, read_json
from harness.record.folder import RunFolder
from harness.record.mirror.described import config, meanings, scores, tags
from harness.record.mirror.login import Mode, wandb_mode
from harness.record.mirror.publication import (
    OFFLINE,
    Destination,
    Publication,
    attempt_generation,
    content_digest,
    find_destination,
    next_generation,
    publications,
    record_publication,
    wandb_id,
)
from harness.record.mirror.steps import Step
from harness.record.mirror.tables import COMPLETION_COLUMNS, EVALUATION_COLUMNS, Pictures, table

if TYPE_CHECKING:
    import wandb

INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0

_DELETED = "previously created and deleted"
"""In what the server answers to an id that was used before."""

_MAX_DELETED = 20
"""Deleted generations that are passed over before it is called an error."""


class WandbSink:
    """A :class:`harness.record.mirror.mirror.Sink` for W&B.

    The run is opened, and an id taken, when the first thing arrives. A run that is there already is continued after
    its last step; what was published before is not sent again.

    Args:
        folder: The run's; W&B's own files go to `wandb/` in it.
        pictures: Of the examples, for the tables; None for tables without.
        where: The destination; by default as W&B's environment and settings files say.
        deleted: Whether the copy that `wandb.json` tells of was deleted on the server. Else W&B finds out, after
            trying for half a minute.
        follows: Whether the run is going on in this process; then W&B records the machine's load too.
        finish_timeout_s: How long `close` waits for the upload.

    Attributes:
        is_live: Online only. Offline, W&B cannot continue a run, so its files are written whole, once it is completed.
        whereabouts: Where the run is.
        num_steps: Steps that were sent.
        evaluated: Targets whose evaluations were sent.
    """

    def __init__(
        self,
        folder: RunFolder,
        pictures: Pictures | None = None,
        *,
        where: Destination | None = None,
        deleted: bool = False,
        follows: bool = False,
        finish_timeout_s: float = FINISH_TIMEOUT_S,
    ) -> None:
        self._mode: Mode = wandb_mode() if where is None else where.mode
        self.is_live = self._mode == "online"
        self.whereabouts = "W&B: disabled" if self._mode == "disabled" else "W&B: nothing was published"
        self.num_steps = 0
        self.evaluated: list[str] = []
        self._folder = folder
        self._pictures = pictures
        self._where = where
        self._deleted = deleted
        self._follows = follows
        self._finish_timeout_s = finish_timeout_s
        self._run: wandb.Run | None = None
        self._record: Any = {}
        self._published: Publication | None = None
        self._place = OFFLINE
        self._next_step = 0

    def step(self, step: Step) -> None:
        """Sends a step, unless the server has it."""
        run = self._opened()
        if run is None or step.index < self._next_step:
            return
        row: dict[str, Any] = {**step.values, "step": step.index}
        if step.completions:
            row["completions"] = table(step.completions, COMPLETION_COLUMNS, self._pictures)
        run.log(row, step=step.index)
        self._next_step = step.index + 1
        self.num_steps += 1

    def evaluation(self, target: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Sends an evaluation as the table `test/<target>/examples`, unless this very one is there."""
        run = self._opened()
        digest = file_digest(self._folder.evaluation(target))
        if run is None or self._published is None or self._published.evaluations.get(target) == digest:
            return
        # A row of its own after the last step: the steps that are there cannot be added to.
        run.log({f"test/{target}/examples": table(rows, EVALUATION_COLUMNS, self._pictures)}, step=self._next_step)
        self._next_step += 1
        self._published = replace(self._published, evaluations={**self._published.evaluations, target: digest})
        self.evaluated.append(target)

    def close(self, exit_code: int) -> None:
        """Writes the summary and waits for the upload; `wandb.json` then says that everything is there.

        Raises:
            TimeoutError: The upload takes longer than it may.
        """
        run = self._opened()
        if run is None or self._published is None:
            return
        content = content_digest(self._folder)
        if self._pictures is not None and self._pictures.reason is not None:
            self.whereabouts += f"; without some pictures: {self._pictures.reason}"
        run.summary.update(scores(self._folder, self._record["spec"]["source"]))
        run.finish(exit_code)
        record_publication(self._folder, self._place, replace(self._published, content=content))

    def _opened(self) -> wandb.Run | None:
        if self._run is None and self._mode != "disabled":
            self._run = self._open()
        return self._run

    def _open(self) -> wandb.Run:
        if self._mode == OFFLINE:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline means no connection at all
        self._folder.refuse_links()
        files = (self._folder.path / "wandb").resolve()
        _keep_in(files)
        import wandb

        settings = wandb.Settings(
            mode=self._mode,
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            symlink=False,
            x_save_requirements=False,
            x_disable_stats=not self._follows,
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=self._finish_timeout_s,
            finish_timeout_raises=True,
        )
        where = self._where or find_destination(self._mode)
        self._record = read_json(self._folder.run_json)
        self._place = where.name
        before = publications(self._folder).get(self._place)
        if self._mode == OFFLINE and before is not None and before.files is not None:
            shutil.rmtree(files, ignore_errors=True)  # is written anew, whole
            before = replace(before, evaluations={})
        run, generation = self._init(settings, where, before)
        self._next_step = run.starting_step
        kept = before.evaluations if before is not None and run.resumed and before.id == run.id else {}
        if self._mode == OFFLINE:
            self.whereabouts = f"W&B: {run.settings.sync_dir}; to upload it: harness wandb sync"
        else:
            self.whereabouts = f"W&B: {run.url}"
        self._published = Publication(
            id=run.id,
            generation=generation,
            attempt_generation=attempt_generation(self._record),
            entity=None if self._mode == OFFLINE else run.entity,
            project=run.project,
            url=None if self._mode == OFFLINE else run.url,
            files=os.path.relpath(run.settings.sync_dir, self._folder.path.resolve()),
            evaluations=kept,
        )
        record_publication(self._folder, self._place, self._published)
        return run

    def _init(self, settings: Any, where: Destination, before: Publication | None) -> tuple[wandb.Run, int]:
        """The run, opened, and the generation in its id: the next one that nobody has deleted."""
        import wandb

        method, sweep = self._record["spec"]["method"]["type"], (self._record.get("job") or {}).get("sweep")
        first = next_generation(before, attempt_generation(self._record)) + self._deleted
        for generation in range(first, first + _MAX_DELETED):
            try:
                run = wandb.init(
                    dir=self._folder.path,
                    project=where.project,
                    entity=where.entity,
                    id=wandb_id(self._folder.run_id, generation),
                    name=self._folder.run_id,
                    group=sweep,
                    job_type=method,
                    tags=tags(self._record),
                    config=config(self._record),
                    resume=None if self._mode == OFFLINE else "allow",
                    reinit="create_new",
                    settings=settings,
                )
            except wandb.errors.CommError as error:
                if _DELETED not in str(error):
                    raise
                continue
            run.define_metric("step", hidden=True)
            for key, best in meanings(method, self._record["job"]["targets"]):
                run.define_metric(key, step_metric="step", summary=f"last,{best}" if best else None)
            return run, generation
        raise HarnessError(f"W&B: {_MAX_DELETED} generations of {self._folder.run_id} were deleted on the server")


_ours: dict[str, str] = {}


def _keep_in(files: Path) -> None:
    """Has W&B keep tables in a run's folder while they wait for their upload; by default they pile up at home."""
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):
        if os.environ.get(name) == _ours.get(name):  # not set by the user
            os.environ[name] = _ours[name] = str(files / name.split("_")[1].lower())
