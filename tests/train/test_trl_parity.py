"""Our loss and advantages against TRL's own code, given the same log-probs and rewards.

TRL 1.16 multiplies the KL by the importance ratio where `use_bias_correction_kl` is on, its default. The paper does
not, so it is off here.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from harness.train.advantages import group_advantages
from harness.train.losses import grpo_loss

with warnings.catch_warnings():
    # What TRL and its own imports warn of while they load is not about this project.
    warnings.simplefilter("ignore")
    grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="compares with TRL, a development extra")

SHAPES = [(1, 2, 1), (2, 8, 5), (5, 4, 17)]
MAX_LENGTH = 20
Normalizer = Literal["sequence", "batch_tokens", "constant"]


class OneProcess:
    """What TRL asks of accelerate, where there is nobody to gather from."""

    device = torch.device("cpu")
    process_index = 0
    num_processes = 1

    def gather(self, values: Tensor) -> Tensor:
        return values

    def reduce(self, values: Tensor, reduction: str) -> Tensor:
        return values


class GivenLogProbs(grpo_trainer.GRPOTrainer):  # type: ignore[misc, name-defined]
    """TRL's trainer with given log-probs in place of a model's; its loss is computed by TRL's code."""

    def __init__(self, log_probs: Tensor, *, loss_type: str, beta: float) -> None:
        # TRL's constructor loads models and data, which a loss of given log-probs has no use for.
        self.log_probs = log_probs
        self.loss_type = loss_type
        self.beta = beta
        self.args = SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1)
        self.accelerator = OneProcess()
        self.model = SimpleNamespace(training=True)
        self.epsilon_low = self.epsilon_high = 0.2
        self.max_completion_length = MAX_LENGTH
        self.current_gradient_accumulation_steps = 1
        self.importance_sampling_level = "token"
        self.top_entropy_quantile = 1.0
        self.off_policy_mask_threshold = None
        self.aux_loss_enabled = self._entropy_bonus_enabled = False
        self.use_vllm = self.vllm_importance_sampling_correction = False
        self._metrics = {"train": defaultdict(list)}

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor, None]:
        return self.log_probs, torch.zeros_like(self.log_probs), None


class GivenRewards(grpo_trainer.GRPOTrainer):  # type: ignore[misc, name-defined]
    """TRL's trainer with given rewards in place of sampled completions; advantages are computed by TRL's code."""

    def __init__(self, rewards: Tensor, scale_rewards: str) -> None:
        self.rewards = rewards
        self.scale_rewards = scale_rewards
        self.args = SimpleNamespace(
            per_device_train_batch_size=rewards.numel(),
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        )
        self.accelerator = OneProcess()
        self.model = SimpleNamespace(training=True, is_gradient_checkpointing=False)
        self._tokenizer = SimpleNamespace(pad_token_id=0)
        self.num_generations = rewards.shape[1]
        self.num_iterations = 1
        self.beta = 0.0
        self.multi_objective_aggregation = "sum_then_normalize"
        self.reward_weights = torch.ones(1)
        self.reward_funcs, self.reward_func_names = [None], ["given"]
        self.environment_factories = self.environments = self.pad_to_multiple_of = None
        self.tools, self.mask_truncated_completions = [], False
        self.use_vllm = self.vllm_importance_sampling_correction = self.log_multimodal = False
        self._metrics = {"train": defaultdict(list)}
        self._logs: dict[str, Any] = {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": []}
        self._pending_extra_logs: dict[str, Any] = {}
        self._pending_metrics: dict[str, Any] = {}

    def _generate(self, prompts: list[str]) -> tuple[Any, ...]:
        one_token = [[1]] * len(prompts)
        return one_token, one_token, None, ["text"] * len(prompts), None, {}, None, None

    def _calculate_rewards(self, *args: Any) -> Tensor:
        return self.rewards.reshape(-1, 1)


def case(shape: tuple[int, int, int], *, off_policy: bool, seed: int = 0) -> dict[str, Tensor]:
    """Log-probs [N, G, T] of three models, ragged completions of at least one token, a group without variance."""
    generator = torch.Generator().manual_seed(seed)
    num_prompts, group_size, longest = shape

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(shape, generator=generator, dtype=torch.float64)

    log_probs = -noise(1.0).abs() - 0.1
    lengths = torch.randint(1, longest + 1, (num_prompts, group_size), generator=generator)
    lengths[0, 0] = longest
    rewards = torch.randint(0, 3, (num_prompts, group_size), generator=generator).double()
    rewards[-1] = 1.0
    rewards[0, 0], rewards[0, 1] = 2.0, 0.0
    tensors = {
        "log_probs": log_probs,
        "reference": log_probs + noise(0.3),
        "lengths": lengths,
        "mask": torch.arange(longest) < lengths[..., None],
        "advantages": group_advantages(rewards),
    }
    if off_policy:
        tensors["old"] = log_probs + noise(0.4)
    return tensors


def trl_loss(tensors: dict[str, Tensor], loss_type: str, beta: float) -> tuple[Tensor, Tensor, dict[str, float]]:
    """TRL's loss, its gradient [N, G, T], and what it logs."""
    shape = tensors["log_probs"].shape
    log_probs = tensors["log_probs"].flatten(0, 1).requires_grad_()
    mask = tensors["mask"].flatten(0, 1).long()
    inputs = {
        "prompt_ids": torch.zeros(len(mask), 1, dtype=torch.long),
        "prompt_mask": torch.ones(len(mask), 1, dtype=torch.long),
        "completion_ids": torch.zeros_like(mask),
        "completion_mask": mask,
        "advantages": tensors["advantages"].flatten(),
        "num_items_in_batch": mask.sum(),
        "ref_per_token_logps": tensors["reference"].flatten(0, 1),
    }
    if "old" in tensors:
        inputs["old_per_token_logps"] = tensors["old"].flatten(0, 1)
    trainer = GivenLogProbs(log_probs, loss_type=loss_type, beta=beta)
    loss = trainer._compute_loss(None, inputs)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    return loss.detach(), gradient.view(shape), {key: values[0] for key, values in trainer._metrics["train"].items()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("off_policy", [False, True])
@pytest.mark.parametrize(
    ("loss_type", "normalizer"), [("grpo", "sequence"), ("dapo", "batch_tokens"), ("dr_grpo", "constant")]
)
def test_loss_and_gradient_are_trls(
    shape: tuple[int, int, int], beta: float, off_policy: bool, loss_type: str, normalizer: Normalizer
) -> None:
    tensors = case(shape, off_policy=off_policy)
    expected, expected_gradient, logged = trl_loss(tensors, loss_type, beta)

    log_probs = tensors["log_probs"].requires_grad_()
    terms = grpo_loss(
        log_probs,
        tensors["advantages"],
        tensors["mask"],
        beta=beta,
        num_completions=shape[0] * shape[1],
        num_tokens=int(tensors["lengths"].sum()),
        max_completion_length=MAX_LENGTH,
        old_log_probs=tensors.get("old"),
        reference_log_probs=tensors["reference"],
        clip_epsilon=0.2,
        normalizer=normalizer,
    )
    (gradient,) = torch.autograd.grad(terms.loss, log_probs)

    torch.testing.assert_close(terms.loss.detach(), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)
    num_tokens = float(terms.num_tokens)
    assert float(terms.clipped_sum) / num_tokens == pytest.approx(logged["clip_ratio/region_mean"], abs=1e-6)
    if beta:
        assert float(terms.kl_sum) / num_tokens == pytest.approx(logged["kl"], abs=1e-6)


def test_the_clip_acts_in_the_off_policy_cases() -> None:
    tensors = case((5, 4, 17), off_policy=True)
    _, gradient, logged = trl_loss(tensors, "grpo", beta=0.0)
    assert logged["clip_ratio/low_mean"] > 0.02
    assert logged["clip_ratio/high_mean"] > 0.02
    assert gradient[:-1].abs().sum() > 0
    assert torch.equal(gradient[-1], torch.zeros_like(gradient[-1]))  # the group without variance


def test_a_completion_without_tokens_contributes_nothing_as_in_trl() -> None:
    tensors = case((2, 4, 6), off_policy=True)
    tensors["mask"][1, 2] = False
    expected, expected_gradient, _ = trl_loss(tensors, "grpo", beta=0.04)
    log_probs = tensors["log_probs"].requires_grad_()
    loss = grpo_loss(
        log_probs,
        tensors["advantages"],
        tensors["mask"],
        beta=0.04,
        num_completions=8,
        num_tokens=int(tensors["mask"].sum()),
        max_completion_length=MAX_LENGTH,
        old_log_probs=tensors["old"],
        reference_log_probs=tensors["reference"],
    ).loss
    (gradient,) = torch.autograd.grad(loss, log_probs)
    torch.testing.assert_close(loss.detach(), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("scale_rewards", "scale"), [("group", "std"), ("none", "none")])
def test_advantages_are_trls(scale_rewards: str, scale: Literal["std", "none"]) -> None:
    rewards = torch.tensor([[0.0, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 2.0], [0.25, 1.25, 0.25, 0.0]])
    trainer = GivenRewards(rewards, scale_rewards)
    expected = trainer._generate_and_score_completions([{"prompt": "question"}] * rewards.numel())["advantages"]
    torch.testing.assert_close(group_advantages(rewards, scale), expected.view_as(rewards), rtol=0, atol=1e-6)
    assert torch.equal(group_advantages(rewards, scale)[1], torch.zeros(4))
