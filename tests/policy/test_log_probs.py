from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import harness.policy.log_probs as log_probs_module
from harness.policy import Policy, completion_log_probs
from harness.policy.log_probs import pack, token_log_probs

EXACT = {"rtol": 1e-5, "atol": 1e-5}
RAGGED = torch.tensor([[5, 1, 3], [2, 7, 1], [4, 4, 6]])


def completions(policy: Policy, lengths: Tensor) -> Tensor:
    """Random text tokens, with a token that no completion holds as padding."""
    ids = torch.randint(0, 250, (*lengths.shape, int(lengths.max())), generator=torch.Generator().manual_seed(1))
    held = torch.arange(ids.shape[2]) < lengths[..., None]
    return torch.where(held, ids, policy.pad_token_id)


@pytest.fixture
def no_gradients(any_policy: Policy) -> Iterator[None]:
    any_policy.model.zero_grad()
    yield
    any_policy.model.zero_grad()


@pytest.mark.parametrize("lengths", [RAGGED, RAGGED[:, 1:2], torch.ones(3, 2, dtype=torch.long)])
def test_values_equal_the_plain_forward(
    any_policy: Policy, make_prompts: Any, plain_log_probs: Any, sizes: Any, lengths: Tensor
) -> None:
    prompts = make_prompts(any_policy, sizes)
    batch = any_policy.batch(prompts)
    ids = completions(any_policy, lengths)
    with torch.no_grad():
        ours = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, lengths)
        for row, prompt in enumerate(prompts):
            for member, length in enumerate(lengths[row].tolist()):
                plain = plain_log_probs(any_policy, prompt, ids[row, member, :length])
                torch.testing.assert_close(ours[row, member, :length], plain, **EXACT)
                assert not ours[row, member, length:].any()


def test_gradients_of_every_parameter_equal_the_plain_forward(
    any_policy: Policy, make_prompts: Any, plain_log_probs: Any, sizes: Any, no_gradients: None
) -> None:
    prompts = make_prompts(any_policy, sizes)
    batch = any_policy.batch(prompts)
    ids = completions(any_policy, RAGGED)
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(2))
    ours = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, RAGGED)
    (ours * weights).sum().backward()
    got = {name: parameter.grad for name, parameter in any_policy.model.named_parameters()}
    any_policy.model.zero_grad()
    for row, prompt in enumerate(prompts):
        for member, length in enumerate(RAGGED[row].tolist()):
            plain = plain_log_probs(any_policy, prompt, ids[row, member, :length])
            (plain * weights[row, member, :length]).sum().backward()
    wanted = {name: parameter.grad for name, parameter in any_policy.model.named_parameters()}
    whole = torch.stack([gradient.norm() for gradient in wanted.values() if gradient is not None]).norm()
    assert any("visual" in name for name in wanted)
    for name, gradient in wanted.items():
        assert gradient is not None and got[name] is not None, name
        # A gradient that nearly cancels keeps the rounding of the terms that it is the sum of.
        assert (got[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7 * whole, name


def test_a_padded_prompt_and_a_neighbour_change_nothing(policy: Policy, make_prompts: Any) -> None:
    prompts = make_prompts(policy)
    ids = completions(policy, RAGGED)
    batch = policy.batch(prompts)
    with torch.no_grad():
        together = completion_log_probs(policy, batch, policy.encode_images(batch), ids, RAGGED)
        for row, prompt in enumerate(prompts):
            one = policy.batch([prompt])
            alone = completion_log_probs(policy, one, policy.encode_images(one), ids[row][None], RAGGED[row][None])
            torch.testing.assert_close(together[row], alone[0], **EXACT)


def test_an_empty_completion_has_no_log_probs_and_disturbs_none(policy: Policy, make_prompts: Any) -> None:
    batch = policy.batch(make_prompts(policy))
    ids = completions(policy, RAGGED)
    lengths = RAGGED.clone()
    lengths[0, 1] = 0
    with torch.no_grad():
        features = policy.encode_images(batch)
        full = completion_log_probs(policy, batch, features, ids, RAGGED)
        some = completion_log_probs(policy, batch, features, ids, lengths)
        none = completion_log_probs(policy, batch, features, ids, torch.zeros_like(lengths))
    assert not some[0, 1].any()
    some[0, 1] = full[0, 1]
    torch.testing.assert_close(some, full, **EXACT)
    assert not none.any()


def test_temperature_divides_the_logits(policy: Policy, make_prompts: Any) -> None:
    prompt = make_prompts(policy)[0]
    batch = policy.batch([prompt])
    ids = torch.tensor([[[40]]])
    length = torch.tensor([[1]])
    with torch.no_grad():
        features = policy.encode_images(batch)
        logits = policy.model(
            input_ids=prompt.ids[None],
            pixel_values=prompt.pixels,
            image_grid_thw=torch.tensor([prompt.grid]),
            mm_token_type_ids=(prompt.ids == policy.family.image_token_id).int()[None],
        ).logits[0, -1]
        logits[list(policy.family.vision_token_ids)] = -torch.inf
        got = completion_log_probs(policy, batch, features, ids, length, temperature=0.5)
    torch.testing.assert_close(got[0, 0, 0], (logits / 0.5).log_softmax(-1)[40], **EXACT)


def test_packing_by_hand(policy: Policy, make_prompts: Any) -> None:
    batch = policy.batch(make_prompts(policy)[:1])
    length = batch.ids.shape[1]
    first = int(batch.next_position)
    packing = pack(batch, torch.tensor([[[11, 12, 13], [21, 0, 0], [31, 32, 0]]]), torch.tensor([[3, 1, 2]]))
    assert packing.ids[0, length:].tolist() == [11, 12, 31]
    assert packing.positions[:, 0, length:].tolist() == [[first, first + 1, first]] * 3
    assert packing.segments[0].tolist() == [0] * length + [1, 1, 3]
    last = length - 1
    assert packing.sources[0].tolist() == [[last, length, length + 1], [last, 0, 0], [last, length + 2, 0]]


@pytest.mark.parametrize("banned", [(), (3, 5)])
def test_token_log_probs_in_chunks_equal_the_plain_softmax(
    banned: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(6, 11, bias=False)
    ids = torch.tensor([0, 10, 4, 4, 7, 1, 2])
    values = torch.randn(7, 6, generator=generator)

    def run(*, plain: bool) -> tuple[Tensor, Tensor, Tensor]:
        hidden = values.clone().requires_grad_()
        head.zero_grad()
        if plain:
            logits = F.linear(hidden, head.weight) / 0.7
            logits[:, list(banned)] = -torch.inf
            result = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
        else:
            result = token_log_probs(hidden, ids, head, banned, temperature=0.7)
        (result * torch.arange(1.0, 8.0)).sum().backward()
        assert hidden.grad is not None and head.weight.grad is not None
        return result.detach(), hidden.grad, head.weight.grad.clone()

    wanted = run(plain=True)
    for limit in (1 << 26, 11 * 3, 1):
        monkeypatch.setattr(log_probs_module, "MAX_LOGITS", limit)
        for got, want in zip(run(plain=False), wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_bf16_is_near_float32(any_policy: Policy, make_prompts: Any, sizes: Any) -> None:
    batch = any_policy.batch(make_prompts(any_policy, sizes))
    ids = completions(any_policy, RAGGED)
    with torch.no_grad():
        exact = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, RAGGED)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            coarse = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, RAGGED)
    held = torch.arange(ids.shape[2]) < RAGGED[..., None]
    assert coarse.dtype == torch.float32
    # bf16 keeps 8 bits: a relative error of 1/256 in each of some ten roundings on the way.
    assert (coarse - exact)[held].abs().max() < 0.04 * exact[held].abs().max()
