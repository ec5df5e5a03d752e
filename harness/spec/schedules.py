"""KL coefficients over training: what beta is at a step.

The paper is of two minds. Its Eq. 3 is a V: beta falls from the middle of its range to the minimum while the policy
explores, then rises to the maximum. Its prose says that beta "starts from a small value and gradually increases". Both
are here, Eq. 3 as `othink` and the prose as `linear`. With `constant`, GRPO-D is GRPO.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Beta = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
"""A KL coefficient: a weight, without unit."""


class _Schedule(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConstantSchedule(_Schedule):
    """The same coefficient at every step; plain GRPO."""

    type: Literal["constant"] = "constant"
    beta: Beta = 0.04
    """TRL 0.14.0's default, which R1-V inherits; the paper's GRPO baseline has 0.04 for counting, 0.01 for geometry."""


class _Range(_Schedule):
    beta_min: Beta = 0.0
    """The paper: 0.0 for geometry, 0.04 for counting."""
    beta_max: Beta = 0.02
    """The paper: 0.02 for geometry, 0.1 for counting."""

    @model_validator(mode="after")
    def _ordered(self) -> _Range:
        if self.beta_min > self.beta_max:
            raise ValueError(f"beta_min {self.beta_min:g} is above beta_max {self.beta_max:g}")
        return self


class OthinkSchedule(_Range):
    """The V of OThink-MR1, Eq. 3: down to `beta_min` while exploring, then up to `beta_max`."""

    type: Literal["othink"] = "othink"
    explore_frac: float = Field(default=0.3, gt=0, lt=1)
    """Share of the steps spent exploring, w / t; 0.3 in the paper."""


class LinearSchedule(_Range):
    """The paper's prose: from `beta_min` up to `beta_max` in a straight line."""

    type: Literal["linear"] = "linear"


class CosineSchedule(_Range):
    """From `beta_min` up to `beta_max` along half a cosine."""

    type: Literal["cosine"] = "cosine"


class AdaptiveSchedule(_Schedule):
    """A controller that holds the measured KL near a target (Ziegler et al. 2019, arXiv 1909.08593, section 2.2)."""

    type: Literal["adaptive"] = "adaptive"
    beta_init: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 0.04
    """The coefficient of the first step."""
    target_kl: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """Wanted KL per token, in nats."""
    horizon: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 5.0
    """Steps; each step moves beta by at most 20 % / horizon."""


Schedule = Annotated[
    ConstantSchedule | OthinkSchedule | LinearSchedule | CosineSchedule | AdaptiveSchedule,
    Field(discriminator="type"),
]
SCHEDULE_MODELS: dict[str, type[_Schedule]] = {
    "constant": ConstantSchedule,
    "othink": OthinkSchedule,
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "adaptive": AdaptiveSchedule,
}
"""A new schedule adds its class here and to the union, and its formula to :func:`beta_at`."""

StepSchedule = ConstantSchedule | OthinkSchedule | LinearSchedule | CosineSchedule


def beta_at(schedule: StepSchedule, step: float, num_steps: int) -> float:
    """The KL coefficient at a step, for the schedules that depend on the step alone.

    With s = step, t = num_steps and w = explore_frac * t:

        constant  beta
        othink    b_mid - (b_mid - b_min) * s / w               for s <= w     (OThink-MR1, Eq. 3)
                  b_min + (b_max - b_min) * (s - w) / (t - w)   for s > w;     b_mid = (b_min + b_max) / 2
        linear    b_min + (b_max - b_min) * s / t
        cosine    b_min + (b_max - b_min) * (1 - cos(pi * s / t)) / 2

    The loop asks for step 0 at its first update and for num_steps - 1 at its last, so beta_max itself is the limit.

    Args:
        schedule: Any schedule but `adaptive`, whose coefficient depends on the KL that was measured.
        step: Steps done so far, in [0, num_steps].
        num_steps: Steps of the whole training, at least 1.

    Raises:
        ValueError: The step lies outside the training.
        TypeError: The schedule is no function of the step.
    """
    if num_steps < 1 or not 0 <= step <= num_steps:
        raise ValueError(f"step {step} lies outside a training of {num_steps} steps")
    match schedule:
        case ConstantSchedule():
            return schedule.beta
        case OthinkSchedule(beta_min=low, beta_max=high):
            explore = schedule.explore_frac * num_steps
            middle = (low + high) / 2
            if step <= explore:
                return middle - (middle - low) * step / explore
            return low + (high - low) * (step - explore) / (num_steps - explore)
        case LinearSchedule(beta_min=low, beta_max=high):
            return low + (high - low) * step / num_steps
        case CosineSchedule(beta_min=low, beta_max=high):
            return low + (high - low) * (1 - math.cos(math.pi * step / num_steps)) / 2
    raise TypeError(f"a schedule of type {getattr(schedule, 'type', schedule)!r} is not a function of the step")


def next_beta(schedule: AdaptiveSchedule, beta: float, kl: float) -> float:
    """The controller's next coefficient.

        beta * (1 + clip(kl / target_kl - 1, -0.2, 0.2) / horizon)

    Ziegler et al. count the horizon in samples; here it counts steps.

    Args:
        schedule: The target and the horizon.
        beta: The coefficient of the step just done, above 0.
        kl: The mean KL per token measured in that step, in nats.
    """
    error = min(max(kl / schedule.target_kl - 1, -0.2), 0.2)
    return beta * (1 + error / schedule.horizon)
