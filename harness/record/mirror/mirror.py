"""A copy of a run that is made while the run goes on, by a thread that follows the folder.

The worker only tells that there is something new and never waits; whatever goes wrong with a dashboard is told once in
the run's log and ends the copy, not the run.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from harness.record.atomic import read_jsonl
from harness.record.folder import RunFolder
from harness.record.mirror.steps import Step, StepReader

FINISH_TIMEOUT_S = 60.0


class Sink(Protocol):
    """Where a copy goes; opened when the first thing arrives.

    Attributes:
        is_live: Whether steps are wanted as they come; otherwise all of them at the end of a completed run.
        whereabouts: One line: where the copy is.
    """

    is_live: bool
    whereabouts: str

    def step(self, step: Step) -> None:
        """Takes a training step; those that it has already are let pass."""

    def evaluation(self, target: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Takes the evaluation of a completed run on a target's test split."""

    def close(self, exit_code: int) -> None:
        """Ends the copy; it is whole when this returns."""


def copy(folder: RunFolder, sink: Sink, reader: StepReader | None = None, *, exit_code: int = 0) -> None:
    """Copies what a run folder holds and closes the sink.

    Of a run that is not completed, the last step stays out: it may lack its completions or its evaluation, and comes
    when the run goes on.

    Args:
        folder: The run's.
        sink: Where to.
        reader: One that was read from before; a new one by default.
        exit_code: Of the worker.
    """
    is_complete = folder.summary.exists()
    for step in (reader or StepReader(folder)).steps(final=is_complete):
        sink.step(step)
    for target, path in folder.evaluations().items() if is_complete else ():
        sink.evaluation(target, read_jsonl(path))
    sink.close(exit_code)


class Mirror:
    """Follows one run for one sink; no method raises, and only `finish` waits.

    Args:
        folder: The run's.
        name: Of the dashboard, for the log.
        open_sink: Makes the sink, in the thread.
    """

    def __init__(self, folder: RunFolder, name: str, open_sink: Callable[[], Sink]) -> None:
        self.whereabouts = f"{name}: nothing was mirrored"
        self._folder = folder
        self._name = name
        self._open_sink = open_sink
        self._thread: threading.Thread | None = None
        self._news = threading.Event()
        self._exit_code: int | None = None
        self._gives_up_at = float("inf")

    def look(self) -> None:
        """Tells that the folder has something new."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._follow, name=f"mirror-{self._name}", daemon=True)
            self._thread.start()
        self._news.set()

    def finish(self, exit_code: int = 0, timeout_s: float = FINISH_TIMEOUT_S) -> None:
        """Has the copy completed and closed, waiting no longer than `timeout_s` seconds for it."""
        if self._thread is None:
            return
        self._gives_up_at = time.monotonic() + timeout_s
        self._exit_code = exit_code
        self._news.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._note(f"not finished after {timeout_s:g} s, left as it is")

    def _follow(self) -> None:
        try:
            sink = self._open_sink()
            reader = StepReader(self._folder)
            while self._exit_code is None:
                self._news.wait()
                self._news.clear()
                for step in reader.steps() if sink.is_live else ():
                    if time.monotonic() > self._gives_up_at:
                        return
                    sink.step(step)
            if sink.is_live or self._exit_code == 0:
                copy(self._folder, sink, reader, exit_code=self._exit_code)
            self.whereabouts = sink.whereabouts
        except Exception as error:  # a dashboard must never fail a run, whatever its library raises
            self._note(f"off for the rest of the run: {type(error).__name__}: {' '.join(str(error).split())}")

    def _note(self, sentence: str) -> None:
        with contextlib.suppress(OSError), self._folder.log.open("a", encoding="utf-8") as log:
            log.write(f"{self._name} mirror: {sentence}\n")
