"""Where a driver's runs come from: a list that is known beforehand, or a search that answers as it learns."""

from __future__ import annotations

from typing import Literal, Protocol

from harness.spec.sweep import Sweep, SweepRun

End = Literal["completed", "failed", "pruned"]


class Feed(Protocol):
    """Hands out runs and is told how they ended."""

    @property
    def num_runs(self) -> int:
        """Runs that the whole sweep will have, as far as can be foreseen."""

    @property
    def exhausted(self) -> bool:
        """Whether no run will follow."""

    def more(self) -> list[SweepRun]:
        """Further runs to do now, also ones that are complete already; empty where an end must be awaited first."""

    def ended(self, run_id: str, end: End) -> None:
        """A run that was handed out has ended, this way; one that was interrupted has not."""

    def is_unwanted(self, run_id: str) -> bool:
        """Whether a run should stop, because nothing good is expected of it."""

    def close(self) -> None:
        """No more is asked; another driver may take over."""


class WholeSweep:
    """Every run of a sweep at once."""

    def __init__(self, sweep: Sweep) -> None:
        self._runs = list(sweep.runs.values())
        self.num_runs = len(self._runs)

    @property
    def exhausted(self) -> bool:
        """Whether they were handed out."""
        return not self._runs

    def more(self) -> list[SweepRun]:
        """All of them, the first time."""
        runs, self._runs = self._runs, []
        return runs

    def ended(self, run_id: str, end: End) -> None:
        """Nothing depends on it."""

    def is_unwanted(self, run_id: str) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Nothing is held."""
