"""Where everything of a run lies: `results/runs/<run_id>/`. No other module builds these paths.

Names come from records and exports that anybody may have written, so none of them may lead out of the results folder.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from harness.errors import DataError, nearest, shortened
from harness.spec.methods import Split

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$"
"""A run's, a sweep's or a task's name: one file or folder, on every system."""


def checked_name(kind: str, name: str) -> str:
    """The name, where it can be that of a file or folder and leads nowhere else.

    Args:
        kind: What it names, for the message.
        name: As a record or a command has it.

    Raises:
        DataError: It cannot.
    """
    if not isinstance(name, str) or not is_name(name):
        raise DataError(
            f"'{shortened(str(name))}' cannot be a {kind}: up to 200 letters, digits, '.', '_' and '-' are allowed"
        )
    return name


def is_name(name: str) -> bool:
    """Whether this can be the name of a run, a sweep or a task."""
    return re.fullmatch(NAME, name) is not None


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; owns every path in it and creates none of them.

    Attributes:
        results: The results folder.
        run_id: The run's name.

    Raises:
        DataError: The run id cannot be a folder's name.
    """

    results: Path
    run_id: str

    def __init__(self, results: Path | str, run_id: str) -> None:
        object.__setattr__(self, "results", Path(results))
        object.__setattr__(self, "run_id", checked_name("run id", run_id))

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.results / "runs" / self.run_id

    @property
    def job_json(self) -> Path:
        """What the worker was handed."""
        return self.path / "job.json"

    @property
    def run_json(self) -> Path:
        """The resolved spec, provenance and attempts."""
        return self.path / "run.json"

    @property
    def state_json(self) -> Path:
        """How far the run is; see :mod:`harness.record.state`."""
        return self.path / "state.json"

    @property
    def metrics(self) -> Path:
        """A row per training step, and one per target for each evaluation during training."""
        return self.path / "metrics.jsonl"

    @property
    def completions(self) -> Path:
        """The sampled completions that a method chose to keep."""
        return self.path / "completions.jsonl"

    @property
    def validations(self) -> Path:
        """The completions of each evaluation during training, a row per step and validation example."""
        return self.path / "validations.jsonl"

    def evaluation(self, target: str, split: Split = "test") -> Path:
        """A row per example of a target; `eval/<target>.jsonl` are those of the test split.

        Raises:
            DataError: The target cannot be a file's name, or there is no such split.
        """
        return self._evaluated(split) / f"{checked_name('target', target)}.jsonl"

    def evaluations(self, split: Split = "test") -> dict[str, Path]:
        """The evaluations on record: target -> file, by name."""
        return {file.stem: file for file in sorted(self._evaluated(split).glob("[!.]*.jsonl"))}

    def _evaluated(self, split: Split) -> Path:
        if split not in get_args(Split):
            raise DataError(f"unknown split '{shortened(str(split))}': {nearest(str(split), get_args(Split))}")
        return self.path / "eval" if split == "test" else self.path / "eval" / split

    @property
    def marks(self) -> Path:
        """What the files of rows held when a checkpoint was made; see :mod:`harness.record.marks`."""
        return self.path / "marks.json"

    @property
    def launches(self) -> Path:
        """Every worker that a driver started on the run, and how it ended; see :mod:`harness.record.launches`."""
        return self.path / "launches.json"

    @property
    def quarantine(self) -> Path:
        """Files that turned out to be damaged; see :mod:`harness.record.quarantine`."""
        return self.path / "quarantine"

    @property
    def rows(self) -> tuple[Path, ...]:
        """The files that grow by rows while a run trains."""
        return self.metrics, self.completions, self.validations

    @property
    def checkpoint(self) -> Path:
        """The folder that a resumed run starts from."""
        return self.path / "checkpoint"

    @property
    def weights(self) -> Path:
        """The folder of the trained weights, as safetensors."""
        return self.path / "weights"

    @property
    def wandb_json(self) -> Path:
        """What of the run is where in W&B; see :mod:`harness.record.mirror.publication`."""
        return self.path / "wandb.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def log(self) -> Path:
        """What the worker printed, all attempts."""
        return self.path / "log.txt"

    @property
    def summary(self) -> Path:
        """Written last: a run is completed when, and only when, this file is there."""
        return self.path / "summary.json"

    def refuse_links(self) -> None:
        """Does nothing for a folder of real files; to be called before anything is written or removed in it.

        Raises:
            DataError: It is a link, or holds one: what is written or removed there would be elsewhere.
        """
        evaluations = (self._evaluated(split) for split in get_args(Split))
        for folder in (self.path, *evaluations):
            is_real = folder.is_dir() and not folder.is_symlink()
            for path in (folder, *(folder / name for name in (os.listdir(folder) if is_real else ()))):
                if path.is_symlink():
                    raise DataError(f"{path} is a link to {os.readlink(path)}: a run is kept in files of its own")


def run_folders(results: Path | str) -> list[RunFolder]:
    """The folders of all runs under a results folder, by run id; empty where there is none.

    What else lies there, under names that no run could have, is left alone.
    """
    runs = Path(results) / "runs"
    return [RunFolder(results, path.name) for path in sorted(runs.glob("*")) if is_name(path.name) and path.is_dir()]
