"""A short run, in one process or in several under torchrun: python train_small.py SPEC OUT [EXECUTION], in JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from harness.evaluate import evaluate
from harness.policy import load_policy
from harness.spec import Execution, RunSpec
from harness.spec.names import METHODS, resolve
from harness.tasks.base import load_task
from harness.train.loop import Loop
from harness.train.processes import Processes


def main(spec: RunSpec, out: Path, execution: Execution) -> None:
    torch.set_num_threads(1)
    processes = Processes("cpu")
    policy = load_policy(spec.model, precision=spec.precision)
    task = load_task("counting")
    trainer = resolve(METHODS, "method", spec.method.type)(spec, policy, task, processes)
    policy.family.checkpointing = execution.gradient_checkpointing
    loop = Loop(
        trainer,
        policy,
        spec.method,
        processes,
        checkpoints=out / "checkpoint",
        micro_batch_tokens=execution.micro_batch_tokens,
        sharded=execution.sharding == "fsdp",
    )
    loop.resume()
    rows = [record.metrics for record in loop.run()]
    loop.save()
    # A DTensor's own numel is that of the whole.
    held = [state["exp_avg"] for state in loop.optimizer.adamw.state.values()]
    moments = processes.gather([sum(getattr(each, "_local_tensor", each).numel() for each in held)])
    answers = evaluate(policy, task, "test", 5, processes, max_new_tokens=20)
    if processes.is_main:
        out.mkdir(parents=True, exist_ok=True)
        record = {"num_processes": processes.count, "metrics": rows, "answers": answers, "moments": moments}
        (out / "record.json").write_text(json.dumps(record))
        weights = {name: value.detach() for name, value in policy.model.named_parameters()}
        save_file(weights, out / "weights.safetensors")
    processes.wait()
    processes.accelerator.end_training()


if __name__ == "__main__":
    chosen = sys.argv[3] if len(sys.argv) > 3 else "{}"
    main(RunSpec.model_validate_json(sys.argv[1]), Path(sys.argv[2]), Execution.model_validate_json(chosen))
