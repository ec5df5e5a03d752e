"""Model families: one adapter file each, chosen by the configuration's `model_type`."""

from __future__ import annotations

from typing import Any

from harness.errors import ModelError
from harness.policy.families.qwen2_vl import Grid, Qwen2VL

FAMILIES = {"qwen2_vl": Qwen2VL, "qwen2_5_vl": Qwen2VL}
"""Adapter classes by `model_type`."""

__all__ = ["FAMILIES", "Grid", "Qwen2VL", "adapt"]


def adapt(model: Any) -> Qwen2VL:
    """The adapter for a loaded model.

    Raises:
        ModelError: The family has no adapter.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ModelError(f"no adapter for models of type '{model_type}'; there is one for: {', '.join(FAMILIES)}")
    return FAMILIES[model_type](model)
