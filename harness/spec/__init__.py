"""What a run is: methods, KL schedules, runs and sweeps, as frozen pydantic models. Imports no torch."""

from harness.spec.execution import Execution
from harness.spec.methods import Base, Evaluation, Grpo, GrpoD, Method, Sft
from harness.spec.run import Job, RunSpec
from harness.spec.schedules import (
    AdaptiveSchedule,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OthinkSchedule,
    Schedule,
    beta_at,
    next_beta,
)

__all__ = [
    "AdaptiveSchedule",
    "Base",
    "ConstantSchedule",
    "CosineSchedule",
    "Evaluation",
    "Execution",
    "Grpo",
    "GrpoD",
    "Job",
    "LinearSchedule",
    "Method",
    "OthinkSchedule",
    "RunSpec",
    "Schedule",
    "Sft",
    "beta_at",
    "next_beta",
]
