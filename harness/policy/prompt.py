"""A question as the model reads it: token ids, positions and image patches, alone and as a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

Grid = tuple[int, int, int]
"""Rows of an image's pixels: frames, rows and columns of patches; their product is how many there are."""


@dataclass(frozen=True)
class Prompt:
    """One question with its image, on the CPU.

    Attributes:
        ids: Token ids [P], the image's placeholder already expanded.
        positions: Positions [A, P] on the family's A axes.
        pixels: What the tower reads [num_patches, ...], as the image processor gives it.
        grid: How they lie.
        inputs: All that the model's own processor made of the question, for a model without an adapter of ours; its
            prompts have no pixels beside.
    """

    ids: Tensor
    positions: Tensor
    pixels: Tensor
    grid: Grid
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def next_position(self) -> int:
        """The position of the first token behind the prompt, the same on all axes."""
        return int(self.positions.max()) + 1


@dataclass(frozen=True)
class PromptBatch:
    """Prompts side by side, left-padded so that their last tokens align.

    Attributes:
        ids: [N, P].
        positions: [A, N, P].
        padding: Bool [N, P], True at padded positions.
        next_position: [N], the position of each row's first completion token.
        pixels: [sum of patches, ...].
        grids: One per prompt.
        inputs: The prompts' own `inputs`, one per prompt and on the CPU.
    """

    ids: Tensor
    positions: Tensor
    padding: Tensor
    next_position: Tensor
    pixels: Tensor
    grids: tuple[Grid, ...]
    inputs: tuple[Mapping[str, Tensor], ...] = ()

    def __len__(self) -> int:
        return self.ids.shape[0]

    @property
    def lengths(self) -> Tensor:
        """Tokens of each prompt [N]."""
        return (~self.padding).sum(dim=1)

    def select(self, rows: Sequence[int]) -> PromptBatch:
        """Some of the prompts, with the same padding."""
        index = torch.tensor(rows, dtype=torch.long, device=self.ids.device)
        sizes = [frames * height * width for frames, height, width in self.grids]
        patches = self.pixels.split(sizes)
        return PromptBatch(
            ids=self.ids[index],
            positions=self.positions[:, index],
            padding=self.padding[index],
            next_position=self.next_position[index],
            pixels=torch.cat([patches[row] for row in rows]),
            grids=tuple(self.grids[row] for row in rows),
            inputs=tuple(self.inputs[row] for row in rows) if self.inputs else (),
        )


def batch_prompts(prompts: Sequence[Prompt], device: torch.device, pad_id: int) -> PromptBatch:
    """Pads prompts on the left and moves them to a device."""
    longest = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id)
    positions = torch.zeros((len(prompts[0].positions), len(prompts), longest), dtype=torch.long)
    padding = torch.ones((len(prompts), longest), dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        start = longest - len(prompt.ids)
        ids[row, start:] = prompt.ids
        positions[:, row, start:] = prompt.positions
        padding[row, start:] = False
    return PromptBatch(
        ids=ids.to(device),
        positions=positions.to(device),
        padding=padding.to(device),
        next_position=torch.tensor([prompt.next_position for prompt in prompts], device=device),
        pixels=torch.cat([prompt.pixels for prompt in prompts]).to(device),
        grids=tuple(prompt.grid for prompt in prompts),
        inputs=tuple(prompt.inputs for prompt in prompts),
    )
