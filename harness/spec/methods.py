"""The methods and their settings. The class defaults are the paper's and R1-V's; a model profile may override them.

Sources of the defaults: [P] OThink-MR1, arXiv 2503.16081 v2; [R] R1-V at bbbbe3d and the trl 0.14.0 that it pins.
The defaults of the embedded model stand in `profiles.py`, with how each was found.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.spec.schedules import ConstantSchedule, OthinkSchedule, Schedule

Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Method(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(_Method):
    """The untouched model, evaluated as it is: no training, no source, no seed."""

    type: Literal["base"] = "base"


class Trained(_Method):
    """What every method that trains has: AdamW over all weights, a learning-rate schedule, a number of steps."""

    num_steps: Count = 100
    """Optimiser steps. [R] reports its counting result at step 100."""
    prompts_per_step: Count = 16
    """Distinct questions in a step. [R] counting: 8 devices x 1 prompt x accumulation 2."""
    lr: Positive = 1e-6
    """Peak learning rate of AdamW."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "linear"
    """After the warm-up: constant, or down to 0 at the last step. [R] GRPO inherits trl's linear decay."""
    warmup_frac: Fraction = 0.0
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: NonNegative = 0.0
    """AdamW's decoupled weight decay. [R] trl's default."""
    adam_beta2: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """AdamW's second-moment decay; the first is 0.9. [R] trl's default."""
    max_grad_norm: Positive = 1.0
    """Gradients are scaled down to this global L2 norm. [R] trl's default."""


class Sft(Trained):
    """Supervised fine-tuning: cross-entropy of a target completion, mean over the batch's completion tokens."""

    type: Literal["sft"] = "sft"
    target: Literal["answer_only", "reasoning"] = "answer_only"
    """What is imitated: `<answer> 3 </answer>` alone (the paper's outputs show that), or with the gold reasoning."""
    lr: Positive = 2e-5
    """[R] SFT script."""
    lr_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """[R] SFT script."""
    warmup_frac: Fraction = 0.1
    """[R] SFT script."""


class _GroupRelative(Trained):
    """What GRPO and GRPO-D share; they differ in the KL schedule alone."""

    group_size: Annotated[int, Field(ge=2)] = 8
    """Completions sampled per question. [R]"""
    temperature: Positive = 1.0
    """Of sampling, and of the log-probs that are trained. [R]"""
    max_completion_length: Count = 512
    """Tokens. [R] counting."""
    clip_epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Importance ratios are clipped to [1 - e, 1 + e]. [P] Eq. 4; trl's default."""
    updates_per_rollout: Count = 1
    """Optimiser updates made of one set of completions; above 1 the ratio leaves 1 and the clip acts. [R]"""
    format_weight: NonNegative = 1.0
    """alpha of the reward, accuracy + alpha * format. [P] Eq. 1; 1 in its main table."""
    advantage_scale: Literal["std", "none"] = "std"
    """`std`: (r - mean) / (sample std + 1e-4) [P] Eq. 2, [R]; `none`: r - mean, as Dr.GRPO (arXiv 2503.20783)."""
    loss_normalizer: Literal["sequence", "batch_tokens", "constant"] = "sequence"
    """`sequence`: mean over each completion's tokens, then over completions [P] Eq. 4; `batch_tokens`: mean over all
    tokens of the step, as DAPO (arXiv 2503.14476); `constant`: sum over tokens / max_completion_length, then mean over
    completions, as Dr.GRPO."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """k3 = exp(d) - d - 1 with d = reference - policy log-prob [P] Eq. 5; k2 = d^2 / 2; k1 = -d."""


class Grpo(_GroupRelative):
    """Group-relative policy optimisation with a constant KL coefficient."""

    type: Literal["grpo"] = "grpo"
    schedule: ConstantSchedule = ConstantSchedule()
    """Of beta; any other type makes it `grpo_d`."""


class GrpoD(_GroupRelative):
    """GRPO with a KL coefficient that changes over training (OThink-MR1)."""

    type: Literal["grpo_d"] = "grpo_d"
    schedule: Schedule = OthinkSchedule()
    """Of beta. [P] Eq. 3."""


Method = Annotated[Base | Sft | Grpo | GrpoD, Field(discriminator="type")]
METHOD_MODELS: dict[str, type[_Method]] = {"base": Base, "sft": Sft, "grpo": Grpo, "grpo_d": GrpoD}
"""A new method adds its class here and to the union, and its trainer to :data:`harness.spec.names.METHODS`."""


Split = Literal["test", "validation"]
"""What a run may be evaluated on."""


class Evaluation(BaseModel):
    """How runs are looked at. Nothing here changes what a run trains, so nothing here is part of its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    splits: Annotated[tuple[Split, ...], Field(min_length=1)] = ("test",)
    """What a finished run answers; a search looks at validation alone, and tables show the test split where it is one
    of them."""
    num_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Test examples per target, the first ones of the split; of stored rows all, where there are fewer. [R] tests
    counting on 200, geometry on 754."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between two evaluations on validation examples during training; 0 for none."""
    num_validation: Count = 100
    """Validation examples per target in each of those, and of the finished run."""
    max_new_tokens: Count | None = None
    """Of an evaluation's completions; the protocol's own number where not set."""

    @property
    def table_split(self) -> Split:
        """The split that tables are about."""
        return "test" if "test" in self.splits else "validation"

    def num(self, split: Split) -> int:
        """Examples per target of a split."""
        return self.num_examples if split == "test" else self.num_validation
