"""How runs are executed: devices, memory, and nothing that changes what a run trains (but by rounding)."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]


class Execution(BaseModel):
    """A sweep's `execution` section. No part of a run's identity: the numbers stay the same to rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """`auto`, `cpu`, `cuda` or `cuda:<n>`."""
    devices: Count = 1
    """Devices that share the prompts of one run, with a process for each; without a GPU, processes on the CPU."""
    sharding: Literal["none", "fsdp"] = "none"
    """`none`: every process holds the whole model; `fsdp`: weights, gradients and optimiser state are divided up."""
    micro_batch_tokens: Count | None = None
    """Packed tokens of a forward and backward pass; None for a whole step at once. Running out of memory halves it."""
    halvings: Annotated[int, Field(ge=0, le=20)] = 0
    """How often the tokens of a pass are halved from the start. A run that was ended for want of memory before it could
    halve them itself comes again with one more."""
    gradient_checkpointing: bool = False
    """Whether activations are made again in the backward pass instead of kept: less memory, a third more work."""
    reference: Literal["device", "offload"] = "device"
    """Where the reference's weights wait: beside the policy's, or in host memory while they are not needed. With LoRA
    there are none: the reference is the policy with its adapter off."""

    lease_s: Annotated[float, Field(ge=0.5)] = 60.0
    """Seconds of silence after which a worker or a driver is taken for dead where nothing better is known of it."""
    max_lost: Count = 5
    """How often in a row a run may lose its worker without getting further before it counts as failed."""
    max_out_of_memory: Annotated[int, Field(ge=0)] = 3
    """How often a run that ran out of memory is tried again, each time with smaller passes."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.devices > 1 and ":" in self.device:
            raise ValueError(f"execution.device '{self.device}' is one device, but execution.devices is {self.devices}")
        if self.sharding != "none" and self.devices == 1:
            raise ValueError("execution.sharding 'fsdp' divides up a model, so execution.devices must be above 1")
        return self
