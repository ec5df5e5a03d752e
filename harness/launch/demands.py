"""What a run will need, from runs of its kind: those on record, and those that are running now.

Two runs are of one kind when they differ in nothing that costs memory or time per step: not in their seeds, rates,
weights or schedules. A reference is part of a kind: without a KL term there is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from harness.launch.executor import Demand
from harness.record.state import RunState
from harness.spec import Execution, RunSpec

_NEUTRAL = frozenset(
    {
        *("seed", "num_train", "lora_alpha", "method"),
        *("type", "num_steps", "lr", "lr_schedule", "warmup_frac", "weight_decay", "adam_beta2", "max_grad_norm"),
        *("temperature", "clip_epsilon", "format_weight", "advantage_scale", "loss_normalizer", "kl_estimator"),
        *("schedule",),
    }
)
"""Settings that cost neither memory nor time per step."""

Peaks = Mapping[str, tuple[float | None, float | None]]
"""Kind -> the highest device and host memory of its runs, in GiB; None where it is not known."""

_LIMITS = {"halvings", "lease_s", "max_lost", "max_out_of_memory"}


def kind_of(spec: RunSpec | Mapping[str, Any], execution: Execution) -> str:
    """What runs of the same cost share, as a short hash.

    Args:
        spec: Of a run, or as JSON has it.
        execution: On what it runs.
    """
    if not isinstance(spec, Mapping):
        return _kind_of_spec(spec.model_copy(update={"seed": 0}), execution)
    method = spec["method"]
    content = {key: value for key, value in spec.items() if key not in _NEUTRAL}
    # GRPO-D is GRPO with another schedule: it has the same settings, and its steps cost the same.
    content["method"] = {key: value for key, value in method.items() if key not in _NEUTRAL}
    content["has_reference"] = (method.get("schedule") or {}).get("beta") != 0.0
    content["execution"] = _costly(execution)
    return hashlib.sha256(_ENCODE(content).encode()).hexdigest()[:12]


@lru_cache(maxsize=4096)
def _kind_of_spec(spec: RunSpec, execution: Execution) -> str:
    return kind_of(spec.model_dump(mode="json"), execution)


@lru_cache(maxsize=64)
def _costly(execution: Execution) -> dict[str, Any]:
    return execution.model_dump(mode="json", exclude=_LIMITS)


_ENCODE = json.JSONEncoder(sort_keys=True, default=str).encode


class Demands:
    """Learns what kinds of runs need.

    Args:
        execution: On what the runs to come run.
        known: Peaks on record, or what reads them: asked the first time that something is to be known.
    """

    def __init__(self, execution: Execution, known: Peaks | Callable[[], Peaks]) -> None:
        self._execution = execution
        self._known = known
        self._read: dict[str, tuple[float | None, float | None]] | None = None

    def of(self, spec: RunSpec, *, alone: bool = False) -> Demand:
        """What a run needs.

        Args:
            spec: The run's.
            alone: Whether it shall share no device.
        """
        device_gib, host_gib = self._peaks.get(kind_of(spec, self._execution), (None, None))
        return Demand(self._execution.devices, device_gib, host_gib, alone)

    @property
    def _peaks(self) -> dict[str, tuple[float | None, float | None]]:
        if self._read is None:
            self._read = dict(self._known() if callable(self._known) else self._known)
        return self._read

    def learn(self, spec: RunSpec, state: RunState) -> None:
        """Takes in what a worker has told of its memory so far."""
        if state.peak_device_gib is None and state.peak_host_gib is None:
            return
        kind = kind_of(spec, self._execution)
        before = self._peaks.get(kind, (None, None))
        self._peaks[kind] = larger(before[0], state.peak_device_gib), larger(before[1], state.peak_host_gib)


def larger(one: float | None, other: float | None) -> float | None:
    """The larger of two numbers of which one may not be known."""
    return max((each for each in (one, other) if each is not None), default=None)
