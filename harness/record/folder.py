"""Where everything of a run lies: `results/runs/<run_id>/`. No other module builds these paths."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.spec.methods import Split


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run; owns every path in it and creates none of them.

    Attributes:
        results: The results folder.
        run_id: The run's name.
    """

    results: Path
    run_id: str

    def __init__(self, results: Path | str, run_id: str) -> None:
        object.__setattr__(self, "results", Path(results))
        object.__setattr__(self, "run_id", run_id)

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
        """A row per example of a target; `eval/<target>.jsonl` are those of the test split."""
        return self._evaluated(split) / f"{target}.jsonl"

    def evaluations(self, split: Split = "test") -> dict[str, Path]:
        """The evaluations on record: target -> file, by name."""
        return {file.stem: file for file in sorted(self._evaluated(split).glob("[!.]*.jsonl"))}

    def _evaluated(self, split: Split) -> Path:
        return self.path / "eval" if split == "test" else self.path / "eval" / split

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


def run_folders(results: Path | str) -> list[RunFolder]:
    """The folders of all runs under a results folder, by run id; empty where there is none."""
    runs = Path(results) / "runs"
    return [RunFolder(results, path.name) for path in sorted(runs.glob("[!.]*")) if path.is_dir()]
