from __future__ import annotations

import torch

from harness.policy.attention import KeyValueCache, causal_mask, scaled_dot_product, shared_prefix_mask


def test_causal_mask_of_left_padding_by_hand() -> None:
    mask = causal_mask(torch.tensor([[True, False, False], [False, False, False]]))
    assert mask.shape == (2, 1, 3, 3)
    assert mask[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert mask[1, 0].int().tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_shared_prefix_mask_by_hand() -> None:
    mask = shared_prefix_mask(torch.tensor([[-1, 0, 0, 1, 1, 2, -1]]))
    assert mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 1, 0, 0, 0, 0, 0],
        [0, 1, 1, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]


def test_two_keys_by_hand() -> None:
    queries = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2).repeat(1, 2, 1, 1)
    keys = torch.tensor([[2**0.5, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    values = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 1, 2, 2)
    attended = scaled_dot_product(queries, keys, values, None)
    first = 1 / (1 + torch.tensor(-2.0).exp())
    torch.testing.assert_close(attended[0, 0, 0], torch.stack([first, 1 - first]))
    torch.testing.assert_close(attended[0, 0], attended[0, 1])


def test_products_of_bf16_agree_with_the_kernel_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 5, 8), (2, 2, 5, 8), (2, 2, 5, 8))
    states = [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]
    weights = torch.randn((2, 4, 5, 8), generator=generator)
    for mask in (None, causal_mask(torch.tensor([[True, True, False, False, False], [False] * 5]))):
        exact = [state.float().requires_grad_() for state in states]
        coarse = [state.clone().requires_grad_() for state in states]
        wanted = scaled_dot_product(*exact, mask)
        got = scaled_dot_product(*coarse, mask)
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), wanted, rtol=0.02, atol=0.02)
        (wanted * weights).sum().backward()
        (got.float() * weights).sum().backward()
        for one, other in zip(coarse, exact, strict=True):
            assert one.grad is not None and other.grad is not None
            assert (one.grad.float() - other.grad).norm() < 0.02 * other.grad.norm()


def test_cached_decoding_equals_attention_over_the_whole_sequence() -> None:
    generator = torch.Generator().manual_seed(0)
    padding = torch.tensor([[True, False, False], [False, False, False]])
    group_size, num_new = 2, 3
    prompt = [torch.randn(2, heads, 3, 4, generator=generator) for heads in (4, 2, 2)]
    new = [torch.randn(4, heads, num_new, 4, generator=generator) for heads in (4, 2, 2)]
    cache = KeyValueCache(padding, num_layers=1, group_size=group_size, max_new_tokens=num_new)
    first = cache.prefill(0, *prompt)
    cache.start()
    kept = torch.arange(4)
    decoded = []
    for step in range(num_new):
        if step == 2:
            kept = torch.tensor([0, 3])
            cache.keep(kept)
        decoded.append(cache.decode(0, *(state[kept, :, step : step + 1] for state in new)))
        cache.advance()

    whole = [
        torch.cat([old.repeat_interleave(group_size, dim=0), fresh], dim=2)
        for old, fresh in zip(prompt, new, strict=True)
    ]
    grown = torch.cat([padding.repeat_interleave(group_size, dim=0), torch.zeros(4, num_new, dtype=torch.bool)], dim=1)
    wanted = scaled_dot_product(*whole, causal_mask(grown))
    seen = ~padding
    torch.testing.assert_close(first.transpose(1, 2)[seen], wanted[::2, :, :3].transpose(1, 2)[seen])
    torch.testing.assert_close(torch.cat(decoded[:2], dim=2), wanted[:, :, 3:5])
    torch.testing.assert_close(decoded[2], wanted[kept, :, 5:6])
