"""A worker whose accuracy is a known function of its settings: the middle of the range is best, every step adds.

`behaviour.json` in the results folder maps run ids to `kill` (dies once, before its summary) or `slow`.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from pathlib import Path

from harness.errors import FencedError
from harness.record.failures import FENCED
from harness.record.folder import RunFolder
from harness.record.lease import claim
from harness.record.recorder import Recorder
from harness.record.state import SUMMARY_KEYS
from harness.spec import Job

STEPS = (1, 2, 3, 4)


def accuracy(lr: float, seed: int, step: int) -> float:
    """In hundredths; best at lr 1e-4."""
    return round(0.9 - 0.2 * abs(math.log10(lr) + 4) - 0.1 * (STEPS[-1] - step) / STEPS[-1] + 0.01 * seed, 2)


def main() -> int:
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    folder = RunFolder(job.results, job.spec.run_id)
    orders = Path(job.results) / "behaviour.json"
    behaviour = json.loads(orders.read_text()).get(folder.run_id) if orders.exists() else None
    stops: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    try:
        lease = claim(folder.path, job.reserved)
    except FencedError:
        return FENCED
    recorder = Recorder(folder, job, files=lease.files)
    recorder.start("cpu")
    first = len(folder.metrics.read_text().splitlines()) if folder.metrics.exists() else 0
    recorder.resume_from(first)
    lr = getattr(job.spec.method, "lr", 1e-4)
    for step in STEPS[first:]:
        recorder.validation(step - 1, "counting", {"accuracy": accuracy(lr, job.spec.seed, step), "format": 1.0})
        recorder.progress("train", step, STEPS[-1])
        if behaviour == "kill" and len(json.loads(folder.run_json.read_text())["attempts"]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        deadline = time.monotonic() + (1.0 if behaviour == "slow" else 0.0)
        while not stops and time.monotonic() < deadline:
            time.sleep(0.01)
        if stops:
            recorder.interrupt(step)
            return 143
    made: dict[str, dict[str, object]] = {key: {} for key in SUMMARY_KEYS.values()}
    for split in job.evaluation.splits:
        num = job.evaluation.num(split)
        correct = round(num * accuracy(lr, job.spec.seed, STEPS[-1]))
        rows = [{"index": index, "correct": index < correct, "format": True} for index in range(num)]
        recorder.evaluation("counting", rows, split)
        made[SUMMARY_KEYS[split]]["counting"] = {
            "num_examples": num,
            "num_correct": correct,
            "accuracy": correct / num,
            "max_new_tokens": None,
            "protocol": "r1v_counting",
        }
    recorder.complete({**made, "train": {}})
    return 0


if __name__ == "__main__":
    sys.exit(main())
