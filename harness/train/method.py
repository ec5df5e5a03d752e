"""What the loop asks of a method. It never asks for its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from harness.policy import Policy, PromptBatch


class ImageFeatures:
    """Image features computed once and differentiated once, however many parts of the step use them.

    Args:
        values: [sum of image tokens, D], with the graph back into the image tower.
    """

    def __init__(self, values: Tensor) -> None:
        self._graph = values
        self.leaf = values.detach().requires_grad_(values.requires_grad)

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
        tensors: What else the loss needs, by name, each [N, ...].
        pictures: The prompts' images by example id.
        metrics: What is known before the update, by metric key, already averaged over processes.
        samples: Completions for the record, a row each.
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
    pictures: Mapping[str, Image.Image] = field(default_factory=dict)

    def reencode(self, policy: Policy) -> None:
        """Features under the present weights, for a further update on the same batch."""
        self.images = ImageFeatures(policy.encode_images(self.prompts))

    def parts(self, policy: Policy, size: int | None) -> list[Part]:
        """The prompts that matter, in parts of at most `size` for one forward pass each."""
        size = size or max(len(self.rows), 1)
        return [Part.of(policy, self, self.rows[start : start + size]) for start in range(0, len(self.rows), size)]


@dataclass
class Part:
    """Some prompts of a batch, for one forward pass.

    Attributes:
        batch: The whole step's batch.
        prompts: These prompts.
        rows: Their rows in the batch.
        places: Their rows among the batch's image features.
        ids: Their completions [n, G, T].
        lengths: Tokens [n, G].
        old_log_probs: [n, G, T] of the policy that sampled, kept by a method that updates several times.
    """

    batch: Batch
    prompts: PromptBatch
    rows: Tensor
    places: Tensor
    ids: Tensor
    lengths: Tensor
    old_log_probs: Tensor | None = None

    @staticmethod
    def of(policy: Policy, batch: Batch, rows: Sequence[int]) -> Part:
        """Takes rows out of a batch."""
        device = batch.ids.device
        sizes = (batch.prompts.ids == policy.family.image_token_id).sum(dim=1)
        owner = torch.repeat_interleave(torch.arange(len(sizes), device=device), sizes)
        index = torch.tensor(rows, dtype=torch.long, device=device)
        return Part(
            batch=batch,
            prompts=batch.prompts.select(rows),
            rows=index,
            places=torch.cat([(owner == row).nonzero()[:, 0] for row in rows]),
            ids=batch.ids[index],
            lengths=batch.lengths[index],
        )

    @property
    def features(self) -> Tensor:
        """Image features of these prompts."""
        return self.batch.images.leaf[self.places]

    @property
    def mask(self) -> Tensor:
        """Bool [n, G, T], True at completions' tokens."""
        return torch.arange(self.ids.shape[2], device=self.ids.device) < self.lengths[..., None]

    def tensor(self, name: str) -> Tensor | None:
        """These prompts' rows of one of the batch's further tensors; None where there is none."""
        tensor = self.batch.tensors.get(name)
        return None if tensor is None else tensor[self.rows]


class Method(Protocol):
    """A way to train.

    A new one is a file with a class of this shape, made as ``cls(spec, policy, task, processes)``, its settings in
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
