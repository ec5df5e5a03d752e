"""Run folders of real workers on the embedded model, to be damaged and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import harness
from harness.record.atomic import read_json, read_jsonl, write_json
from harness.record.folder import RunFolder
from harness.record.recorder import job_folder
from harness.spec import Evaluation, Execution, Job, RunSpec

METHOD = {
    "type": "grpo",
    "num_steps": 6,
    "prompts_per_step": 2,
    "group_size": 2,
    "max_completion_length": 12,
    "lr": 1e-3,
}


def new_job(results: Path) -> Job:
    """Six steps, four examples, and a validation in the middle; its `job.json` is written."""
    job = Job(
        spec=RunSpec(method=METHOD, source="counting", num_train=8),
        targets=("counting",),
        evaluation=Evaluation(num_examples=4, every=3, num_validation=2, max_new_tokens=12),
        results=str(results),
        wandb=False,
        execution=Execution(device="cpu"),
        num_threads=1,
        checkpoint_every=2,
    )
    return _written(job)


def moved(job: Job, results: Path) -> Job:
    """The same run, copied to another results folder."""
    shutil.copytree(job_folder(job).path, results / "runs" / job.spec.run_id)
    return _written(job.model_copy(update={"results": str(results)}))


def _written(job: Job) -> Job:
    folder = job_folder(job)
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.job_json, job.model_dump(mode="json"))
    return job


def start(job: Job) -> subprocess.Popen[bytes]:
    """A worker, told to nobody: it claims its folder by itself."""
    folder = job_folder(job)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(harness.__file__).parents[1])}
    with folder.log.open("ab") as log:
        command = [sys.executable, "-m", "harness.worker", str(folder.job_json)]
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def finish(job: Job) -> RunFolder:
    """Works on a run until it is completed."""
    folder = job_folder(job)
    code = start(job).wait(timeout=300)
    assert code == 0, folder.log.read_text()
    return folder


def stop_after(job: Job, num_steps: int) -> RunFolder:
    """Works on a run and asks it to stop when so many steps are on record."""
    folder = job_folder(job)
    worker = start(job)
    try:
        deadline = time.monotonic() + 300
        while not folder.metrics.exists() or len(read_jsonl(folder.metrics)) < num_steps:
            assert worker.poll() is None and time.monotonic() < deadline, folder.log.read_text()
            time.sleep(0.005)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(timeout=60) == 143, folder.log.read_text()
    finally:
        worker.kill()
        worker.wait()
    return folder


def outcome(folder: RunFolder) -> dict[str, Any]:
    """Everything that must not depend on what a run went through."""
    rows = {
        path.name: [
            {key: value for key, value in row.items() if not key.startswith("time/")} for row in read_jsonl(path)
        ]
        for path in (*folder.rows, *folder.evaluations().values())
    }
    return {
        "summary": {key: value for key, value in read_json(folder.summary).items() if key != "attempt_s"},
        "weights": (folder.weights / "model.safetensors").read_bytes(),
        **rows,
    }
