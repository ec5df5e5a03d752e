"""One run for TensorBoard: the numbers of its folder as event files, written anew by every attempt."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.mirror.described import scores
from harness.record.mirror.steps import Step


class TensorboardSink:
    """A :class:`harness.record.mirror.mirror.Sink` for TensorBoard.

    Args:
        folder: The run's; the event files go to `tensorboard/` in it, in the place of those of earlier attempts.

    Attributes:
        is_live: Always.
        whereabouts: The command that shows them.
    """

    is_live = True

    def __init__(self, folder: RunFolder) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self.whereabouts = f"TensorBoard: tensorboard --logdir {folder.tensorboard}"
        folder.refuse_links()
        # From the first step again: two files that both hold a step would show it twice.
        shutil.rmtree(folder.tensorboard, ignore_errors=True)
        self._writer = SummaryWriter(str(folder.tensorboard), flush_secs=10)
        self._next_step = 0

    def step(self, step: Step) -> None:
        """Writes a step's metrics under their own keys, and its completions as text."""
        for key, value in step.values.items():
            self._writer.add_scalar(key, value, step.index)
        if step.completions:
            texts = (f"reward {row['reward']:g}: {row['completion']}" for row in step.completions)
            self._writer.add_text("completions", "\n\n".join(texts), step.index)
        self._next_step = step.index + 1

    def evaluation(self, target: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing here: the means of an evaluation come with the scores."""

    def close(self, exit_code: int) -> None:
        """Writes the scores of a completed run, one step after its last."""
        found = scores(self._folder, read_json(self._folder.run_json)["spec"]["source"])
        for key, value in found.items():
            if not isinstance(value, str):
                self._writer.add_scalar(key, value, self._next_step)
        self._writer.close()
