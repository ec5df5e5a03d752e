"""Model families: one adapter file each, chosen by the configuration's `model_type`, and a plain path without one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from harness.errors import ModelError
from harness.policy.families.family import Family
from harness.policy.families.plain import Plain

FAMILIES: Mapping[str, str] = {
    "qwen2_vl": "harness.policy.families.qwen2_vl:Qwen2VL",
    "qwen2_5_vl": "harness.policy.families.qwen2_5_vl:Qwen25VL",
    "qwen3_vl": "harness.policy.families.qwen3_vl:Qwen3VL",
    "smolvlm": "harness.policy.families.smolvlm:SmolVLM",
    "idefics3": "harness.policy.families.smolvlm:SmolVLM",
}
"""Adapter classes by `model_type`."""

__all__ = ["FAMILIES", "Family", "Plain", "adapt"]


def adapt(model: Any, processor: Any = None) -> Family | Plain:
    """The adapter for a loaded model.

    Args:
        model: A transformers model.
        processor: Its own processor; with one, a model without an adapter takes the plain path.

    Raises:
        ModelError: The family has no adapter, and there is no processor.
    """
    model_type = model.config.model_type
    if model_type not in FAMILIES:
        if processor is not None:
            return Plain(model, processor)
        raise ModelError(f"no adapter for models of type '{model_type}'; there is one for: {', '.join(FAMILIES)}")
    module, name = FAMILIES[model_type].split(":")
    family: Family = getattr(importlib.import_module(module), name)(model)
    return family
