"""Model families: one adapter file each, chosen by the configuration's `model_type`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from harness.errors import ModelError
from harness.policy.families.family import Family

FAMILIES: Mapping[str, str] = {
    "qwen2_vl": "harness.policy.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "harness.policy.families.qwen2_5_vl:Qwen25VL",
}
"""Adapter classes by `model_type`."""

__all__ = ["FAMILIES", "Family", "adapt"]


def adapt(model: Any) -> Family:
    """The adapter for a loaded model.

    Raises:
        ModelError: The family has no adapter.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        raise ModelError(f"no adapter for models of type '{model_type}'; there is one for: {', '.join(FAMILIES)}")
    module, name = FAMILIES[model_type].split(":")
    family: Family = getattr(importlib.import_module(module), name)(model)
    return family
