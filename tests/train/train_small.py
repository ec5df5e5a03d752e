"""A short run, in one process or in several under torchrun: python train_small.py SPEC OUT, the spec as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from harness.evaluate import evaluate
from harness.policy import load_policy
from harness.spec import RunSpec
from harness.spec.names import METHODS, resolve
from harness.tasks.base import load_task
from harness.train.loop import Loop
from harness.train.processes import Processes


def main(spec: RunSpec, out: Path) -> None:
    torch.set_num_threads(1)
    processes = Processes("cpu", spec.precision)
    policy = load_policy(spec.model)
    task = load_task("counting")
    trainer = resolve(METHODS, "method", spec.method.type)(spec, policy, task, processes)
    loop = Loop(trainer, policy, spec.method, processes, checkpoints=out / "checkpoint")
    rows = [record.metrics for record in loop.run()]
    answers = evaluate(policy, task, "test", 5, processes, max_new_tokens=20)
    if processes.is_main:
        out.mkdir(parents=True, exist_ok=True)
        record = {"num_processes": processes.count, "metrics": rows, "answers": answers}
        (out / "record.json").write_text(json.dumps(record))
        weights = {name: value.detach() for name, value in policy.model.named_parameters()}
        save_file(weights, out / "weights.safetensors")
    processes.wait()
    processes.accelerator.end_training()


if __name__ == "__main__":
    main(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
