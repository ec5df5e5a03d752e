"""A real sweep on a cluster that loses a node in the middle of it: the same tables as on one machine, to the bit."""

from __future__ import annotations

import contextlib
import io
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from sweep_contents import everything

from harness.launch.driver import SweepOutcome, run_sweep
from harness.launch.executor import Executor, make_executor
from harness.launch.executors.devices import num_cores
from harness.record.atomic import read_json, read_jsonl
from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.record.lease import read_owner
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep, load_sweep

from .conftest import CLUSTER_ENVIRONMENT, add_node, wait_until

pytestmark = pytest.mark.slow

SWEEP = """\
name: nodes
description: Two methods, long enough to be in the middle of.
base: {num_steps: 10, prompts_per_step: 2, num_train: 8}
axes:
  method: [grpo_d, sft]
  source: [counting]
  seed: [0]
blocks:
  - where: {method: [grpo_d]}
    set: {group_size: 2, max_completion_length: 24}
targets: [counting, geometry]
evaluation: {num_examples: 4, max_new_tokens: 24}
execution: {device: cpu}
"""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    monkeypatch.setenv("PYTHONPATH", CLUSTER_ENVIRONMENT["PYTHONPATH"])
    path = tmp_path / "nodes.yaml"
    path.write_text(SWEEP)
    return load_sweep(path)


def drive(sweep: Sweep, results: Path, executor: Executor) -> str:
    """Runs the sweep to its end; gives what was told."""
    out = io.StringIO()
    console = Console(file=out, width=200)
    with contextlib.closing(executor):
        outcome = run_sweep(sweep, results, executor=executor, wandb=False, checkpoint_every=1, console=console)
    assert outcome == SweepOutcome(2, 0, 0, False), out.getvalue()
    return out.getvalue()


def kill_node_under(cluster: Any, folder: RunFolder) -> None:
    """Kills the node that a run is on, once it is some steps ahead."""
    wait_until(lambda: folder.metrics.exists() and len(read_jsonl(folder.metrics)) >= 3, 300)
    owner = read_owner(folder.path)
    assert owner is not None
    above = {process.pid for process in psutil.Process(owner.process.pid).parents()}
    (node,) = [node for node in cluster.worker_nodes if node.all_processes["raylet"][0].process.pid in above]
    cluster.remove_node(node, allow_graceful=False)


def test_a_sweep_goes_on_without_a_node_to_the_same_numbers(cluster: Any, sweep: Sweep, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    # Sums depend on the number of threads: one for each run, here and there.
    drive(sweep, here, make_executor(ExecutorSettings(slots=num_cores()), sweep.execution))
    settings = ExecutorSettings(type="ray", address=cluster.address, cpus=1, slots=2)
    (lost,) = [run_id for run_id in sweep.runs if run_id.startswith("grpo_d")]
    killer = threading.Thread(target=kill_node_under, args=(cluster, RunFolder(there, lost)))
    executor = make_executor(settings, sweep.execution)
    killer.start()
    try:
        told = drive(sweep, there, executor)
    finally:
        killer.join()
        add_node(cluster, ({"127.0.0.2", "127.0.0.3"} - {node.node_ip_address for node in cluster.worker_nodes}).pop())
    assert everything(sweep, there) == everything(sweep, here)
    first, second = read_launches(RunFolder(there, lost))
    assert first.failure == "worker_lost" and first.code is None and first.error is not None
    assert first.error.startswith("the worker was lost: ray node 127.0.0.") and first.error.endswith(" was lost")
    assert first.error in told
    assert second.ended is None and second.handle["executor"] == "ray"
    attempts = read_json(RunFolder(there, lost).run_json)["attempts"]
    assert len(attempts) == 2 and attempts[1]["start_step"] >= 2
