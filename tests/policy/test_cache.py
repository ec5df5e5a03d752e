from __future__ import annotations

import pytest
import torch
from torch import Tensor

from harness.policy.attention import causal_mask, scaled_dot_product
from harness.policy.cache import CacheShape, KeyValueCache

N, G, P, T, HEADS, WIDTH = 3, 4, 5, 6, 2, 8
QUERY_HEADS = 6
PADDING = torch.tensor([[True, True, False, False, False], [False] * P, [True, False, False, False, False]])

EVERY_ROW = list(range(N * G))
ALONE = [1, 3, 4, 10, 11]
"""Rows of all three prompts."""


def states(rows: int, length: int, seed: int) -> list[Tensor]:
    """Queries, keys and values [rows, heads, length, width]."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(rows, heads, length, WIDTH, generator=generator) for heads in (QUERY_HEADS, HEADS, HEADS)]


def whole_sequences(prompt: list[Tensor], new: list[Tensor]) -> Tensor:
    """What plain attention over a copy of the prompt and all new tokens gives, [N * G, T, H * d]."""
    joined = [
        torch.cat([old.repeat_interleave(G, dim=0), fresh], dim=2) for old, fresh in zip(prompt, new, strict=True)
    ]
    padding = torch.cat([PADDING.repeat_interleave(G, dim=0), torch.zeros(N * G, T, dtype=torch.bool)], dim=1)
    return scaled_dot_product(*joined, causal_mask(padding))[:, :, P:].transpose(1, 2).flatten(2)


def filled(prompt: list[Tensor]) -> KeyValueCache:
    cache = KeyValueCache(CacheShape(1, HEADS, WIDTH, N, P, G, T), torch.float32, torch.device("cpu"))
    cache.prefill(torch.arange(N), PADDING)(0, *prompt)
    return cache


def decoded(cache: KeyValueCache, new: list[Tensor], rows: list[int], step: int) -> Tensor:
    """One token of some rows, of which there are as many per prompt as the cache's layout says."""
    m, g = cache.rows_shape
    queries, keys, values = (state[rows, :, step].view(m, g, -1, WIDTH) for state in new)
    bias = torch.zeros(N, P).masked_fill(PADDING, -torch.inf)
    length = 2 * (step // 2 + 1)
    own = torch.zeros(length).masked_fill(torch.arange(length) > step, -torch.inf)
    of_first_axis = bias if g == G else bias[torch.tensor(rows) // G]
    bias = torch.cat([of_first_axis, own.expand(m, -1)], dim=1)
    return cache.decode(0, queries, keys, values, torch.tensor([step]), length, bias)


def test_a_grid_of_rows_equals_attention_over_whole_sequences() -> None:
    prompt, new = states(N, P, 0), states(N * G, T, 1)
    cache, wanted = filled(prompt), whole_sequences(prompt, new)
    for step in range(T):
        torch.testing.assert_close(decoded(cache, new, EVERY_ROW, step), wanted[:, step])


@pytest.mark.parametrize(
    ("kept", "again"),
    [
        (ALONE, [1, 4]),  # indices into ALONE: rows 3 and 11, so the second prompt goes
        ([0, 1, 2, 3], [0, 1, 2]),  # one whole prompt
        ([11], [0]),
        (EVERY_ROW, [0, 5, 6, 7]),
    ],
)
def test_rows_that_are_kept_go_on_as_if_all_were(kept: list[int], again: list[int]) -> None:
    prompt, new = states(N, P, 0), states(N * G, T, 1)
    cache, wanted = filled(prompt), whole_sequences(prompt, new)
    for step in range(2):
        decoded(cache, new, EVERY_ROW, step)
    rows, prompts = EVERY_ROW, [0, 1, 2]
    for chosen, steps in ((kept, (2, 3)), (again, (4, 5))):
        rows = [rows[place] for place in chosen]
        left = sorted({row // G for row in rows})
        places = torch.tensor([[left.index(row // G), row % G] for row in rows])
        live = torch.ones(len(rows), dtype=torch.bool)
        cache.keep(
            torch.tensor(chosen), torch.tensor([prompts.index(prompt) for prompt in left]), places, live, steps[0]
        )
        prompts = left
        for step in steps:
            torch.testing.assert_close(decoded(cache, new, rows, step), wanted[rows, step])


def test_rows_that_fill_up_disturb_none() -> None:
    prompt, new = states(N, P, 0), states(N * G, T, 1)
    cache, wanted = filled(prompt), whole_sequences(prompt, new)
    decoded(cache, new, EVERY_ROW, 0)
    # Row 4 runs; row 0 fills up, and its prompt is gone, so that it claims the cell of row 4.
    rows = torch.tensor([4, 0])
    cache.keep(rows, torch.tensor([1]), torch.tensor([[0, 0], [0, 0]]), torch.tensor([True, False]), 1)
    got = decoded(cache, new, [4, 0], 1)
    torch.testing.assert_close(got[0], wanted[4, 1])
    assert got.isfinite().all()


def test_prompts_that_are_run_apart_lie_where_they_lie_together() -> None:
    prompt, new = states(N, P, 0), states(N * G, T, 1)
    cache = KeyValueCache(CacheShape(1, HEADS, WIDTH, N, P, G, T), torch.float32, torch.device("cpu"))
    for places, start in (([1], 0), ([0, 2], 1)):
        attend = cache.prefill(torch.tensor(places), PADDING[places, start:])
        attend(0, *(state[places, :, start:] for state in prompt))
    got = decoded(cache, new, EVERY_ROW, 0)
    torch.testing.assert_close(got, whole_sequences(prompt, new)[:, 0])


def test_a_group_of_one_stays_a_grid() -> None:
    prompt = states(N, P, 0)
    cache = KeyValueCache(CacheShape(1, HEADS, WIDTH, N, P, 1, T), torch.float32, torch.device("cpu"))
    cache.prefill(torch.arange(N), PADDING)(0, *prompt)
    rows = torch.tensor([0, 2])
    cache.keep(rows, rows, torch.tensor([[0, 0], [1, 0]]), torch.ones(2, dtype=torch.bool), 0)
    new = states(2, 1, 1)
    queries, keys, values = (state.transpose(1, 2) for state in new)
    bias = torch.cat([torch.zeros(2, P).masked_fill(PADDING[rows], -torch.inf), torch.zeros(2, 1)], dim=1)
    got = cache.decode(0, queries, keys, values, torch.tensor([0]), 1, bias)
    joined = [torch.cat([old[rows], fresh], dim=2) for old, fresh in zip(prompt, new, strict=True)]
    mask = causal_mask(torch.cat([PADDING[rows], torch.zeros(2, 1, dtype=torch.bool)], dim=1))
    torch.testing.assert_close(got, scaled_dot_product(*joined, mask)[:, :, -1].flatten(1))
