"""Prefill, decoding and update of the harness beside their limits, in a process of its own.

``python -m benchmarks.phases TOLD`` with a case, the machine's limits and a number of repeats as JSON; `roofline.py`
starts it. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch

from benchmarks import ours
from benchmarks.operations import (
    Shapes,
    Sizes,
    decode_bytes,
    decode_operations,
    prefill_bytes,
    prefill_operations,
    update_bytes,
)
from benchmarks.stopwatch import Stopwatch
from benchmarks.workload import GROUP_SIZE, Case, rendered_task, run_spec


def against_limit(
    operations: float, num_bytes: float, measured_s: float, limits: Mapping[str, Any]
) -> dict[str, float | str]:
    """A phase beside its limit.

    Args:
        operations: That it must compute.
        num_bytes: That it must move.
        measured_s: What it took.
        limits: The machine's flops_per_s and bytes_per_s.

    Returns:
        operations, bytes, measured_s; limit_s, and `bound`, which of the two sets it; limit_frac, limit over measured.
    """
    compute_s, memory_s = operations / limits["flops_per_s"], num_bytes / limits["bytes_per_s"]
    limit_s = max(compute_s, memory_s)
    return {
        "operations": operations,
        "bytes": num_bytes,
        "measured_s": measured_s,
        "limit_s": limit_s,
        "bound": "compute" if compute_s >= memory_s else "memory",
        "limit_frac": limit_s / measured_s,
    }


def rollout(case: Case, limits: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """Prefill and decoding of a run's first prompts.

    All completions are as long as the workload allows, so that each decoding step has the same rows. Decoding is what
    a rollout of that length takes longer than one of a single token, which is the prefill.

    Args:
        case: The harness's side.
        limits: The machine's.
        repeats: Of each measurement; the median counts.
    """
    from harness.policy import load_policy, sample
    from harness.train.data import TrainingSet

    about, spec = case.about, run_spec(case)
    policy = load_policy(spec.model, about.device, precision=spec.precision)
    ours.never_end(policy)
    sizes = Sizes.of(policy.model.config.to_dict())
    drawn = TrainingSet(rendered_task(case, spec, policy), policy, spec.num_train, spec.seed).step(0, case.num_prompts)
    batch = policy.batch([prompt for _, _, prompt in drawn])
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand((case.num_prompts, GROUP_SIZE, about.max_new_tokens), generator=generator)
    stopwatch = Stopwatch(about.device)

    @torch.no_grad()
    def taken(num_tokens: int) -> float:
        started = stopwatch.now()
        features = policy.encode_images(batch)
        sample(policy, batch, features, max_new_tokens=num_tokens, uniforms=uniforms[..., :num_tokens])
        return stopwatch.now() - started

    def typical(num_tokens: int) -> float:
        taken(num_tokens)  # The first call also allocates, and on CUDA compiles or captures.
        return median(taken(num_tokens) for _ in range(repeats))

    shapes = Shapes(
        prompts=batch.lengths.tolist(),
        completions=[[about.max_new_tokens] * GROUP_SIZE] * case.num_prompts,
        patches=[frames * rows * columns for frames, rows, columns in batch.grids],
    )
    prefill_s = typical(1)
    decode_s = typical(about.max_new_tokens) - prefill_s
    num_steps = about.max_new_tokens - 1
    prefill = prefill_operations(sizes, shapes), prefill_bytes(sizes, shapes, about.precision)
    decode = decode_operations(sizes, shapes), decode_bytes(sizes, shapes, about.precision, is_shared=True)
    return {
        "prefill": against_limit(*prefill, prefill_s, limits),
        "decode": against_limit(*decode, decode_s, limits)
        | {"step_s": decode_s / num_steps, "tokens_per_s": case.num_prompts * GROUP_SIZE * num_steps / decode_s},
    }


def update(case: Case, limits: Mapping[str, Any], repeats: int) -> dict[str, Any]:
    """The update of the last steps of a run; the one of median length counts, with its own operations."""
    measured = ours.measure(case)
    steps = sorted(measured["steps"][-repeats:], key=lambda step: float(step["update_s"]))
    step = steps[len(steps) // 2]
    moved = update_bytes(measured["num_parameters"], case.about.precision, case.num_passes)
    return {"update": against_limit(step["update_operations"], moved, step["update_s"], limits)}


def main(told: Mapping[str, Any]) -> None:
    """Measures and prints."""
    case = Case(**told["case"])
    torch.set_num_threads(case.num_threads)
    phases = rollout(case, told["limits"], told["repeats"]) | update(case, told["limits"], told["repeats"])
    print(json.dumps(phases))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
