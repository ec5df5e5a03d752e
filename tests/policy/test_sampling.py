from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import harness.policy.decoding as decoding
from harness.policy import Completions, Policy, completion_log_probs, sample
from harness.policy.decoding import Pace
from harness.policy.drawing import draw

T = 12


def uniforms(num_prompts: int, group_size: int = 4, length: int = T, seed: int = 0) -> Tensor:
    return torch.rand((num_prompts, group_size, length), generator=torch.Generator().manual_seed(seed))


def texts(completions: Completions) -> list[list[list[int]]]:
    """Ids up to each completion's end."""
    return [
        [ids[:length] for ids, length in zip(group, lengths, strict=True)]
        for group, lengths in zip(completions.ids.tolist(), completions.lengths.tolist(), strict=True)
    ]


def encode(policy: Policy, prompts: Any) -> tuple[Any, Tensor]:
    batch = policy.batch(prompts)
    with torch.no_grad():
        return batch, policy.encode_images(batch)


def test_greedy_equals_generate_token_for_token(
    any_policy: Policy, make_prompts: Any, model_inputs: Any, sizes: Any
) -> None:
    prompts = make_prompts(any_policy, sizes)
    ours = sample(any_policy, *encode(any_policy, prompts), max_new_tokens=T)
    for prompt, group in zip(prompts, texts(ours), strict=True):
        theirs = any_policy.model.generate(
            **model_inputs(any_policy, prompt.ids[None], [prompt]),
            do_sample=False,
            max_new_tokens=T,
            suppress_tokens=list(any_policy.family.vision_token_ids),
        )
        assert group == [theirs[0, len(prompt.ids) :].tolist()]


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kept_log_probs_are_those_of_the_training_forward(
    any_policy: Policy, make_prompts: Any, sizes: Any, temperature: float
) -> None:
    batch, features = encode(any_policy, make_prompts(any_policy, sizes))
    drawn = sample(any_policy, batch, features, max_new_tokens=T, uniforms=uniforms(3), temperature=temperature)
    with torch.no_grad():
        again = completion_log_probs(any_policy, batch, features, drawn.ids, drawn.lengths, temperature=temperature)
    torch.testing.assert_close(drawn.log_probs, again, rtol=1e-5, atol=1e-5)
    assert not drawn.log_probs[~drawn.mask].any()


def test_vision_tokens_are_never_sampled(policy: Policy, make_prompts: Any) -> None:
    eager = policy.frozen_copy()
    head = nn.Linear(32, policy.family.lm_head.out_features)
    with torch.no_grad():
        head.weight.copy_(policy.family.lm_head.weight)
        head.bias.zero_()
        head.bias[list(policy.family.vision_token_ids)] = 1e4
    eager.family.lm_head = head
    batch, features = encode(policy, make_prompts(policy))
    for draws in (uniforms(3), None):
        drawn = sample(eager, batch, features, max_new_tokens=T, uniforms=draws)
        assert not torch.isin(drawn.ids, torch.tensor(policy.family.vision_token_ids)).any()
        assert texts(drawn) == texts(sample(policy, batch, features, max_new_tokens=T, uniforms=draws))
        assert drawn.log_probs.isfinite().all()


def first_token_probabilities(policy: Policy, batch: Any, features: Tensor) -> Tensor:
    size = policy.family.lm_head.out_features
    usable = torch.tensor([token for token in range(size) if token not in policy.family.vision_token_ids])
    lengths = torch.ones(1, len(usable), dtype=torch.long)
    with torch.no_grad():
        log_probs = completion_log_probs(policy, batch, features, usable[None, :, None], lengths)
    return torch.zeros(size).scatter(0, usable, log_probs[0, :, 0].exp())


def test_frequencies_are_the_softmax(policy: Policy, make_prompts: Any) -> None:
    batch, features = encode(policy, make_prompts(policy)[:1])
    probabilities = first_token_probabilities(policy, batch, features).double().numpy()
    assert probabilities.sum() == pytest.approx(1, abs=1e-5)
    num = 3000
    drawn = sample(policy, batch, features, max_new_tokens=1, uniforms=uniforms(1, num, 1), temperature=1.0)
    counts = np.bincount(drawn.ids.flatten().numpy(), minlength=len(probabilities))
    common = probabilities * num >= 5
    observed = np.append(counts[common], counts[~common].sum())
    expected = np.append(probabilities[common], probabilities[~common].sum()) * num
    assert common.sum() >= 3
    assert stats.chisquare(observed, expected * num / expected.sum()).pvalue > 1e-3


def test_evenly_spaced_uniforms_give_each_token_its_share_to_one_draw(policy: Policy, make_prompts: Any) -> None:
    batch, features = encode(policy, make_prompts(policy)[:1])
    probabilities = first_token_probabilities(policy, batch, features).double().numpy()
    num = 2000
    even = ((torch.arange(num) + 0.5) / num).view(1, num, 1)
    drawn = sample(policy, batch, features, max_new_tokens=1, uniforms=even)
    counts = np.bincount(drawn.ids.flatten().numpy(), minlength=len(probabilities))
    assert np.abs(counts - probabilities * num).max() <= 1 + 1e-2


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_token_is_where_its_own_uniform_falls(policy: Policy, make_prompts: Any, temperature: float) -> None:
    prompts = make_prompts(policy)
    draws = uniforms(3)
    encoded = encode(policy, prompts)
    drawn = sample(policy, *encoded, max_new_tokens=T, uniforms=draws, temperature=temperature)
    banned = torch.tensor(policy.family.vision_token_ids)
    for row, prompt in enumerate(prompts):
        for member, ids in enumerate(texts(drawn)[row]):
            tokens = torch.cat([prompt.ids, torch.tensor(ids)])[None]
            with torch.no_grad():
                logits = policy.model(
                    input_ids=tokens,
                    pixel_values=prompt.pixels,
                    image_grid_thw=torch.tensor([prompt.grid]),
                    mm_token_type_ids=(tokens == policy.family.image_token_id).int(),
                ).logits[0, len(prompt.ids) - 1 : -1]
            upper = (logits.index_fill(1, banned, -torch.inf).double() / temperature).softmax(-1).cumsum(-1)
            lower = torch.cat([torch.zeros(len(ids), 1), upper[:, :-1]], dim=1)
            chosen = torch.tensor(ids)[:, None]
            uniform = draws[row, member, : len(ids)].double()
            assert (lower.gather(1, chosen)[:, 0] <= uniform + 1e-5).all()
            assert (uniform - 1e-5 <= upper.gather(1, chosen)[:, 0]).all()


def test_drawing_inverts_the_cumulative_distribution() -> None:
    logits = torch.tensor([0.0, 0.5, 0.25, 0.0, 0.25, 0.0]).log()
    below_one = float(np.nextafter(np.float32(1), np.float32(0)))
    cases = {0.0: 1, 0.49: 1, 0.5: 2, 0.74: 2, 0.75: 4, below_one: 4}
    token, log_prob = draw(logits.repeat(len(cases), 1), torch.tensor(list(cases)), 1.0)
    assert token.tolist() == list(cases.values())
    torch.testing.assert_close(log_prob.exp(), torch.tensor([0.5, 0.5, 0.25, 0.25, 0.25, 0.25]))
    hot, _ = draw(torch.tensor([[1.0, 0.0]]).log1p(), torch.tensor([0.6]), 1e6)
    cold, _ = draw(torch.tensor([[1.0, 0.0]]).log1p(), torch.tensor([0.99]), 1e-3)
    assert (hot.item(), cold.item()) == (1, 0)


def test_a_completion_does_not_depend_on_its_batch(policy: Policy, make_prompts: Any, sizes: Any) -> None:
    prompts = make_prompts(policy, sizes)
    draws = uniforms(3)
    together = texts(sample(policy, *encode(policy, prompts), max_new_tokens=T, uniforms=draws))
    for row, prompt in enumerate(prompts):
        one = encode(policy, [prompt])
        assert texts(sample(policy, *one, max_new_tokens=T, uniforms=draws[row : row + 1])) == together[row : row + 1]
    alone = texts(sample(policy, *encode(policy, prompts[:1]), max_new_tokens=T, uniforms=draws[:1, 2:3]))
    assert alone == [[together[0][2]]]


@pytest.mark.parametrize("retire_frac", [0.0, 1.0])
def test_when_rows_are_dropped_changes_no_completion(
    policy: Policy, make_prompts: Any, retire_frac: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = encode(policy, make_prompts(policy))
    usual = sample(policy, *encoded, max_new_tokens=20, uniforms=uniforms(3, 8, 20))
    assert usual.lengths.unique().numel() > 2
    monkeypatch.setattr(decoding, "EAGER_PACE", Pace(retire_frac=retire_frac))
    other = sample(policy, *encoded, max_new_tokens=20, uniforms=uniforms(3, 8, 20))
    assert texts(other) == texts(usual)
    assert torch.equal(other.finished, usual.finished)
    torch.testing.assert_close(other.log_probs, usual.log_probs, rtol=1e-5, atol=1e-5)


def test_a_completion_ends_behind_its_first_end_of_turn_or_at_the_limit(policy: Policy, make_prompts: Any) -> None:
    encoded = encode(policy, make_prompts(policy))
    ends = set(policy.end_token_ids)
    long = sample(policy, *encoded, max_new_tokens=20, uniforms=uniforms(3, 8, 20))
    short = sample(policy, *encoded, max_new_tokens=8, uniforms=uniforms(3, 8, 20)[..., :8])
    assert long.finished.any() and not short.finished.all()
    for drawn, limit in ((long, 20), (short, 8)):
        assert drawn.ids.shape[2] == int(drawn.lengths.max()) <= limit
        flat = [ids for group in texts(drawn) for ids in group]
        for ids, finished in zip(flat, drawn.finished.flatten().tolist(), strict=True):
            assert not ends & set(ids[:-1])
            assert finished == (ids[-1] in ends)
            assert finished or len(ids) == limit
    for whole, cut in zip(texts(long), texts(short), strict=True):
        assert [ids[:8] for ids in whole] == cut
    assert torch.equal(short.finished, long.lengths <= 8)


def test_a_low_temperature_is_greedy(policy: Policy, make_prompts: Any) -> None:
    encoded = encode(policy, make_prompts(policy))
    greedy = texts(sample(policy, *encoded, max_new_tokens=T))
    cold = texts(sample(policy, *encoded, max_new_tokens=T, uniforms=uniforms(3, 2), temperature=1e-4))
    assert cold == [group * 2 for group in greedy]
