"""A driver as a process of its own: `drive.py SWEEP RESULTS SLOTS` runs fake workers and prints the outcome."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from harness.launch.driver import run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import load_sweep

if __name__ == "__main__":
    sweep, results, slots = sys.argv[1:]
    worker = [sys.executable, str(Path(__file__).with_name("fake_worker.py"))]
    loaded = load_sweep(sweep)
    executor = LocalExecutor(ExecutorSettings(slots=int(slots)), command=worker)
    outcome = run_sweep(loaded, results, executor=executor, wandb=False, retry_failed=True)
    print(json.dumps(dataclasses.asdict(outcome)))
