"""What a person sees while a sweep runs: one line per event, and on a terminal live bars under the lines.

Everything is read from the run folders: the driver's workers tell nobody but the disk.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from harness.launch.status.tail import tail_rows
from harness.launch.words import duration
from harness.record.folder import RunFolder
from harness.record.state import read_state


class Progress:
    """Lines as runs start and end, and live bars where the console is a terminal.

    Args:
        console: Where to write.
        sweep: The sweep's name.
        num_runs: Its runs.
        num_completed: Those that were completed before.
        num_slots: Workers at the same time.
    """

    def __init__(self, console: Console, sweep: str, num_runs: int, num_completed: int, num_slots: int) -> None:
        self._console = console
        self._num_todo = num_runs - num_completed
        self._num_slots = num_slots
        self._num_failed = 0
        self._durations: list[float] = []
        self._started: dict[str, float] = {}
        self._live: dict[str, _LiveRun] = {}
        self._bars: Bars | None = None
        if console.is_terminal and self._num_todo > 0:
            self._bars = Bars(
                TextColumn("{task.description}", markup=False),
                BarColumn(24),
                TextColumn("{task.fields[detail]}", markup=False),
                console=console,
                auto_refresh=False,  # the driver's own pace is enough
            )
            self._sweep = self._bars.add_task(sweep, total=num_runs, completed=num_completed, detail="")

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def line(self, text: str, style: str | None = None) -> None:
        """One line of its own."""
        self._console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    def started(self, run_id: str, folder: RunFolder) -> None:
        """A worker was started."""
        self.line(f"started    {run_id}")
        self._started[run_id] = time.monotonic()
        if self._bars is not None:
            self._live[run_id] = _LiveRun(folder, self._bars.add_task(f"  {run_id}", total=None, detail="starting"))

    def completed(self, run_id: str) -> None:
        """A run of this or of another driver is complete."""
        seconds = self._ended(run_id)
        self.line(f"completed  {run_id}" + ("" if seconds is None else f"  in {duration(seconds)}"), "green")
        if seconds is not None:
            self._durations.append(seconds)
        self._advance()

    def failed(self, run_id: str, reason: str) -> None:
        """A run failed; the sweep goes on."""
        self._ended(run_id)
        self._num_failed += 1
        self.line(f"failed     {run_id}: {reason}", "red")
        self._advance()

    def pruned(self, run_id: str) -> None:
        """A run was stopped because nothing good was expected of it."""
        self._ended(run_id)
        self.line(f"pruned     {run_id}", "yellow")
        self._advance()

    def interrupted(self, run_id: str) -> None:
        """A run was stopped and can be resumed."""
        self._ended(run_id)
        self.line(f"stopped    {run_id}; it will resume", "yellow")

    def again(self, run_id: str, reason: str, *, smaller: bool) -> None:
        """A run's worker ended before its time; the run goes on."""
        self._ended(run_id)
        what = "with smaller passes" if smaller else "from where it was"
        self.line(f"again      {run_id}: {reason + '; ' if reason else ''}it goes on {what}", "yellow")

    def adopted(self, run_id: str, folder: RunFolder) -> None:
        """A live worker was taken over from a driver that is gone."""
        self.line(f"adopted    {run_id}: its driver is gone, its worker is not")
        self._started[run_id] = time.monotonic()
        if self._bars is not None:
            self._live[run_id] = _LiveRun(folder, self._bars.add_task(f"  {run_id}", total=None, detail="adopted"))

    def elsewhere(self, run_id: str) -> None:
        """A run is being done by another driver."""
        self.line(f"elsewhere  {run_id}: another driver is running it; waiting for it")

    def update(self) -> None:
        """Moves the bars to what the run folders say; costs nothing where there are none."""
        if self._bars is None:
            return
        for run in self._live.values():
            run.update(self._bars)
        self._bars.update(self._sweep, detail=self._sweep_detail())
        self._bars.refresh()

    def _sweep_detail(self) -> str:
        task = self._bars.tasks[0] if self._bars is not None else None
        parts = [] if task is None else [f"{task.completed:.0f}/{task.total:.0f} runs"]
        if self._num_failed:
            parts.append(f"{self._num_failed} failed")
        if self._durations and self._num_todo > 0:
            left = sum(self._durations) / len(self._durations) * self._num_todo / self._num_slots
            parts.append(f"{duration(left)} left")
        return "  ".join(parts)

    def _advance(self) -> None:
        self._num_todo -= 1
        if self._bars is not None:
            self._bars.advance(self._sweep)

    def _ended(self, run_id: str) -> float | None:
        run = self._live.pop(run_id, None)
        if run is not None and self._bars is not None:
            self._bars.remove_task(run.task)
        start = self._started.pop(run_id, None)
        return None if start is None else time.monotonic() - start


class _LiveRun:
    """The bar of one running run; its rate is measured within a phase."""

    def __init__(self, folder: RunFolder, task: TaskID) -> None:
        self.task = task
        self._folder = folder
        self._mark: tuple[object, int, float] | None = None
        self._shown: tuple[object, int] | None = None

    def update(self, bars: Bars) -> None:
        state = read_state(self._folder)
        phase = (state.status, state.phase, state.target)
        step, num_steps = state.step, state.num_steps or None
        if state.status != "running" or (phase, step) == self._shown:
            return
        self._shown = (phase, step)
        now = time.monotonic()
        if self._mark is None or self._mark[0] != phase:
            self._mark = (phase, step, now)
        parts = [state.phase or ""] + ([state.target] if state.target else [])
        if num_steps:
            parts.append(f"{step}/{num_steps}")
        if state.phase == "train":
            parts += metric_words(last_metrics(self._folder.metrics))
        done = step - self._mark[1]
        if num_steps and done > 0:
            parts.append(f"{duration((now - self._mark[2]) / done * (num_steps - step))} left")
        bars.update(self.task, total=num_steps, completed=step, detail="  ".join(parts))


def last_metrics(path: Path) -> Mapping[str, Any]:
    """The last whole training row of a `metrics.jsonl`, read from its tail; empty where there is none."""
    for row in reversed(tail_rows(path)):
        if any(key.startswith(("train/", "rollout/")) for key in row):
            return row
    return {}


def metric_words(row: Mapping[str, Any]) -> list[str]:
    """The one number to watch: the reward where the method has one, else the loss."""
    for key in ("rollout/reward", "train/loss"):
        if isinstance(row.get(key), int | float):
            return [f"{key.split('/')[1]} {row[key]:.3f}"]
    return []
