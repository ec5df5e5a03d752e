"""Where prompts and completions lie in the rows of one forward: as units, and several units to a row where they fit.

A unit is a prompt with its completions behind it. Rows are as long as the longest unit; shorter units share a row,
the longest first, each in the first row with room (first-fit decreasing). Units do not see one another, so sharing
changes no value. Where no two units fit into one row, each has a row of its own, and the last tokens of the prompts
align.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.policy.prompt import PromptBatch


@dataclass(frozen=True)
class Packing:
    """Where the tokens of N prompts and their completions lie in R rows.

    Attributes:
        ids: Long [R, L].
        positions: Long [A, R, L].
        segments: Long [2, R, L]: the unit, -1 at padding; within it 0 in the prompt, g + 1 in completion g.
        order: The prompts as they follow one another in the rows, N numbers.
        rows: Long [N], the row of each prompt.
        sources: Long [N, G, T]: the place in its row whose hidden state predicts a completion's token; 0 at padding.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    order: tuple[int, ...]
    rows: Tensor
    sources: Tensor


def pack(batch: PromptBatch, ids: Tensor, lengths: Tensor) -> Packing:
    """Lays each prompt's completions behind it, and the units into rows.

    The last token of a completion predicts nothing, so it is left out.

    Args:
        batch: N prompts.
        ids: Completions [N, G, T].
        lengths: Their tokens [N, G].

    Returns:
        Rows of at most N * L tokens, L those of a row that held the longest prompt and the longest group.
    """
    num_prompts, group_size, longest = ids.shape
    device = ids.device
    inputs = (lengths - 1).clamp(min=0)
    padding = batch.padding.sum(dim=1)
    sizes, left = torch.stack([batch.lengths + inputs.sum(dim=1), padding]).tolist()
    row_of, offset_of = first_fit_decreasing(sizes)
    if max(row_of) + 1 == num_prompts:
        row_of, offset_of = list(range(num_prompts)), left
    order = sorted(range(num_prompts), key=lambda prompt: (row_of[prompt], offset_of[prompt]))
    rows, offsets = torch.tensor([row_of, offset_of], device=device)
    shape = (max(row_of) + 1, max(offset + size for offset, size in zip(offset_of, sizes, strict=True)))

    # A prompt's last token is never an image's placeholder, so padding takes no feature.
    packed = batch.ids[:1, -1:].repeat(shape)
    positions = batch.positions.new_zeros(len(batch.positions), *shape)
    segments = torch.stack([torch.full_like(packed, -1), torch.zeros_like(packed)])
    unit = torch.arange(num_prompts, device=device)

    held = ~batch.padding
    columns = torch.arange(batch.ids.shape[1], device=device) - padding[:, None] + offsets[:, None]
    row, place = rows[:, None].expand_as(columns)[held], columns[held]
    packed[row, place] = batch.ids[held]
    positions[:, row, place] = batch.positions[:, held]
    segments[0, row, place] = unit[:, None].expand_as(columns)[held]

    starts = (offsets + batch.lengths)[:, None] + inputs.cumsum(dim=1) - inputs
    steps = torch.arange(longest, device=device).expand_as(ids)
    held = steps < inputs[..., None]
    row, place = rows[:, None, None].expand_as(ids)[held], (starts[..., None] + steps)[held]
    packed[row, place] = ids[held]
    positions[:, row, place] = (batch.next_position[:, None, None] + steps)[held]
    segments[0, row, place] = unit[:, None, None].expand_as(ids)[held]
    segments[1, row, place] = torch.arange(1, group_size + 1, device=device)[:, None].expand_as(ids)[held]

    last = (offsets + batch.lengths - 1)[:, None, None]
    before = torch.where(steps == 0, last, starts[..., None] + steps - 1)
    sources = torch.where(steps < lengths[..., None], before, 0)
    return Packing(packed, positions, segments, tuple(order), rows, sources)


def first_fit_decreasing(sizes: Sequence[int]) -> tuple[list[int], list[int]]:
    """Sizes in rows as long as the largest of them: the largest first, each in the first row with room.

    Equal sizes keep their order.

    Args:
        sizes: At least one, each above 0.

    Returns:
        The row of each, from 0, and where it starts in its row.
    """
    room = max(sizes)
    rows, offsets = [0] * len(sizes), [0] * len(sizes)
    filled: list[int] = []
    for item in sorted(range(len(sizes)), key=lambda item: -sizes[item]):
        row = next((row for row, used in enumerate(filled) if used + sizes[item] <= room), len(filled))
        if row == len(filled):
            filled.append(0)
        rows[item], offsets[item] = row, filled[row]
        filled[row] += sizes[item]
    return rows, offsets
