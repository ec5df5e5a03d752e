"""One side of the comparison: the harness's own loop, timed from one finished step to the next."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.operations import Shapes, Sizes, decode_bytes, update_operations
from benchmarks.stopwatch import Stopwatch, loaded_gib
from benchmarks.workload import Case, pass_tokens, rendered_task, run_spec

if TYPE_CHECKING:
    from harness.policy import Policy
    from harness.train.method import Batch


def measure(case: Case) -> dict[str, Any]:
    """Trains a few steps.

    Returns:
        steps: a row each, with step_s, collect_s, sampling_s (GRPO), update_s and what :func:`counts` counts.
        loaded_gib: memory before the first step.
        num_parameters: weights that learn.

    Raises:
        RuntimeError: What is to be timed was not seen, or a completion has not the forced length.
    """
    from harness.policy import load_policy
    from harness.spec import Execution
    from harness.spec.methods import Trained
    from harness.spec.names import METHODS, resolve
    from harness.train.allocator import keep_freed_memory
    from harness.train.loop import Loop
    from harness.train.processes import Processes

    about, spec = case.about, run_spec(case)
    assert isinstance(spec.method, Trained)
    processes = Processes(about.device)
    if about.device == "cpu":
        keep_freed_memory()  # as the worker does
    policy = load_policy(spec.model, processes.device, precision=spec.precision)
    sizes = Sizes.of(policy.model.config.to_dict())
    task = rendered_task(case, spec, policy)
    tokens = pass_tokens(case, spec, policy, task)
    if about.is_forced and case.method == "grpo":
        never_end(policy)
    stopwatch = Stopwatch(about.device)
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(device=about.device, micro_batch_tokens=tokens)
        method = resolve(METHODS, "method", case.method)(spec, policy, task, processes, execution)
        loop = Loop(method, policy, spec.method, processes, checkpoints=Path(folder), micro_batch_tokens=tokens)
        held = loaded_gib(about.device)
        with watched(case, method, stopwatch):
            stopwatch.start()
            for record in loop.run():
                shapes = shapes_of(record.batch)
                stopwatch.step_done(lambda shapes=shapes: counts(case, sizes, shapes, is_shared=True))  # type: ignore[misc]
    learning = sum(weight.numel() for weight in policy.model.parameters() if weight.requires_grad)
    return {"steps": stopwatch.steps, "loaded_gib": held, "num_parameters": learning}


def never_end(policy: Policy) -> None:
    """Makes every completion as long as it may be: its end is a token that sampling gives probability 0."""
    policy.end_token_ids = (policy.family.image_token_id,)


@contextmanager
def watched(case: Case, method: Any, stopwatch: Stopwatch) -> Iterator[None]:
    """Times a method's `collect`, and within it sampling: what `generate` does on the other side.

    That is images encoded, prompts run, tokens decoded.
    """
    method.collect = stopwatch.timed("collect_s", method.collect)
    if case.method == "sft":
        yield
        return
    module: Any = sys.modules[type(method).__module__]
    plain = module.sample
    method.encoder.encode = stopwatch.timed("sampling_s", method.encoder.encode)
    module.sample = stopwatch.timed("sampling_s", plain)
    try:
        yield
    finally:
        module.sample = plain


def shapes_of(batch: Batch) -> Shapes:
    """The lengths of a step."""
    return Shapes(
        prompts=batch.prompts.lengths.tolist(),
        completions=batch.lengths.tolist(),
        patches=[math.prod(grid) for grid in batch.prompts.grids],
    )


def counts(case: Case, sizes: Sizes, shapes: Shapes, *, is_shared: bool) -> dict[str, float]:
    """num_tokens, update_operations and, of a rollout, decode_bytes, counted for the layout that a side has.

    Raises:
        RuntimeError: The workload forces lengths, and a completion has another.
    """
    wanted = case.about.max_new_tokens
    if case.method == "sft":
        rollout = {}
    else:
        if case.about.is_forced and any(length != wanted for group in shapes.completions for length in group):
            raise RuntimeError(f"{case.side}: a completion has not the {wanted} tokens that were forced")
        rollout = {"decode_bytes": decode_bytes(sizes, shapes, case.about.precision, is_shared=is_shared)}
    return {
        "num_tokens": shapes.num_tokens,
        "prompt_tokens": sum(shapes.prompts),
        "update_operations": update_operations(sizes, shapes, is_shared=is_shared),
        **rollout,
    }
