"""Sweeps of the embedded policy on a real SLURM: whatever happens to the jobs, the numbers are those of a quiet run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import HERE, wait_until

import harness
from harness.record import RunFolder, read_json, read_jsonl, read_state, run_folders
from harness.record.launches import read_launches

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SWEEP = """\
name: cluster
description: The embedded policy, a little further.
axes:
  method: [grpo_d]
  source: [counting]
  seed: {seeds}
  num_steps: [{num_steps}]
  prompts_per_step: [2]
  group_size: [4]
  max_completion_length: [16]
targets: [counting]
evaluation: {{num_examples: 6, every: 8, num_validation: 2, max_new_tokens: 16}}
execution: {{device: cpu, lease_s: 120}}
executor: {executor}
"""
SLURM = "{type: slurm, cpus: 1, memory_gib: 2.5, partition: low}"
"""A node of the test's cluster has memory for one."""
LOCAL = "{type: local, slots: 64}"
"""So many that each has one thread, as those of SLURM: sums depend on it."""

Drive = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def drive(results: Path) -> Iterator[Drive]:
    """Starts drivers as processes and ends those that are left."""
    started = []

    def start(executor: str = SLURM, seeds: tuple[int, ...] = (0,), num_steps: int = 16) -> subprocess.Popen[str]:
        results.mkdir(exist_ok=True)
        started.append(_driver(results, executor, seeds, num_steps))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="session")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """What the runs come to on this machine when nobody disturbs them."""
    known: dict[tuple[Any, ...], dict[str, Any]] = {}

    def run(seeds: tuple[int, ...] = (0,), num_steps: int = 16) -> dict[str, Any]:
        if (seeds, num_steps) not in known:
            results = tmp_path_factory.mktemp("quiet")
            assert _driver(results, LOCAL, seeds, num_steps).wait(600) == 0
            known[seeds, num_steps] = numbers(results)
        return known[seeds, num_steps]

    return run


def _driver(results: Path, executor: str, seeds: tuple[int, ...], num_steps: int) -> subprocess.Popen[str]:
    file = results.with_name(f"{results.name}.yaml")
    file.write_text(SWEEP.format(executor=executor, seeds=list(seeds), num_steps=num_steps))
    environment = os.environ | {"PYTHONPATH": str(Path(harness.__file__).parents[1])}
    with open(results.with_name(f"{results.name}.txt"), "a") as log:
        command = [sys.executable, str(HERE / "drive.py"), str(file), str(results)]
        return subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environment)


def numbers(results: Path) -> dict[str, Any]:
    """Summary, metrics and evaluation of each run, without times."""
    found = {}
    for folder in run_folders(results):
        summary = read_json(folder.summary)
        del summary["attempt_s"]
        rows = [{key: row[key] for key in row if not key.startswith("time/")} for row in read_jsonl(folder.metrics)]
        found[folder.run_id] = (summary, rows, read_jsonl(folder.evaluation("counting")))
    return found


def only_run(results: Path) -> RunFolder:
    wait_until(lambda: len(run_folders(results)) == 1)
    return run_folders(results)[0]


def wait_for_step(folder: RunFolder, step: int) -> None:
    wait_until(lambda: folder.metrics.exists() and len(read_jsonl(folder.metrics)) > step, 240)


def node_of(cluster, job: str) -> str:
    (node,) = (line.split("=")[1] for line in cluster.squeue("%i=%N") if line.startswith(f"{job}="))
    return node


def outcomes(folder: RunFolder) -> list[tuple[str | None, int]]:
    """How each attempt ended and at which step it began."""
    return [(one["outcome"], one["start_step"]) for one in read_json(folder.run_json)["attempts"]]


def preempt(cluster) -> None:
    for node in ("n1", "n2"):
        cluster.submit("--partition=high", "--exclusive", f"--nodelist={node}", "--wrap=sleep 2")


def test_an_array_of_two_runs_on_two_nodes(cluster, drive, quiet, results) -> None:
    expected = quiet((0, 1))
    assert drive(seeds=(0, 1)).wait(400) == 0
    assert numbers(results) == expected
    handles = [read_launches(folder)[-1].handle for folder in run_folders(results)]
    assert len({handle["job"].split("_")[0] for handle in handles}) == 1
    assert {node_of(cluster, handle["job"]) for handle in handles} == {"n1", "n2"}


def test_a_time_limit(cluster, drive, quiet, results) -> None:
    expected = quiet()
    driver = drive("{type: slurm, cpus: 1, memory_gib: 2.5, time_min: 2, grace_s: 30}")
    folder = only_run(results)
    wait_for_step(folder, 2)
    # However quick this machine is, the run is not over before its time: SLURM's signal wakes it, and it saves.
    os.kill(read_state(folder).pid, signal.SIGSTOP)
    assert driver.wait(400) == 0
    ends, starts = zip(*outcomes(folder), strict=True)
    assert ends[0] == "interrupted" and ends[-1] == "completed" and starts[-1] > 2
    assert len(read_launches(folder)) == 1  # one job of SLURM, whatever it went through
    assert numbers(results) == expected


def test_a_preemption_while_no_driver_lives(cluster, drive, quiet, results) -> None:
    expected = quiet()
    driver = drive()
    folder = only_run(results)
    wait_for_step(folder, 4)
    driver.kill()
    preempt(cluster)
    wait_until(folder.summary.exists, 300)
    wait_until(lambda: read_state(folder).status == "completed")
    assert [end for end, _ in outcomes(folder)] == ["interrupted", "completed"] and outcomes(folder)[1][1] > 4
    assert numbers(results) == expected


def test_stop_and_go_on(cluster, drive, quiet, results) -> None:
    expected = quiet()
    driver = drive()
    folder = only_run(results)
    wait_for_step(folder, 4)
    driver.send_signal(signal.SIGINT)
    driver.wait(60)
    assert read_state(folder).status == "pending" and outcomes(folder)[-1][0] == "interrupted"
    job = read_launches(folder)[-1].handle["job"]
    assert [line for line in cluster.squeue("%i=%T") if line.startswith(f"{job}=")] == [f"{job}=FAILED"]
    assert drive().wait(300) == 0
    assert outcomes(folder)[-1][0] == "completed" and outcomes(folder)[-1][1] > 4
    assert numbers(results) == expected


def test_the_next_driver_adopts_a_job_that_waits(cluster, drive, quiet, results) -> None:
    expected = quiet()
    hog = ("--partition=high", "--exclusive", "--wrap=sleep 600")
    others = [cluster.submit(*hog, f"--nodelist={node}") for node in ("n1", "n2")]
    wait_until(lambda: [line for line in cluster.squeue("%T")].count("RUNNING") == 2)
    first = drive()
    folder = only_run(results)
    wait_until(lambda: read_launches(folder) and read_launches(folder)[-1].handle)
    job = read_launches(folder)[-1].handle["job"]
    assert f"{job}=PENDING" in cluster.squeue("%i=%T")
    first.kill()
    first.wait()
    second = drive()
    log = results.with_name(f"{results.name}.txt")
    wait_until(lambda: "adopted" in log.read_text(), 60)
    subprocess.run(["scancel", *others], check=True)
    assert second.wait(300) == 0
    assert [launch.handle["job"] for launch in read_launches(folder)] == [job]
    assert outcomes(folder) == [("completed", 0)]
    assert numbers(results) == expected


def test_a_lost_node(cluster, drive, quiet, results) -> None:
    expected = quiet()
    driver = drive()
    folder = only_run(results)
    wait_for_step(folder, 4)
    job = read_launches(folder)[-1].handle["job"]
    node = node_of(cluster, job)
    cluster.lose(node)
    try:
        assert driver.wait(400) == 0
        # SLURM queues the job again, or the driver, who saw the silence first, another.
        assert node_of(cluster, read_launches(folder)[-1].handle["job"]) == {"n1": "n2", "n2": "n1"}[node]
        assert [end for end, _ in outcomes(folder)] == [None, "completed"] and outcomes(folder)[1][1] > 0
        assert numbers(results) == expected
    finally:
        cluster.restore(node)
