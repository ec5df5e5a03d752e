"""Defaults per model: what a method's settings are where a sweep is silent.

A profile belongs to a kind of model and overrides the class defaults of `methods.py`, which are the paper's and
R1-V's for Qwen2-VL. Source-dependent values (the paper has other betas for counting than for geometry) stand here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PAPER_BETA: Mapping[str, float] = {
    **dict.fromkeys(("counting", "clevr", "clevr_r1"), 0.04),
    **dict.fromkeys(("geometry", "geoqa"), 0.01),
}
"""Constant beta of the paper's GRPO baseline in Table 1, by source."""

PAPER_BETA_RANGE: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(("counting", "clevr", "clevr_r1"), (0.04, 0.1)),
    **dict.fromkeys(("geometry", "geoqa"), (0.0, 0.02)),
}
"""beta_min and beta_max of the paper's GRPO-D, by source."""

EMBEDDED: Mapping[str, Mapping[str, Any]] = {
    "sft": {"num_steps": 75, "prompts_per_step": 16, "lr": 3e-4},
    "grpo": {"num_steps": 75, "prompts_per_step": 8, "lr": 2e-4, "max_completion_length": 48},
    "grpo_d": {"num_steps": 75, "prompts_per_step": 8, "lr": 2e-4, "max_completion_length": 48},
}
"""The embedded policy, by method type: budgets that make a run half a minute long on two cores. No completion of the
embedded policy's own form is longer than 48 tokens. Learning rates are rough; quickstart's were searched."""


def profile_of(model: str) -> str:
    """The profile of a model name: ``"embedded"`` or ``"qwen2_vl"``."""
    return "embedded" if model == "embedded" else "qwen2_vl"


def method_defaults(model: str, method: str, source: str | None) -> dict[str, Any]:
    """The settings of a method where a sweep is silent, beyond its class defaults.

    Args:
        model: A model name as in a run's spec.
        method: A method's `type`.
        source: The task trained on.
    """
    defaults: dict[str, Any] = dict(EMBEDDED.get(method, {})) if profile_of(model) == "embedded" else {}
    if method == "grpo" and source is not None and source in PAPER_BETA:
        defaults["schedule"] = {"type": "constant", "beta": PAPER_BETA[source]}
    if method == "grpo_d" and source is not None and source in PAPER_BETA_RANGE:
        low, high = PAPER_BETA_RANGE[source]
        defaults["schedule"] = {"type": "othink", "beta_min": low, "beta_max": high}
    return defaults


def num_train_default(model: str) -> int:
    """Training examples where a sweep is silent: the paper's 100 for the 2B model and 120 for the 7B, 400 for ours."""
    if profile_of(model) == "embedded":
        return 400
    return 120 if "7b" in model.lower() else 100


def evaluation_tokens(model: str) -> int | None:
    """A model's own bound on the tokens of an evaluated completion; None to use the protocol's."""
    return 64 if profile_of(model) == "embedded" else None
