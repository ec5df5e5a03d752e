"""Where the workers of a sweep run: this machine, a Ray cluster, or SLURM. No part of a run's identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Word = Annotated[str, Field(pattern=r"^[\w.,:&|*()\[\]=+@/-]+$")]
"""What goes into a batch script or an address: nothing that could end a line."""

_OWN: Mapping[str, tuple[str, ...]] = {
    "address": ("ray",),
    "cpus": ("ray", "slurm"),
    "memory_gib": ("ray", "slurm"),
    "partition": ("slurm",),
    "account": ("slurm",),
    "qos": ("slurm",),
    "constraint": ("slurm",),
    "time_min": ("slurm",),
    "grace_s": ("local", "ray", "slurm"),
}
"""The settings that not every executor has, with those that have them."""


class ExecutorSettings(BaseModel):
    """A sweep's `executor` section."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: Literal["local", "ray", "slurm"] = "local"
    """`local`: processes on this machine; `ray`: a Ray cluster; `slurm`: jobs of SLURM."""
    slots: Count | None = None
    """Workers at the same time at most; by default as many as fit."""
    grace_s: Annotated[float, Field(gt=0)] = 30.0
    """Seconds that a worker has between the request to stop and its end, to finish its step and save."""
    cpus: Count | None = None
    """CPU cores of a run; by default 2 per device."""
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    """Host memory that a run asks for; by default what runs of its kind were measured to need, with a margin."""
    address: Word | None = None
    """Of a running Ray cluster; by default the one that `RAY_ADDRESS` names, else one started for the sweep."""
    partition: Word | None = None
    """SLURM's partition, as `sbatch` takes it; likewise `account`, `qos` and `constraint`."""
    account: Word | None = None
    """SLURM's account."""
    qos: Word | None = None
    """SLURM's quality of service."""
    constraint: Word | None = None
    """SLURM's node features."""
    time_min: Count | None = None
    """SLURM's time limit of a job; a run that is not over by then goes on in the next one."""

    @model_validator(mode="after")
    def _fits_type(self) -> Self:
        for name in sorted(self.model_fields_set):
            if self.type not in _OWN.get(name, (self.type,)):
                raise ValueError(f"executor.{name} belongs to {' and '.join(_OWN[name])}, but the type is {self.type}")
        return self


def executor_of_type(settings: ExecutorSettings, type_: str) -> ExecutorSettings:
    """Settings for another executor: those that both have are kept.

    Args:
        settings: Of an executor.
        type_: The other's name.
    """
    kept = {name: getattr(settings, name) for name in settings.model_fields_set if type_ in _OWN.get(name, (type_,))}
    return ExecutorSettings.model_validate(kept | {"type": type_})
