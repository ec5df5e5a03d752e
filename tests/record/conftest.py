from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.record import Recorder, RunFolder
from harness.record.files import Files
from harness.spec import Job, RunSpec

MODEL = "Qwen/Qwen2-VL-2B-Instruct"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    spec = RunSpec(model=MODEL, method={"type": "grpo", "num_steps": 10}, source="counting", seed=3)
    return Job(spec=spec, targets=("counting",), results=str(tmp_path / "results"), sweep="quickstart")


@pytest.fixture
def folder(job: Job) -> RunFolder:
    return RunFolder(job.results, job.spec.run_id)


@pytest.fixture
def files(folder: RunFolder) -> Iterator[Files]:
    """The way to write into the folder of a run that nobody else holds."""
    folder.path.mkdir(parents=True)
    files = Files(folder.path)
    yield files
    files.close()


@pytest.fixture
def recorder(folder: RunFolder, job: Job, files: Files) -> Recorder:
    recorder = Recorder(folder, job, files=files)
    recorder.start("cpu", num_threads=1)
    return recorder
