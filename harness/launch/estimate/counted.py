"""What a run takes by the operations that its model needs, where nothing of its kind was measured.

Only a Qwen2-VL can be counted, from the `config.json` of a folder or of the hub's local cache. Lengths that nobody can
know beforehand are those of :data:`ASSUMED`, and so is the speed of a device: who shows such an estimate shows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from harness.launch.estimate.operations import (
    Shapes,
    Sizes,
    causal_pairs,
    decode_operations,
    head_operations,
    prefill_operations,
    text_operations,
    update_operations,
)
from harness.spec import Execution, RunSpec, Sft
from harness.spec.methods import Evaluation, Grpo, GrpoD, Trained
from harness.spec.profiles import evaluation_tokens
from harness.spec.run import embedded_folder

CPU_SPEED = 1e10
"""Operations per second of a CPU thread, assumed: an embedded policy's step makes 1.3e10 on each of two (AMD EPYC)."""
GPU_SPEED = 3e13
"""Of one GPU, likewise: decoding is bound by memory, so a step stays far below what a GPU can multiply."""
START_S = 10.0
"""Of a worker, until its first step; assumed."""

_TEXT = 96
_PIXELS = 448 * 448
_IMITATED = 32
_EVALUATED = 256

ASSUMED = (
    f"images of at most {_PIXELS} pixels and {_TEXT} tokens of text in a prompt",
    f"sampled completions at their longest; {_IMITATED} tokens imitated; {_EVALUATED} evaluated where not set",
    f"{CPU_SPEED:.0e} operations/s of a CPU thread, {GPU_SPEED:.0e} of a GPU; {START_S:.0f} s to start",
)


@dataclass(frozen=True)
class Counted:
    """A run's operations.

    Attributes:
        per_step: Of a training step, on all of its devices together; 0 without training.
        per_example: Of an evaluated example.
        gib: Of weights, gradients, optimiser state and reference on each device: no peak is lower.
    """

    per_step: float
    per_example: float
    gib: float


def count(spec: RunSpec, evaluation: Evaluation, execution: Execution) -> Counted | None:
    """A run's operations; None for a model that is not here or cannot be counted."""
    found = _model(spec.model)
    if found is None:
        return None
    sizes, patch_pixels, bound = found
    pixels = min(bound, _PIXELS, spec.max_pixels or _PIXELS)
    patches = max(pixels // patch_pixels // sizes.merge, 1) * sizes.merge
    prompt = _TEXT + patches // sizes.merge
    tokens = evaluation.max_new_tokens or evaluation_tokens(spec.model) or _EVALUATED
    asked = Shapes([prompt], [[tokens]], [patches])
    return Counted(
        per_step=_step(spec, sizes, prompt, patches, execution),
        per_example=prefill_operations(sizes, asked) + decode_operations(sizes, asked),
        gib=_gib(spec, sizes, execution),
    )


def operations_per_s(on_gpu: bool, num_threads: int) -> float:
    """What is assumed of one device, or of the CPU threads of one process."""
    return GPU_SPEED if on_gpu else CPU_SPEED * num_threads


def _step(spec: RunSpec, sizes: Sizes, prompt: int, patches: int, execution: Execution) -> float:
    method = spec.method
    if not isinstance(method, Trained):
        return 0.0
    again = 4 / 3 if execution.gradient_checkpointing else 1.0
    if isinstance(method, Sft):
        shapes = Shapes([prompt], [[_IMITATED]], [patches])
        return method.prompts_per_step * update_operations(sizes, shapes, is_shared=True) * again
    assert isinstance(method, Grpo | GrpoD)
    length = method.max_completion_length
    shapes = Shapes([prompt], [[length] * method.group_size], [patches])
    rollout = prefill_operations(sizes, shapes) + decode_operations(sizes, shapes)
    update = method.updates_per_rollout * update_operations(sizes, shapes, is_shared=True) * again
    reference = _forward(sizes, prompt, length, method.group_size) if has_reference(spec) else 0
    return method.prompts_per_step * (rollout + update + reference)


def _forward(sizes: Sizes, prompt: int, length: int, group_size: int) -> int:
    """A shared-prefix pass over a prompt and its completions."""
    run = max(length - 1, 0)
    pairs = causal_pairs(prompt) + group_size * causal_pairs(run, prompt)
    ends = group_size * length
    return text_operations(sizes, prompt + group_size * run, pairs, ends=ends) + head_operations(sizes, ends)


def has_reference(spec: RunSpec) -> bool:
    """Whether a step asks the reference for log-probs."""
    return isinstance(spec.method, Grpo | GrpoD) and getattr(spec.method.schedule, "beta", None) != 0.0


def _gib(spec: RunSpec, sizes: Sizes, execution: Execution) -> float:
    element = 4 if spec.precision == "float32" else 2
    each = float(element)
    if isinstance(spec.method, Trained) and not spec.lora_rank:
        # A float32 gradient and two moments; beside bf16 weights the float32 ones that the optimiser moves.
        each += 12 + (4 if element == 2 else 0)
        each /= execution.devices if execution.sharding == "fsdp" else 1
        each += element if has_reference(spec) and execution.reference == "device" else 0
    return sizes.parameters * each / 2**30


@lru_cache(maxsize=16)
def _model(model: str) -> tuple[Sizes, int, int] | None:
    """A model's sizes, the pixels of a patch, and the most pixels of an image."""
    folder = embedded_folder() if model == "embedded" else Path(model)
    read = partial(_json, folder) if folder.is_dir() else partial(_cached, model)
    config = read("config.json")
    if config is None or config.get("model_type") != "qwen2_vl":
        return None
    images = read("preprocessor_config.json") or {}
    bound = images.get("max_pixels") or (images.get("size") or {}).get("longest_edge") or _PIXELS
    try:
        return Sizes.of(config), config["vision_config"].get("patch_size", 14) ** 2, int(bound)
    except (KeyError, TypeError):
        return None


def _json(folder: Path, name: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads((folder / name).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _cached(model: str, name: str) -> Mapping[str, Any] | None:
    """A file of a hub repository, where it was fetched before; asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        path = try_to_load_from_cache(model, name)
    except HFValidationError:
        return None
    return _json(Path(path).parent, name) if isinstance(path, str) else None
