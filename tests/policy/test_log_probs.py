from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import harness.policy.log_probs as log_probs_module
from harness.errors import ModelError
from harness.policy import Policy, completion_log_probs, load_policy
from harness.policy.attention import attend_block_sparse
from harness.policy.log_probs import token_log_probs
from harness.policy.packing import pack

EXACT = {"rtol": 1e-5, "atol": 1e-5}
RAGGED = torch.tensor([[5, 1, 3], [2, 7, 1], [4, 4, 6]])
SHARING = torch.tensor([[2, 1, 3], [90, 60, 75], [1, 4, 2]])
"""With these, the first and the third prompt's units fit into one row."""


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


@pytest.mark.parametrize("lengths", [RAGGED, RAGGED[:, 1:2], torch.ones(3, 2, dtype=torch.long), SHARING])
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


def test_units_share_rows(any_policy: Policy, make_prompts: Any, sizes: Any) -> None:
    batch = any_policy.batch(make_prompts(any_policy, sizes))
    assert pack(batch, completions(any_policy, SHARING), SHARING).order == (1, 0, 2)


def gradients(policy: Policy, loss: Tensor) -> dict[str, Tensor]:
    """Those of every parameter that has one."""
    loss.backward()
    found = {name: weight.grad for name, weight in policy.model.named_parameters() if weight.grad is not None}
    policy.model.zero_grad()
    return found


def check_gradients(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    whole = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    assert got.keys() == wanted.keys()
    for name, gradient in wanted.items():
        # A gradient that nearly cancels keeps the rounding of the terms that it is the sum of.
        assert (got[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7 * whole, name


@pytest.mark.parametrize("lengths", [RAGGED, SHARING])
def test_gradients_of_every_parameter_equal_the_plain_forward(
    any_policy: Policy, make_prompts: Any, plain_log_probs: Any, sizes: Any, no_gradients: None, lengths: Tensor
) -> None:
    prompts = make_prompts(any_policy, sizes)
    batch = any_policy.batch(prompts)
    ids = completions(any_policy, lengths)
    weights = torch.randn(ids.shape, generator=torch.Generator().manual_seed(2))
    ours = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, lengths)
    got = gradients(any_policy, (ours * weights).sum())
    plain = torch.stack(
        [
            (plain_log_probs(any_policy, prompt, ids[row, member, :length]) * weights[row, member, :length]).sum()
            for row, prompt in enumerate(prompts)
            for member, length in enumerate(lengths[row].tolist())
        ]
    )
    wanted = gradients(any_policy, plain.sum())
    assert len(wanted) == len(list(any_policy.model.parameters()))
    assert any("visual" in name or "vision_model" in name for name in wanted)
    check_gradients(got, wanted)


@pytest.mark.parametrize("kind", ["dense", "block-sparse"])
def test_layers_made_again_in_the_backward_pass_change_no_value_and_no_gradient(
    kind: str,
    family_folder: Callable[[str], Path],
    make_prompts: Any,
    uncompiled_kernel: Callable[..., Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = load_policy(str(family_folder("qwen3_vl")))
    batch = policy.batch(make_prompts(policy))
    ids = completions(policy, SHARING)

    def run() -> tuple[Tensor, dict[str, Tensor]]:
        values = completion_log_probs(policy, batch, policy.encode_images(batch), ids, SHARING)
        return values.detach(), gradients(policy, values.sin().sum())

    wanted, slopes = run()
    policy.family.checkpointing = True
    if kind == "block-sparse":

        def attend(segments: Tensor) -> Any:
            return attend_block_sparse(segments, uncompiled_kernel)

        monkeypatch.setattr(log_probs_module, "attend_shared_prefix", attend)
    got, its_slopes = run()
    torch.testing.assert_close(got, wanted, **EXACT)
    check_gradients(its_slopes, slopes)


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


@pytest.mark.parametrize("lengths", [RAGGED, SHARING])
def test_entropy_is_that_of_the_distribution_drawn_from(
    policy: Policy, make_prompts: Any, lengths: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = policy.batch(make_prompts(policy))
    ids = completions(policy, lengths)
    features = policy.encode_images(batch)
    plain = completion_log_probs(policy, batch, features, ids, lengths, temperature=0.7)
    log_probs, entropy = completion_log_probs(policy, batch, features, ids, lengths, temperature=0.7, with_entropy=True)
    assert torch.equal(log_probs, plain)
    assert log_probs.requires_grad and not entropy.requires_grad
    held = torch.arange(ids.shape[2]) < lengths[..., None]
    assert not entropy[~held].any()
    # At one place, the log-probs of all tokens that can be drawn there.
    usable = torch.tensor(
        [i for i in range(len(policy.family.lm_head.weight)) if i not in policy.family.vision_token_ids]
    )
    row, member = 1, 1
    alone = policy.batch(make_prompts(policy)[row : row + 1])
    one = torch.ones(1, len(usable), dtype=torch.long)
    with torch.no_grad():
        every = completion_log_probs(
            policy, alone, policy.encode_images(alone), usable[None, :, None], one, temperature=0.7
        )
    torch.testing.assert_close(entropy[row, member, 0], -(every.exp() * every).sum(), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", 1000)
    again = completion_log_probs(policy, batch, features, ids, lengths, temperature=0.7, with_entropy=True)
    torch.testing.assert_close(again[0], log_probs, **EXACT)
    torch.testing.assert_close(again[1], entropy, **EXACT)


NUM_TOKENS, WIDTH, VOCABULARY = 7, 6, 11
TOKENS = torch.tensor([0, 10, 4, 4, 7, 1, 2])


def log_probs_and_slopes(
    head: nn.Linear, hidden: Tensor, banned: tuple[int, ...], *, plain: bool
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Log-probs, entropies, and the gradients of a weighted sum of the log-probs in the hidden states and the head."""
    states = hidden.clone().requires_grad_()
    if plain:
        every = (head(states) / 0.7).index_fill(1, torch.tensor(banned, dtype=torch.long), -torch.inf).log_softmax(-1)
        result = every.gather(1, TOKENS[:, None])[:, 0]
        entropy = torch.special.entr(every.exp()).sum(-1)
    else:
        result, found = token_log_probs(states, TOKENS, head, banned, temperature=0.7, with_entropy=True)
        assert found is not None
        entropy = found
    learning = [states, *(weight for weight in head.parameters() if weight.requires_grad)]
    slopes = torch.autograd.grad((result * torch.arange(1.0, NUM_TOKENS + 1)).sum(), learning)
    return result.detach(), entropy.detach(), list(slopes)


@pytest.mark.parametrize("limit", [1 << 26, NUM_TOKENS * 3, 1])
@pytest.mark.parametrize("banned", [(), (3, 5), (1, 2, 8)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_log_probs_in_parts_of_the_vocabulary_equal_the_plain_softmax(
    limit: int, banned: tuple[int, ...], bias: bool, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(not frozen)
    hidden = 3 * torch.randn(NUM_TOKENS, WIDTH)
    exact = nn.Linear(WIDTH, VOCABULARY, bias=bias, dtype=torch.float64)
    exact.load_state_dict(head.state_dict())
    exact.requires_grad_(not frozen)
    wanted = log_probs_and_slopes(exact, hidden.double(), banned, plain=True)
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", limit)
    got = log_probs_and_slopes(head, hidden, banned, plain=False)
    may_be_drawn = ~torch.isin(TOKENS, torch.tensor(banned, dtype=torch.long))
    assert (got[0][~may_be_drawn] == -torch.inf).all()
    for one, other in zip((*got[:2], *got[2]), (*wanted[:2], *wanted[2]), strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_of_all_tokens_and_the_vocabulary_is_ever_made(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    num_tokens, vocabulary, limit = 300, 1009, 2048
    head = nn.Linear(2, vocabulary, dtype=dtype)
    hidden = torch.randn(num_tokens, 2, dtype=dtype, requires_grad=True)
    ids = torch.randint(0, vocabulary, (num_tokens,))
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", limit)
    with LargestTensor() as largest:
        values, _ = token_log_probs(hidden, ids, head, (3,), with_entropy=True)
        values.sum().backward()
    assert hidden.grad is not None and head.weight.grad is not None
    # The head's own weight and its gradient are the largest, beside a part of the logits.
    assert largest.numel == max(limit // num_tokens * num_tokens, 2 * vocabulary)


def test_in_bf16_many_parts_lose_little(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = nn.Linear(32, 211, bias=False, dtype=torch.bfloat16)
    hidden = torch.randn(500, 32, dtype=torch.bfloat16)
    ids = torch.randint(0, 211, (500,))

    def slopes(head: nn.Linear, states: Tensor) -> list[Tensor]:
        states = states.clone().requires_grad_()
        values, _ = token_log_probs(states, ids, head)
        assert values.dtype == torch.float32
        return [slope.double() for slope in torch.autograd.grad(values.sum(), [states, head.weight])]

    exact = nn.Linear(32, 211, bias=False)
    exact.weight.data.copy_(head.weight)
    wanted = slopes(exact, hidden.float())
    at_once = [(got - want).norm() for got, want in zip(slopes(head, hidden), wanted, strict=True)]
    for error, want in zip(at_once, wanted, strict=True):
        # 1/256 for the logits, 1/256 for their gradient, and 1/256 for what comes out.
        assert error < 3 / 256 * want.norm()
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", 500 * 2)
    for got, want, error in zip(slopes(head, hidden), wanted, at_once, strict=True):
        # Each part's product is rounded before it is added in float32; adding in bf16 makes 6 times the error.
        assert (got - want).norm() < 1.5 * error


def test_a_head_that_cannot_be_taken_in_parts_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", 10)
    head = nn.Bilinear(4, 4, 9)
    with pytest.raises(ModelError, match=r"^3 tokens' logits .* not a Bilinear: set a smaller execution"):
        token_log_probs(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long), head)


def test_bf16_is_near_float32(
    any_policy: Policy, make_prompts: Any, sizes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setattr(log_probs_module, "MAX_LOGITS", 1000)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        parts = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, RAGGED)
    torch.testing.assert_close(parts, coarse, **EXACT)
