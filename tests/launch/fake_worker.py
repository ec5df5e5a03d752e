"""A worker without a model: obeys the worker's contract through the recorder and does what `behaviour.json` tells.

`behaviour.json` lies in the results folder and maps run ids to one of: complete (the default), fail, kill, silent,
early, wait, meet, gate.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from harness.errors import FencedError
from harness.record.atomic import write_json
from harness.record.failures import FENCED
from harness.record.folder import RunFolder
from harness.record.lease import claim
from harness.record.recorder import Recorder
from harness.spec import Job

DEADLINE_S = 30.0
stops: list[int] = []


def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("waited too long")
        time.sleep(0.01)


def complete(recorder: Recorder, job: Job) -> None:
    evaluations = {}
    for target in job.targets:
        num = job.evaluation.num_examples
        rows = [{"index": index, "correct": index % 2 == 0} for index in range(num)]
        recorder.progress("evaluate", 0, num, target)
        recorder.evaluation(target, rows)
        correct = sum(row["correct"] for row in rows)
        evaluations[target] = {"num_examples": num, "num_correct": correct, "accuracy": correct / num}
    recorder.complete({"evaluations": evaluations})


def main() -> int:
    job = Job.model_validate_json(Path(sys.argv[1]).read_text())
    results = Path(job.results)
    folder = RunFolder(results, job.spec.run_id)
    orders = results / "behaviour.json"
    behaviour = json.loads(orders.read_text()).get(folder.run_id, "complete") if orders.exists() else "complete"
    if behaviour == "early":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.signal(signal.SIGTERM, lambda number, frame: stops.append(number))
    begin = time.monotonic()
    try:
        lease = claim(folder.path, job.reserved)
    except FencedError as error:
        print(error, flush=True)
        return FENCED
    recorder = Recorder(folder, job, files=lease.files)
    recorder.start("cpu")
    recorder.resume_from(0)
    recorder.progress("train", 0, 4)
    recorder.metrics(0, {"rollout/reward": 1.25, "train/loss": 0.5})
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES")
    write_json(folder.path / "environment.json", {name: os.environ.get(name) for name in names})
    (folder.path / "here").touch()
    if behaviour == "fail":
        recorder.fail(RuntimeError("no reward for example counting/train/7"))
        return 1
    if behaviour == "kill":
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "silent":
        print("thread panicked", flush=True)
        return 7
    if behaviour == "wait":
        until(lambda: stops)
        recorder.interrupt(2)
        return 143
    if behaviour == "meet":
        until(lambda: len(list(results.glob("runs/*/here"))) >= 2)
    if behaviour == "gate":
        until((results / "go").exists)
    complete(recorder, job)
    write_json(folder.path / "span.json", [begin, time.monotonic()])
    return 0


if __name__ == "__main__":
    sys.exit(main())
