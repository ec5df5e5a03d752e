"""Weights, gradients and optimiser state of one policy, divided up among the processes of a run.

While weights move, the layers of the text stack are FSDP2 modules (torch.distributed.fsdp.fully_shard): each process
keeps its share of every layer in float32, and has a layer whole, in the precision that computes, only while the layer
runs. Outside of an update all layers are whole on every process, so that rollouts, evaluation and saving need no
communication and may differ in length. What is no layer of the text stack (embedding, output head, image tower) is
called as often as a process's batch asks for, which FSDP's collectives do not allow: its weights stay whole, and its
float32 masters, moments and summed gradients are divided up.

One of n processes holds, in bytes per weight: 16 / n for the shares of weight, gradient and two moments; further 2 in
bf16 while sampling; and 6 for its own gradient and weight outside of the text stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard, distribute_tensor

from harness.errors import ModelError, RunError
from harness.policy import Policy
from harness.policy.families import Family
from harness.policy.learning import has_adapter
from harness.spec.methods import Trained
from harness.train.memory import Result, TokenBudget
from harness.train.optimizer import Optimizer
from harness.train.processes import Processes


class Sharding:
    """A policy divided up among processes.

    Args:
        policy: The layers of its text stack are changed in place: they are FSDP2 modules from here on.
        processes: Those that share the run.

    Raises:
        ModelError: The model has no adapter here, or a LoRA adapter.
    """

    def __init__(self, policy: Policy, processes: Processes) -> None:
        family = policy.family
        if not isinstance(family, Family):
            raise ModelError("execution.sharding 'fsdp' is for model families with an adapter; set it to 'none'")
        if has_adapter(policy):
            raise ModelError(
                "execution.sharding 'fsdp' is for weights that all learn; with lora_rank, set it to 'none'"
            )
        self._policy = policy
        self._mesh = init_device_mesh(processes.device.type, (processes.count,))
        precision = family.lm_head.weight.dtype
        mixed = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32, cast_forward_inputs=False)
        self._layers: list[FSDPModule] = [
            fully_shard(block.float(), mesh=self._mesh, mp_policy=mixed) for block in family.blocks
        ]
        for layer in self._layers:
            # Losses are divided by the counts of the whole step already.
            layer.set_gradient_divide_factor(1.0)
            layer.set_force_sum_reduction_for_comms(True)
        for layer, following in pairwise(self._layers):
            layer.set_modules_to_forward_prefetch([following])
            following.set_modules_to_backward_prefetch([layer])
        # Left to itself, it would fetch what ran before it: in some processes the last layer, in a rollout.
        self._layers[0].set_modules_to_backward_prefetch([self._layers[0]])
        stack = _Stack(family.blocks)
        self._root: FSDPModule = fully_shard(stack, mesh=self._mesh, mp_policy=mixed)
        stack()

    def optimizer(self, settings: Trained) -> ShardedOptimizer:
        """The optimiser of the weights that learn; made once, before they move. Layers are whole behind it."""
        learning = {name: weight for name, weight in self._policy.model.named_parameters() if weight.requires_grad}
        optimizer = ShardedOptimizer(learning, settings, self._mesh)
        self._gather()
        return optimizer

    def budget(self, tokens: int | None, halvings: int = 0) -> FixedBudget:
        """Of the passes of an update."""
        return FixedBudget(tokens, halvings)

    @contextmanager
    def divided(self) -> Iterator[None]:
        """The state in which weights may move: a layer is whole while it runs. An error leaves it as it is."""
        for layer in self._layers:
            layer.reshard()
        self._root.set_reshard_after_forward(True)
        yield
        self._gather()

    def whole_weights(self) -> dict[str, Tensor]:
        """Weights and buffers by name, as a file of weights has them; a tied weight once."""
        model: Any = self._policy.model
        modules = dict(model.named_modules())

        def is_kept(name: str) -> bool:
            module, _, buffer = name.rpartition(".")
            return buffer not in modules[module]._non_persistent_buffers_set

        buffers = {name: value for name, value in model.named_buffers() if is_kept(name)}
        return {name: value.detach() for name, value in model.named_parameters()} | buffers

    def _gather(self) -> None:
        """Makes every layer whole on every process, where it stays."""
        self._root.set_reshard_after_forward(False)
        for layer in self._layers:
            layer.unshard()


class _Stack(nn.ModuleList):
    """The root that layers need to share their streams; nothing runs through it, but FSDP2 looks for it by a call."""

    def forward(self) -> None:
        """Does nothing."""


class FixedBudget(TokenBudget):
    """Tokens of a pass that cannot be halved: the other processes are in the midst of the same pass."""

    def attempt(self, what: str, largest: int, total: int, work: Callable[[], Result]) -> Result:
        """Does some work once.

        Raises:
            RunError: Memory ran out.
        """
        self.begin(largest, total)
        try:
            return work()
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
        raise RunError(
            f"out of memory in the {what}, which sharded processes cannot try again in smaller parts: set "
            f"execution.micro_batch_tokens below {min(self.tokens or total, total)} ({reason})"
        )


class ShardedOptimizer(Optimizer):
    """AdamW over shares of the weights that learn; to be made, and to move, while the layers are divided.

    Args:
        weights: Those that learn, by name; a layer's are shares already.
        settings: The method's learning rate, decay and clipping.
        mesh: The processes.
    """

    def __init__(self, weights: Mapping[str, nn.Parameter], settings: Trained, mesh: DeviceMesh) -> None:
        self._mesh = mesh
        self._sums: dict[int, Tensor] = {}
        super().__init__(weights, settings)

    def make_master(self, weight: nn.Parameter) -> nn.Parameter:
        """A layer's share is its own master; of another weight, this process's share in float32."""
        if isinstance(weight, DTensor):
            return weight
        weight.register_post_accumulate_grad_hook(self._add)
        return nn.Parameter(self._share(weight.detach().float()))

    def add_up(self, processes: Processes) -> None:
        """Leaves each process its share of the sums of gradients; FSDP has done so for the layers."""
        for name, master in self.masters.items():
            weight = self.weights[name]
            if weight is not master:
                held = self._sums.pop(id(weight), None)
                whole = torch.zeros_like(weight, dtype=torch.float32) if held is None else held
                partial = DTensor.from_local(whole, self._mesh, [Partial()], run_check=False)
                master.grad = partial.redistribute(placements=[Shard(0)])
        self.fill_gradients()

    def clip(self) -> float:
        """Scales the gradients down to the largest global L2 norm allowed; returns the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.masters.values(), self.max_grad_norm)
        return float(_whole(norm))

    def drop_gradients(self) -> None:
        """Forgets all gradients."""
        super().drop_gradients()
        self._sums.clear()

    @torch.no_grad()
    def publish(self) -> None:
        """Puts the masters together and rounds them to the weights that compute; FSDP does so for the layers."""
        for name, weight in self.weights.items():
            if weight is not self.masters[name]:
                weight.copy_(_whole(self.masters[name]))

    def state(self) -> dict[str, Tensor]:
        """Masters and moments, whole, in the first process's host memory; every process has to ask for them."""
        tensors: dict[str, Tensor] = {}
        for name, tensor in super().state().items():
            whole = _whole(tensor)
            if self._mesh.get_rank() == 0:
                tensors[name] = whole.cpu()
        return tensors

    def restored(self, master: Tensor, saved: Tensor) -> Tensor:
        """What a checkpoint has of a weight, as its master keeps it: this process's share, but of a counter."""
        return saved.to(master.device) if saved.ndim == 0 else self._share(saved.to(master.device))

    def _share(self, whole: Tensor) -> DTensor:
        return distribute_tensor(whole, self._mesh, [Shard(0)], src_data_rank=None)

    def _add(self, weight: Tensor) -> None:
        assert weight.grad is not None
        gradient = weight.grad.float()
        held = self._sums.get(id(weight))
        self._sums[id(weight)] = gradient if held is None else held.add_(gradient)
        weight.grad = None


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
