"""A driver as a process of its own: `drive.py SWEEP RESULTS` runs a sweep where it says, and prints the outcome."""

from __future__ import annotations

import dataclasses
import json
import sys

from harness.launch.driver import run_sweep
from harness.spec.sweep import load_sweep

if __name__ == "__main__":
    outcome = run_sweep(load_sweep(sys.argv[1]), sys.argv[2], wandb=False, checkpoint_every=3)
    print(json.dumps(dataclasses.asdict(outcome)))
