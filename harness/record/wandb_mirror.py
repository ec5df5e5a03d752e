"""A copy of a run's events in W&B, made by one background thread.

The run folder is the record; this is the dashboard. Events are queued and never waited for, and whatever goes wrong
with W&B is told once in the run's log and turns the mirror off. Without a login, W&B works offline in the run folder.
"""

from __future__ import annotations

import contextlib
import netrc
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from harness.record.atomic import read_json
from harness.record.folder import RunFolder

if TYPE_CHECKING:
    import wandb
    from PIL.Image import Image

    from harness.spec.run import Job

Images: TypeAlias = "Mapping[str, Image] | Sequence[Image]"
Event: TypeAlias = "Callable[[wandb.Run], None]"

PROJECT = "harness"
QUEUE_SIZE = 512
INIT_TIMEOUT_S = 30.0
FINISH_TIMEOUT_S = 60.0


class WandbMirror:
    """Mirrors one run; every method returns at once but `finish`, and none raises.

    The W&B run has the id ``<hash>-g<generation>``: the ten hex digits of the run id, and the number of the attempt
    that started from step 0, since W&B takes no step twice. An attempt that goes on from a checkpoint keeps both.

    Args:
        folder: The run's; W&B's own files go to `wandb/` in it.
        job: What the worker was handed.
        run_config: What W&B shows as the run's configuration; the spec where not given.
        queue_size: Events that may wait; later ones are dropped and counted.

    Attributes:
        num_dropped: Events that were dropped.
        whereabouts: One line for the end of the log: where the mirror is and how it gets to a server.
    """

    def __init__(
        self,
        folder: RunFolder,
        job: Job,
        run_config: Mapping[str, Any] | None = None,
        *,
        queue_size: int = QUEUE_SIZE,
    ) -> None:
        self.num_dropped = 0
        self.whereabouts = "W&B: nothing was mirrored"
        self._folder = folder
        self._job = job
        self._config = dict(job.spec.model_dump(mode="json") if run_config is None else run_config)
        self._queue: queue.Queue[Event | None] = queue.Queue(queue_size)
        self._thread: threading.Thread | None = None
        self._off = False
        self._exit_code = 0
        self._step = 0

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Mirrors a step's metrics under their own keys."""
        self._step = step
        row = {**values, "step": step}
        self._put(lambda run: run.log(row, step=step))

    def completions(self, step: int, rows: Iterable[Mapping[str, Any]], images: Images | None = None) -> None:
        """Mirrors sampled completions as the table `completions`, with the images given by row id or one per row."""
        self._step = step
        kept = list(rows)
        self._put(lambda run: run.log({"completions": _table(kept, images), "step": step}, step=step))

    def validation(self, step: int, target: str, values: Mapping[str, float]) -> None:
        """Mirrors an evaluation during training as `eval/<target>/<key>`."""
        self.metrics(step, {f"eval/{target}/{key}": value for key, value in values.items()})

    def evaluation(self, target: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Mirrors the evaluation on record: the table `test/<target>/examples`, and its means in the run's summary.

        The keys say `test`, so that they are not taken for the validation curve `eval/<target>/accuracy`.
        """
        kept, step = list(rows), self._step

        def mirror(run: wandb.Run) -> None:
            run.log({f"test/{target}/examples": _table(kept), "step": step}, step=step)
            means = {
                f"test/{target}/{name}": sum(float(row[key]) for row in kept) / len(kept)
                for key, name in (("correct", "accuracy"), ("format", "format"))
                if kept and all(key in row for row in kept)
            }
            run.summary.update({**means, f"test/{target}/num_examples": len(kept)})

        self._put(mirror)

    def finish(self, exit_code: int = 0, timeout_s: float = FINISH_TIMEOUT_S) -> None:
        """Closes the W&B run, waiting no longer than `timeout_s` seconds for what is still queued or uploading."""
        if self._thread is None:
            return
        self._exit_code = exit_code
        end = time.monotonic() + timeout_s
        with contextlib.suppress(queue.Full):
            if not self._off:
                self._queue.put(None, timeout=timeout_s)
        self._thread.join(max(0.0, end - time.monotonic()))
        if self._thread.is_alive():
            self._off = True
            self._note(f"not finished after {timeout_s:g} s, left as it is")
        if self.num_dropped:
            self._note(f"{self.num_dropped} events were dropped because W&B could not keep up")

    def _put(self, event: Event) -> None:
        if self._off:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._mirror, name="wandb-mirror", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            if self.num_dropped == 0:
                self._note("W&B cannot keep up; events are dropped from here on until it does")
            self.num_dropped += 1

    def _mirror(self) -> None:
        run: wandb.Run | None = None
        try:
            run = self._open()
            while (event := self._queue.get()) is not None:
                event(run)
            run.finish(self._exit_code)
        except Exception as error:  # W&B must never fail a run, whatever it raises
            self._off = True
            self._note(f"off for the rest of the run: {type(error).__name__}: {' '.join(str(error).split())}")
            while not self._queue.empty():  # a `finish` that waits for room must not wait for nobody
                self._queue.get_nowait()
            if run is not None:
                with contextlib.suppress(Exception):
                    run.finish(1)

    def _open(self) -> wandb.Run:
        logged_in = is_logged_in()
        if not logged_in:
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # offline means no connection at all
        files = (self._folder.path / "wandb").resolve()
        for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # tables wait there for their upload; by default at home
            os.environ.setdefault(name, str(files / name.split("_")[1].lower()))
        import wandb

        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            symlink=False,
            x_save_requirements=False,
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=FINISH_TIMEOUT_S,
        )
        known = wandb.setup(settings).settings  # with what environment and settings files say
        if not logged_in and known.mode == "online" and "WANDB_MODE" not in os.environ:
            settings.mode = "offline"
        attempt = self._attempt()
        job = self._job
        run = wandb.init(
            dir=self._folder.path,
            project=known.project or PROJECT,
            id=f"{self._folder.run_id.rsplit('-', 2)[-2]}-g{attempt['generation']}",
            name=self._folder.run_id,
            group=job.sweep,
            job_type=job.spec.method.type,
            config=self._config,
            resume="allow" if logged_in and attempt["start_step"] > 0 else None,
            reinit="create_new",
            settings=settings,
        )
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        self.whereabouts = _whereabouts(run)
        return run

    def _attempt(self) -> dict[str, Any]:
        try:
            attempt: dict[str, Any] = read_json(self._folder.run_json)["attempts"][-1]
        except FileNotFoundError:
            return {"generation": 1, "start_step": 0}
        return attempt

    def _note(self, sentence: str) -> None:
        with contextlib.suppress(OSError), self._folder.log.open("a", encoding="utf-8") as log:
            log.write(f"W&B mirror: {sentence}\n")


def _table(rows: Sequence[Mapping[str, Any]], images: Images | None = None) -> wandb.Table:
    import wandb

    columns: list[str | int] = list(dict.fromkeys(key for row in rows for key in row))
    data = [[row.get(str(column)) for column in columns] for row in rows]
    if images is not None:
        pictures = [images[row["id"]] for row in rows] if isinstance(images, Mapping) else list(images)
        shown = {id(picture): wandb.Image(picture) for picture in pictures}  # one file serves a whole group
        columns = ["image", *columns]
        data = [[shown[id(picture)], *row] for picture, row in zip(pictures, data, strict=True)]
    return wandb.Table(columns=columns, data=data)


def _whereabouts(run: wandb.Run) -> str:
    if run.disabled:
        return "W&B: disabled"
    folder = Path(run.settings.sync_dir)
    if run.offline:
        return f"W&B: {folder}; to upload it: wandb sync {folder}"
    return f"W&B: {run.url}; its files: {folder}"


def is_logged_in() -> bool:
    """Whether W&B would find credentials, by environment or netrc file, without asking for them."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(server).netloc] if server else ["api.wandb.ai", "api.forge.coreweave.com"]
    given = os.environ.get("NETRC")
    files = [Path(given)] if given else [Path("~/.netrc"), Path("~/_netrc")]
    for file in files:
        with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError):
            credentials = netrc.netrc(file.expanduser())
            if any(credentials.authenticators(host) for host in hosts):
                return True
    return False
