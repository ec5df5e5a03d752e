"""A driver as a process of its own: `drive.py SWEEP RESULTS` runs the faulty worker and prints the outcome."""

from __future__ import annotations

import dataclasses
import json
import sys

from harness.launch.driver import run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import load_sweep

if __name__ == "__main__":
    sweep, results = sys.argv[1:]
    executor = LocalExecutor(ExecutorSettings(slots=2, grace_s=10), Execution(device="cpu"), module="faulty_worker")
    try:
        outcome = run_sweep(load_sweep(sweep), results, executor=executor, wandb=False, checkpoint_every=1)
    finally:
        executor.close()
    print(json.dumps(dataclasses.asdict(outcome)))
