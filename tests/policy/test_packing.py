from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from harness.policy import Prompt, PromptBatch
from harness.policy.packing import Packing, first_fit_decreasing, pack
from harness.policy.prompt import batch_prompts


def prompts_of(lengths: list[int]) -> PromptBatch:
    """Prompts whose tokens are 100 n, 100 n + 1, ..., at positions from 10 on a first axis and from 20 on a second."""
    prompts = [
        Prompt(
            ids=100 * number + torch.arange(length),
            positions=torch.stack([10 + torch.arange(length), 20 + torch.arange(length)]),
            pixels=torch.zeros(1, 1),
            grid=(1, 1, 1),
        )
        for number, length in enumerate(lengths, start=1)
    ]
    return batch_prompts(prompts, torch.device("cpu"), pad_id=7)


def draw(seed: int) -> tuple[PromptBatch, Tensor, Tensor]:
    """Prompts and completions of random number and lengths, some empty; every token of a completion is its own."""
    rng = random.Random(seed)
    num_prompts, group_size, longest = rng.randint(1, 9), rng.randint(1, 4), rng.choice([1, 5, 60])
    batch = prompts_of([rng.randint(1, 40) for _ in range(num_prompts)])
    lengths = torch.tensor([[rng.randint(0, longest) for _ in range(group_size)] for _ in range(num_prompts)])
    ids = 10_000 + torch.arange(num_prompts * group_size * longest).view(num_prompts, group_size, longest)
    return batch, ids, lengths


def test_first_fit_decreasing_by_hand() -> None:
    #                                      largest first: 6, 4 | 5, 3 | 4, 2 in rows of 6; equal sizes in order
    assert first_fit_decreasing([4, 6, 2, 5, 4, 1]) == ([2, 0, 2, 1, 3, 1], [0, 0, 4, 0, 0, 5])
    assert first_fit_decreasing([3, 3]) == ([0, 1], [0, 0])
    assert first_fit_decreasing([8]) == ([0], [0])


def test_one_unit_by_hand() -> None:
    packing = pack(prompts_of([2]), torch.tensor([[[11, 12, 13], [21, 0, 0], [31, 32, 0]]]), torch.tensor([[3, 1, 2]]))
    assert packing.ids.tolist() == [[100, 101, 11, 12, 31]]
    assert packing.positions[:, 0].tolist() == [[10, 11, 22, 23, 22], [20, 21, 22, 23, 22]]
    assert packing.segments[:, 0].tolist() == [[0, 0, 0, 0, 0], [0, 0, 1, 1, 3]]
    assert packing.sources[0].tolist() == [[1, 2, 3], [1, 0, 0], [1, 4, 0]]


def test_units_that_share_a_row_by_hand() -> None:
    ids = torch.tensor([[[11, 12]], [[21, 22]], [[31, 0]]])
    packing = pack(prompts_of([1, 4, 2]), ids, torch.tensor([[2], [2], [1]]))
    assert packing.ids.tolist() == [[200, 201, 202, 203, 21], [100, 11, 300, 301, 100]]
    assert packing.positions[0].tolist() == [[10, 11, 12, 13, 24], [10, 21, 10, 11, 0]]
    assert packing.segments[0].tolist() == [[1, 1, 1, 1, 1], [0, 0, 2, 2, -1]]
    assert packing.segments[1].tolist() == [[0, 0, 0, 0, 1], [0, 1, 0, 0, 0]]
    assert packing.order == (1, 0, 2)
    assert packing.rows.tolist() == [1, 0, 1]
    assert packing.sources.tolist() == [[[0, 1]], [[3, 4]], [[3, 0]]]


def test_units_that_cannot_share_keep_the_prompts_ends_aligned() -> None:
    packing = pack(prompts_of([4, 3]), torch.tensor([[[11, 12]], [[21, 22]]]), torch.tensor([[2], [1]]))
    assert packing.ids.tolist() == [[100, 101, 102, 103, 11], [103, 200, 201, 202, 103]]
    assert packing.segments[0].tolist() == [[0] * 5, [-1, 1, 1, 1, -1]]
    assert packing.order == (0, 1)


@pytest.mark.parametrize("seed", range(40))
def test_every_token_has_one_place_and_rows_are_never_more_than_padding_makes(seed: int) -> None:
    batch, ids, lengths = draw(seed)
    packing = pack(batch, ids, lengths)
    inputs = (lengths - 1).clamp(min=0)
    padded = len(batch) * (batch.ids.shape[1] + int(inputs.sum(dim=1).max()))
    assert packing.ids.numel() <= padded
    shared = len(packing.ids) < len(batch)
    assert packing.ids.shape[1] == (max(batch.lengths + inputs.sum(dim=1)) if shared else padded // len(batch))
    unit, member = packing.segments
    assert int((unit >= 0).sum()) == int(batch.lengths.sum() + inputs.sum())
    found = [int(first) for row in unit for first in row[row >= 0].unique_consecutive()]
    assert tuple(found) == packing.order and sorted(found) == list(range(len(batch)))
    for number in range(len(batch)):
        check_unit(packing, batch, ids, lengths, number)
    if shared:
        # Nothing lies between the units of a row, and nothing before them.
        for row in unit:
            assert (row[: int((row >= 0).sum())] >= 0).all()
    assert not member[unit < 0].any()


def check_unit(packing: Packing, batch: PromptBatch, ids: Tensor, lengths: Tensor, number: int) -> None:
    """Its prompt and completions lie in order, and each token is predicted from the one before it."""
    row = int(packing.rows[number])
    here = packing.segments[0, row] == number
    prompt = batch.ids[number][~batch.padding[number]]
    members = [ids[number, member, : max(size - 1, 0)] for member, size in enumerate(lengths[number].tolist())]
    assert packing.ids[row, here].tolist() == torch.cat([prompt, *members]).tolist()
    assert packing.segments[1, row, here].tolist() == [0] * len(prompt) + [
        place + 1 for place, tokens in enumerate(members) for _ in tokens
    ]
    steps = [int(batch.next_position[number]) + step for tokens in members for step in range(len(tokens))]
    assert packing.positions[0, row, here].tolist() == [*range(10, 10 + len(prompt)), *steps]
    for member, size in enumerate(lengths[number].tolist()):
        before = packing.ids[row, packing.sources[number, member]].tolist()
        assert before[:size] == [int(prompt[-1]), *members[member].tolist()][:size]
        assert not packing.sources[number, member, size:].any()
