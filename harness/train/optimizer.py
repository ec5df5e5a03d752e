"""AdamW in float32, over weights that may compute in bf16."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from harness.spec.methods import Trained
from harness.train.processes import Processes


class Optimizer:
    """AdamW over the weights that learn.

    A weight that computes in bf16 has a float32 master: gradients are added up in float32 as they are made, the master
    moves, and its rounding is what computes. An update far below a weight's bf16 resolution is so not lost.

    Args:
        weights: Those that learn, by name.
        settings: The method's learning rate, decay and clipping.

    Attributes:
        masters: The float32 weights that move, by name; where weights are float32, these are they.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], settings: Trained) -> None:
        self.weights = dict(weights)
        self.masters = {name: self.make_master(weight) for name, weight in self.weights.items()}
        self.max_grad_norm = settings.max_grad_norm
        self.adamw = torch.optim.AdamW(
            self.masters.values(),
            lr=settings.lr,
            betas=(0.9, settings.adam_beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def make_master(self, weight: nn.Parameter) -> nn.Parameter:
        """The float32 weight that moves in a weight's place; itself where it is float32."""
        return _master(weight)

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next update."""
        for group in self.adamw.param_groups:
            group["lr"] = lr

    def fill_gradients(self) -> None:
        """Gives weights that got no gradient one of zeros: a step without any signal still moves by its momentum."""
        for master in self.masters.values():
            if master.grad is None:
                master.grad = torch.zeros_like(master)

    def add_up(self, processes: Processes) -> None:
        """Sums gradients over processes."""
        self.fill_gradients()
        processes.add_gradients(self.masters.values())

    def clip(self) -> float:
        """Scales the gradients down to the largest global L2 norm allowed; returns the norm before."""
        return float(torch.nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm))

    def step(self) -> None:
        """One update; gradients are used up."""
        self.adamw.step()
        self.drop_gradients()
        self.publish()

    def drop_gradients(self) -> None:
        """Forgets all gradients."""
        self.adamw.zero_grad(set_to_none=True)

    @torch.no_grad()
    def publish(self) -> None:
        """Rounds the masters to the weights that compute."""
        for name, weight in self.weights.items():
            if weight is not self.masters[name]:
                weight.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Masters and moments by ``"<kind>/<weight>"``, for a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            tensors[f"weight/{name}"] = master.detach()
            for key, value in self.adamw.state.get(master, {}).items():
                tensors[f"{key}/{name}"] = value.detach()
        return tensors

    @torch.no_grad()
    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes it back; a weight without moments has made no update yet."""
        for name, master in self.masters.items():
            master.copy_(self.restored(master, tensors[f"weight/{name}"]))
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}/{name}" in tensors:
                    # The fused optimiser wants its step counter beside the weights too.
                    self.adamw.state[master][key] = self.restored(master, tensors[f"{key}/{name}"])
        self.publish()

    def restored(self, master: Tensor, saved: Tensor) -> Tensor:
        """What a checkpoint has of a weight, as its master keeps it."""
        return saved.to(master.device)


def _master(weight: nn.Parameter) -> nn.Parameter:
    if weight.dtype == torch.float32:
        return weight
    master = nn.Parameter(weight.detach().float())

    def add(weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        weight.grad = None

    weight.register_post_accumulate_grad_hook(add)
    return master
