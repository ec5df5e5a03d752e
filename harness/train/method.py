"""What the loop asks of a method. It never asks for its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.policy import Policy, PromptBatch
from harness.policy.learning import learns_vision
from harness.train.memory import TokenBudget


class ImageFeatures:
    """Image features computed once and differentiated once, however many parts of the step use them.

    Args:
        values: [sum of image tokens, D], with the graph back into the image tower.
    """

    def __init__(self, values: Tensor) -> None:
        self._graph = values
        self.leaf = values.detach().requires_grad_(values.requires_grad)

    @property
    def is_used(self) -> bool:
        """Whether gradients have been gathered, be it in a pass that was given up."""
        return self.leaf.grad is not None

    def backward(self) -> None:
        """Sends the gradients gathered at the leaf through the image tower."""
        if self.leaf.grad is not None:
            self._graph.backward(self.leaf.grad)


@dataclass
class Batch:
    """Prompts of one step with the completions to learn from.

    Attributes:
        prompts: N prompts.
        images: Their features.
        ids: Completions [N, G, T].
        lengths: Their tokens [N, G].
        rows: The prompts that the loss depends on; the others only count.
        num_completions: Completions of the whole step, over all processes and with those that only count.
        num_tokens: Their tokens.
        example_ids: One per prompt.
        tensors: What else the loss needs, by name, each [N, G, ...].
        metrics: What is known before the update, by metric key, already averaged over processes.
        samples: Completions for the record, a row each.
        update: Which optimiser update on this batch is being made, from 0.
    """

    prompts: PromptBatch
    images: ImageFeatures
    ids: Tensor
    lengths: Tensor
    rows: Sequence[int]
    num_completions: int
    num_tokens: int
    example_ids: Sequence[str]
    tensors: dict[str, Tensor] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    update: int = 0

    def reencode(self, policy: Policy) -> None:
        """Features under the present weights, for a further update on the same batch, or once more for this one."""
        if learns_vision(policy):
            self.images = ImageFeatures(policy.encode_images(self.prompts))

    @property
    def sizes(self) -> list[int]:
        """Tokens of each prompt with its completions, [N]."""
        sizes: list[int] = (self.prompts.lengths + self.lengths.sum(dim=1)).tolist()
        return sizes

    @property
    def largest_piece(self) -> int:
        """Tokens of the largest prompt with one completion: what no budget can split."""
        return int((self.prompts.lengths + self.lengths.amax(dim=1)).max())

    def parts(self, policy: Policy, budget: TokenBudget) -> list[Part]:
        """The prompts that matter, in parts for one forward pass each.

        A prompt that is over the budget with all its completions is split among them, and goes with each of the parts.
        """
        sizes, prompts = self.sizes, self.prompts.lengths.tolist()
        parts = []
        for places in budget.split([sizes[row] for row in self.rows]):
            rows = [self.rows[place] for place in places]
            if budget.tokens is None or len(rows) > 1 or sizes[rows[0]] <= budget.tokens:
                parts.append(Part.of(policy, self, rows))
                continue
            room = TokenBudget(max(budget.tokens - prompts[rows[0]], 1))
            for members in room.split(self.lengths[rows[0]].tolist()):
                parts.append(Part.of(policy, self, rows, members))
        return parts


@dataclass
class Part:
    """Some prompts of a batch, for one forward pass.

    Attributes:
        batch: The whole step's batch.
        prompts: These prompts.
        rows: Their rows in the batch.
        places: Their rows among the batch's image features.
        ids: Their completions [n, g, T].
        lengths: Tokens [n, g].
        members: Which g of each prompt's G completions; None for all.
    """

    batch: Batch
    prompts: PromptBatch
    rows: Tensor
    places: Tensor
    ids: Tensor
    lengths: Tensor
    members: Tensor | None = None

    @staticmethod
    def of(policy: Policy, batch: Batch, rows: Sequence[int], members: Sequence[int] | None = None) -> Part:
        """Takes rows out of a batch, with some of their completions or all."""
        device = batch.ids.device
        places = torch.arange(len(batch.images.leaf), device=device).split(policy.num_image_tokens(batch.prompts))
        index = torch.tensor(rows, dtype=torch.long, device=device)
        part = Part(
            batch=batch,
            prompts=batch.prompts.select(rows),
            rows=index,
            places=torch.cat([places[row] for row in rows]),
            ids=batch.ids[index],
            lengths=batch.lengths[index],
        )
        if members is not None:
            part.members = torch.tensor(members, dtype=torch.long, device=device)
            part.ids, part.lengths = part.ids[:, part.members], part.lengths[:, part.members]
        return part

    @property
    def features(self) -> Tensor:
        """Image features of these prompts."""
        return self.batch.images.leaf[self.places]

    @property
    def mask(self) -> Tensor:
        """Bool [n, g, T], True at completions' tokens."""
        return torch.arange(self.ids.shape[2], device=self.ids.device) < self.lengths[..., None]

    def tensor(self, name: str) -> Tensor | None:
        """One of the batch's further tensors for these completions; None where there is none."""
        tensor = self.batch.tensors.get(name)
        if tensor is None:
            return None
        return tensor[self.rows] if self.members is None else tensor[self.rows][:, self.members]

    def keep(self, name: str, values: Tensor) -> None:
        """Puts [n, g, T] of these completions among the batch's further tensors."""
        whole = self.batch.tensors.setdefault(name, values.new_zeros(self.batch.ids.shape))
        if self.members is None:
            whole[self.rows] = values
        else:
            whole[self.rows[:, None], self.members] = values


class Method(Protocol):
    """A way to train.

    A new one is a file with a class of this shape, made as
    ``cls(spec, policy, task, processes, execution)``, its settings in
    `spec/methods.py`, and a line in :data:`harness.spec.names.METHODS`.
    """

    updates_per_batch: int
    """Optimiser updates made of each batch."""

    def collect(self, step: int) -> Batch:
        """The batch of a step."""

    def loss(self, part: Part, step: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The part's share of the step's loss, and sums that the loop adds up over parts and processes."""

    def after_step(self, sums: Mapping[str, float]) -> Mapping[str, float]:
        """The step's metrics from the added-up sums; the place where a controller moves."""

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold beside weights and optimiser."""

    def load_state(self, state: Mapping[str, float]) -> None:
        """Takes it back."""
