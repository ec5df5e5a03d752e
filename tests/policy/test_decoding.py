from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import harness.policy.decoding as decoding
import harness.policy.sampling as sampling
from harness.policy import Completions, Policy, completion_log_probs, load_policy, sample
from harness.policy.cache import CacheShape
from harness.policy.decoding import CAPTURED_PACE, Decoder, Pace
from harness.policy.drawing import Drawing
from harness.policy.learning import choose_learning

T = 20
COARSE = Pace(look_every=3, is_late=True, length_multiple=4, retire_frac=0.125, halves=True)
"""As for graphs, with numbers small enough that every kind of bucket comes up."""

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="graphs need a CUDA device")


def uniforms(num_prompts: int, group_size: int = 8, length: int = T) -> Tensor:
    return torch.rand((num_prompts, group_size, length), generator=torch.Generator().manual_seed(0))


def encode(policy: Policy, prompts: Any) -> tuple[Any, Tensor]:
    batch = policy.batch(prompts)
    with torch.no_grad():
        return batch, policy.encode_images(batch)


def assert_same(one: Completions, other: Completions, tolerance: float = 1e-5) -> None:
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.lengths, other.lengths)
    assert torch.equal(one.finished, other.finished)
    torch.testing.assert_close(one.log_probs, other.log_probs, rtol=tolerance, atol=tolerance)


@pytest.fixture
def decoders(monkeypatch: pytest.MonkeyPatch) -> list[Decoder]:
    """Every decoder that is made from here on."""
    made: list[Decoder] = []

    class Watched(Decoder):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)
            self.shapes: list[tuple[int, int, int, int]] = []

        def step(self, length: int) -> None:
            self.shapes.append((*self.cache.rows_shape, self.cache.num_prompts, length))
            super().step(length)

    monkeypatch.setattr(decoding, "Decoder", Watched)
    return made


@pytest.mark.parametrize("is_greedy", [False, True])
def test_buckets_of_rows_and_lengths_change_no_completion(
    any_policy: Policy, make_prompts: Any, sizes: Any, is_greedy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(any_policy, make_prompts(any_policy, sizes))
    draws = None if is_greedy else uniforms(3)
    usual = sample(any_policy, *encoded, max_new_tokens=T, uniforms=draws, temperature=0.8)
    monkeypatch.setattr(decoding, "EAGER_PACE", COARSE)
    assert_same(sample(any_policy, *encoded, max_new_tokens=T, uniforms=draws, temperature=0.8), usual)


def test_buckets_are_few_and_shrink(
    policy: Policy, make_prompts: Any, decoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "EAGER_PACE", COARSE)
    drawn = sample(policy, *encode(policy, make_prompts(policy)), max_new_tokens=T, uniforms=uniforms(3))
    shapes = decoders[0].shapes
    assert {m * g for m, g, _, _ in shapes} <= {24, 12, 6, 3, 1}
    assert {length for *_, length in shapes} <= {4, 8, 12, 16, 20}
    assert [m * g for m, g, _, _ in shapes] == sorted((m * g for m, g, _, _ in shapes), reverse=True)
    # As many prompts as there are rows, at the most, and never more rows than had to run when last heard of.
    assert all(prompts <= min(3, m * g) for m, g, prompts, _ in shapes)
    for step, (m, g, _, length) in enumerate(shapes, start=1):
        assert step <= length < step + 4
        assert m * g >= int((drawn.lengths > step).sum())
    assert shapes[0][:3] == (3, 8, 3) and shapes[-1][0] < 24


def test_rows_that_run_are_all_that_is_computed_where_every_step_is_looked_at(
    policy: Policy, make_prompts: Any, decoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "EAGER_PACE", Pace(retire_frac=0.0))
    drawn = sample(policy, *encode(policy, make_prompts(policy)), max_new_tokens=T, uniforms=uniforms(3))
    for step, (m, g, prompts, length) in enumerate(decoders[0].shapes, start=1):
        running = drawn.lengths > step
        assert (m * g, length) == (int(running.sum()), step)
        assert prompts == (int(running.any(dim=1).sum()) if g == 1 else 3)


class Calls(TorchDispatchMode):
    """Which kernels ran, on what shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        shapes = tuple((tuple(arg.shape), arg.stride()) for arg in args if isinstance(arg, Tensor))
        self.calls.append((str(func), shapes))
        return func(*args, **kwargs or {})


def addresses(decoder: Decoder) -> dict[str, int]:
    """Where a decoder's own tensors are."""
    return {name: value.data_ptr() for name, value in vars(decoder).items() if isinstance(value, Tensor)}


@torch.no_grad()
def test_a_step_is_the_same_calls_whatever_was_drawn_and_asks_the_host_nothing(
    any_policy: Policy, make_prompts: Any, decoders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "EAGER_PACE", COARSE)
    sample(any_policy, *encode(any_policy, make_prompts(any_policy)), max_new_tokens=T, uniforms=uniforms(3))
    decoder = decoders[0]
    before = addresses(decoder)
    seen = []
    with torch.inference_mode():
        for step, token in ((4, 5), (6, 9)):
            decoder._step.fill_(step)
            decoder._token.fill_(token)
            decoder._running.fill_(step == 4)
            with Calls() as calls:
                decoder.step(8)
            seen.append(calls.calls)
    assert seen[0] == seen[1]
    names = {name for name, _ in seen[0]}
    assert "aten.index_copy_.default" in names
    assert not {name for name in names if any(word in name for word in ("_local_scalar", "nonzero", "masked_select"))}
    assert addresses(decoder) == before


@pytest.mark.parametrize("padding_frac", [0.0, 1.0])
def test_how_prompts_are_run_together_changes_no_completion(
    policy: Policy, make_prompts: Any, sizes: Any, padding_frac: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(policy, make_prompts(policy, sizes))
    usual = sample(policy, *encoded, max_new_tokens=T, uniforms=uniforms(3))
    monkeypatch.setattr(sampling, "PADDING_FRAC", padding_frac)
    assert_same(sample(policy, *encoded, max_new_tokens=T, uniforms=uniforms(3)), usual)


def test_prompts_of_about_one_length_are_run_together() -> None:
    assert sampling._passes([90, 100, 30, 76, 75, 74, 30]) == [[0, 1, 3, 4], [5], [2, 6]]
    assert sampling._passes([5]) == [[0]]


def test_an_adapter_beside_the_weights_is_decoded_with(
    policy_folder: Path, make_prompts: Any, decoders: list[Decoder]
) -> None:
    pytest.importorskip("peft")
    policy = load_policy(str(policy_folder))
    choose_learning(policy, vision=False, lora_rank=2)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    batch, features = encode(policy, make_prompts(policy))
    drawn = sample(policy, batch, features, max_new_tokens=T, uniforms=uniforms(3))
    assert decoders[0]._projections[0].weight is None
    with torch.no_grad():
        again = completion_log_probs(policy, batch, features, drawn.ids, drawn.lengths)
    torch.testing.assert_close(drawn.log_probs, again, rtol=1e-4, atol=1e-4)


def test_a_decoder_goes_with_its_model(policy_folder: Path) -> None:
    policy = load_policy(str(policy_folder))
    shape = CacheShape(policy.family.num_layers, 2, policy.family.head_dim, 1, 4, 1, 2)
    made = Decoder(policy.family, shape, Drawing(None, (0,), (), 0), CAPTURED_PACE)
    decoding._KEPT[policy.family] = (None, made)
    known, gone = len(decoding._KEPT), weakref.ref(policy.family)
    del policy, made
    gc.collect()
    assert gone() is None and len(decoding._KEPT) == known - 1


@pytest.fixture
def gpu_policy(policy_folder: Path) -> Policy:
    return load_policy(str(policy_folder), "cuda")


@needs_cuda
@pytest.mark.parametrize("is_greedy", [False, True])
def test_graphs_draw_what_the_calls_they_hold_draw(
    gpu_policy: Policy, make_prompts: Any, is_greedy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(gpu_policy, make_prompts(gpu_policy))
    draws = None if is_greedy else uniforms(3)
    monkeypatch.setattr(decoding, "CAPTURED_PACE", COARSE)
    captured = [sample(gpu_policy, *encoded, max_new_tokens=T, uniforms=draws) for _ in range(2)]
    monkeypatch.setattr(Decoder, "_replay", Decoder.step)
    called = sample(gpu_policy, *encoded, max_new_tokens=T, uniforms=draws)
    for drawn in captured:
        assert_same(drawn, called)


@needs_cuda
def test_graphs_are_kept_and_follow_the_weights(
    gpu_policy: Policy, make_prompts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(gpu_policy, make_prompts(gpu_policy))

    def drawn(length: int = T) -> Completions:
        return sample(gpu_policy, *encoded, max_new_tokens=length, uniforms=uniforms(3, length=length))

    first = drawn()
    kept = decoding._KEPT[gpu_policy.family][1]
    assert kept._graphs
    with torch.no_grad():
        for parameter in gpu_policy.family.text.parameters():
            parameter.mul_(1.1)
    moved = drawn()
    assert decoding._KEPT[gpu_policy.family][1] is kept
    assert not torch.equal(moved.log_probs[:, :, 0], first.log_probs[:, :, 0])
    drawn(length=T // 2)
    assert decoding._KEPT[gpu_policy.family][1] is not kept
    monkeypatch.setattr(Decoder, "_replay", Decoder.step)
    assert_same(drawn(), moved)


@needs_cuda
def test_a_step_on_a_device_does_not_wait_for_it(gpu_policy: Policy, make_prompts: Any) -> None:
    sample(gpu_policy, *encode(gpu_policy, make_prompts(gpu_policy)), max_new_tokens=T, uniforms=uniforms(3))
    kept = decoding._KEPT[gpu_policy.family][1]
    kept._step.zero_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            kept.step(T)
    finally:
        torch.cuda.set_sync_debug_mode("default")
