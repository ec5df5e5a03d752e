"""The training steps in a run folder, each whole and once, also while the run is being written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.record.folder import RunFolder


@dataclass
class Step:
    """Everything on record of one training step.

    Attributes:
        index: From 0.
        values: Metrics by key, evaluations during training among them; without those that were not finite.
        completions: The completions kept of this step, as `completions.jsonl` has them.
    """

    index: int
    values: dict[str, float] = field(default_factory=dict)
    completions: list[dict[str, Any]] = field(default_factory=list)


class StepReader:
    """Reads a run folder onwards from where it was left.

    Args:
        folder: Of a run whose worker appends and does not rewind while this reads.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._metrics = _Tail(folder.metrics)
        self._completions = _Tail(folder.completions)
        self._open: Step | None = None
        self._waiting: list[dict[str, Any]] = []

    def steps(self, *, final: bool = False) -> Iterator[Step]:
        """The steps that became whole since the last call.

        A step is whole when a later one has begun, because its completions and evaluations come after its metrics.

        Args:
            final: Nothing more will be written: the last step is whole too.
        """
        rows = self._metrics.rows()
        # After the metrics: the completions of a step stand there before the metrics of the next.
        self._waiting += self._completions.rows()
        for row in rows:
            if self._open is not None and row["step"] > self._open.index:
                yield self._closed(self._open)
                self._open = None
            if self._open is None:
                self._open = Step(row["step"])
            self._open.values |= {key: value for key, value in row.items() if key != "step" and value is not None}
        if final and self._open is not None:
            yield self._closed(self._open)
            self._open = None

    def _closed(self, step: Step) -> Step:
        step.completions = [row for row in self._waiting if row["step"] == step.index]
        self._waiting = [row for row in self._waiting if row["step"] > step.index]
        return step


class _Tail:
    """The lines of a JSONL file that are new since the last look; one without a newline is not whole yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def rows(self) -> list[dict[str, Any]]:
        if not self._path.exists():
            return []
        with self._path.open("rb") as stream:
            stream.seek(self._offset)
            whole, newline, _ = stream.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise DataError(f"{self._path}: not JSON lines: {error}") from error
