"""A run as a worker records it, without a model: `python recorded_run.py JOB FIRST STOP END` mirrors it too."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from harness.record import Recorder, RunFolder
from harness.record.files import Files
from harness.record.mirror.mirror import Mirror
from harness.record.mirror.wandb_sink import WandbSink
from harness.spec import Job
from harness.tasks.example_pictures import ExamplePictures

CORRECT = {"counting": 3, "geometry": 1}
"""Of four answers each."""


def record(job: Job, first: int, stop: int, end: str = "completed", mirrors: Sequence[Mirror] = ()) -> None:
    """Records the training steps from `first` to before `stop` as an attempt.

    Args:
        job: With the targets counting and geometry.
        first: The step that the checkpoint is at.
        stop: After the last step.
        end: How the attempt ends: completed, interrupted, failed, or killed without a word.
        mirrors: The recorder's.
    """
    folder = RunFolder(job.results, job.spec.run_id)
    with contextlib.closing(Files(folder.path)) as files:
        _record(Recorder(folder, job, mirrors, files), first, stop, end)


def _record(recorder: Recorder, first: int, stop: int, end: str) -> None:
    recorder.start("cpu")
    recorder.resume_from(first)
    for step in range(first, stop):
        recorder.metrics(step, {"train/loss": step / 8, "rollout/reward": (1, 3, 2, 0)[step]})
        if step % 2 == 0:
            row = {"completion": "<answer> 3 </answer>", "reward": 1.0, "advantage": -0.5}
            recorder.completions(step, [{"id": f"counting/train/{index}", **row} for index in (0, 0, 1)])
        else:
            recorder.validation(step, "counting", {"accuracy": step / 8, "format": 1.0})
    if end == "killed":
        return
    if end == "interrupted":
        return recorder.interrupt(stop)
    if end == "failed":
        return recorder.fail(RuntimeError("out of luck"))
    for target, correct in CORRECT.items():
        row = {"completion": "3", "format": True, "num_tokens": 1}
        rows = [
            {"id": f"{target}/test/{index}", **row, "extracted": "3" if index else None, "correct": index < correct}
            for index in range(4)
        ]
        recorder.evaluation(target, rows)
    made = {
        target: {"num_examples": 4, "num_correct": correct, "accuracy": correct / 4, "format": 1.0, "protocol": "p"}
        for target, correct in CORRECT.items()
    }
    recorder.complete({"evaluations": made})


if __name__ == "__main__":
    job = Job.model_validate_json(sys.argv[1])
    folder = RunFolder(job.results, job.spec.run_id)
    mirror = Mirror(folder, "W&B", lambda: WandbSink(folder, ExamplePictures({}), follows=True))
    record(job, int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], [mirror])
    if sys.argv[4] == "killed":
        os._exit(9)
