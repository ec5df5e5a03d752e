"""A short GRPO-D training of the embedded policy, pinned number by number.

A change that moves these numbers changes what every run trains. Where that is meant, raise `IDENTITY_VERSION` in
`harness/spec/run.py` (not for a new embedded policy, whose digest is part of a run's identity) and write them anew:

    GOLDEN=write python -m pytest tests/golden
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from harness.policy import load_policy
from harness.spec import RunSpec
from harness.spec.run import model_identity
from harness.tasks.base import load_task
from harness.train.grpo import Grpo
from harness.train.loop import Loop
from harness.train.processes import Processes

FILE = Path(__file__).with_name("grpo_d.json")


def test_three_steps_of_grpo_d(tmp_path: Path, single_thread: None) -> None:
    spec = RunSpec(
        method={
            "type": "grpo_d",
            "num_steps": 3,
            "prompts_per_step": 4,
            "group_size": 4,
            "max_completion_length": 32,
            "lr": 3e-4,
            "lr_schedule": "linear",
            "schedule": {"type": "othink", "beta_min": 0.0, "beta_max": 0.1},
        },
        source="geometry",
        num_train=20,
        seed=1,
    )
    policy, processes = load_policy("embedded"), Processes("cpu")
    trainer = Grpo(spec, policy, load_task("geometry"), processes)
    assert spec.method.type == "grpo_d"
    loop = Loop(trainer, policy, spec.method, processes, checkpoints=tmp_path)
    rows = [
        {key: value for key, value in record.metrics.items() if not key.startswith("time/")} for record in loop.run()
    ]
    weights = {
        name: float(value.detach().double().square().sum().sqrt()) for name, value in policy.model.named_parameters()
    }
    assert all(row["rollout/zero_signal_frac"] < 1 for row in rows), "numbers without a signal pin nothing"
    record = {"model": model_identity("embedded"), "metrics": rows, "weight_norms": weights}
    if os.environ.get("GOLDEN") == "write":
        FILE.write_text(json.dumps(record, indent=1) + "\n")
    golden = json.loads(FILE.read_text())
    assert golden["model"] == record["model"], "pinned for another embedded policy: write the file anew, see above"
    for step, (row, pinned) in enumerate(zip(rows, golden["metrics"], strict=True)):
        assert row == pytest.approx(pinned, rel=1e-5, abs=1e-5), f"step {step}"
    assert weights == pytest.approx(golden["weight_norms"], rel=1e-5)
