"""The names a sweep may use, and where the code behind each one stands.

One registry line adds a task, a method or a protocol. Nothing is imported until :func:`resolve` asks for it, so that
planning a sweep needs neither torch nor an image library.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from harness.errors import SpecError, nearest

DRAWN_TASKS: Mapping[str, str] = {
    "counting": "harness.tasks.counting:Counting",
    "geometry": "harness.tasks.geometry:Geometry",
    "relations": "harness.tasks.relations:Relations",
    "charts": "harness.tasks.charts:Charts",
}
"""Tasks whose examples are drawn, never stored; what the embedded policy was taught."""

TASKS: Mapping[str, str] = {
    **DRAWN_TASKS,
    "clevr": "harness.tasks.data.published:clevr",
    "clevr_r1": "harness.tasks.data.published:clevr_r1",
    "geoqa": "harness.tasks.data.published:geoqa",
}
"""All tasks with a name; a path to stored rows is one too (:mod:`harness.spec.data`)."""

METHODS: Mapping[str, str] = {
    "sft": "harness.train.sft:Sft",
    "grpo": "harness.train.grpo:Grpo",
    "grpo_d": "harness.train.grpo:Grpo",
}

PROTOCOLS: Mapping[str, str] = {
    "r1v_counting": "harness.tasks.protocols:r1v_counting",
    "r1v_geoqa": "harness.tasks.protocols:r1v_geoqa",
}


def resolve(registry: Mapping[str, str], kind: str, name: str) -> Any:
    """The object that a registry names, imported now.

    Args:
        registry: One of the mappings of this module.
        kind: What it holds, for the message: ``"task"``, ``"method"`` or ``"protocol"``.
        name: The key.

    Raises:
        SpecError: The name is not in the registry.
    """
    if name not in registry:
        raise SpecError(f"unknown {kind} '{name}': {nearest(name, registry)}")
    module, attribute = registry[name].split(":")
    return getattr(importlib.import_module(module), attribute)
