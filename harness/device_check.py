"""Does a device compute what this machine's CPU computes? The embedded policy, asked the same on both.

Speed comes from paths that differ by device (captured graphs and block-sparse attention on CUDA, dense masks on a CPU);
this holds their numbers beside each other in a few seconds, before days of runs depend on them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.policy import Policy, PromptBatch, completion_log_probs, load_policy, sample
from harness.tasks.base import load_task
from harness.tasks.prompts import training_prompt

NUM_PROMPTS = 4
GROUP_SIZE = 4
MAX_NEW_TOKENS = 32

LARGEST_DIFFERENCE = 1e-3
"""Between log-probs in float32, in nats. Two correct kernels differ by a hundredth of it."""
LEAST_AGREEMENT = 0.9
"""Share of sampled tokens that must be equal: a rounding may tip a draw, and what follows it then differs."""
LARGEST_BF16_ERROR = 0.1
"""Mean error of a log-prob in bf16, in nats."""


def check_device(device: str) -> Iterator[tuple[str, str, bool]]:
    """Asks the CPU and a device the same.

    Args:
        device: `cuda`, `cuda:<n>`, or `cpu` to try the check itself.

    Yields:
        What was compared, the result in words, and whether it is right.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    host, there = load_policy("embedded"), load_policy("embedded", device)
    drawn = _drawn(host)
    same = _drawn(there)
    shape = (slice(None), slice(None), slice(min(drawn[0].shape[2], same[0].shape[2])))
    agreement = float((drawn[0][shape] == same[0][shape]).float().mean())
    yield "sampling", f"{agreement:.1%} of tokens equal", agreement >= LEAST_AGREEMENT
    wanted, gradient = _log_probs(host, *drawn)
    got, its_gradient = _log_probs(there, *drawn)
    difference = float((got - wanted).abs().max())
    yield "log-probs", f"within {difference:.1e} of the CPU's", difference <= LARGEST_DIFFERENCE
    error = abs(its_gradient / gradient - 1)
    yield "gradients", f"norm within {error:.1e} of the CPU's", error <= LARGEST_DIFFERENCE
    coarse, _ = _log_probs(load_policy("embedded", device, precision="bf16"), *drawn)
    mean = float((coarse - wanted).abs().mean())
    yield "bf16", f"log-probs off by {mean:.1e} in the mean", mean <= LARGEST_BF16_ERROR


def _batch(policy: Policy) -> PromptBatch:
    task = load_task("counting")
    examples = [task.example("validation", index) for index in range(NUM_PROMPTS)]
    prompts = [policy.prompt(example.image, training_prompt(example.question)) for example in examples]
    return policy.batch(prompts)


def _drawn(policy: Policy) -> tuple[Tensor, Tensor]:
    """Ids and lengths of sampled completions, on the CPU."""
    batch = _batch(policy)
    generator = torch.Generator().manual_seed(0)
    uniforms = torch.rand((NUM_PROMPTS, GROUP_SIZE, MAX_NEW_TOKENS), generator=generator)
    with torch.no_grad():
        features = policy.encode_images(batch)
        completions = sample(policy, batch, features, max_new_tokens=MAX_NEW_TOKENS, uniforms=uniforms)
    return completions.ids.cpu(), completions.lengths.cpu()


def _log_probs(policy: Policy, ids: Tensor, lengths: Tensor) -> tuple[Tensor, float]:
    """Log-probs on the CPU, and the norm of their sum's gradient."""
    batch = _batch(policy)
    features = policy.encode_images(batch)
    values = completion_log_probs(policy, batch, features, ids.to(policy.device), lengths.to(policy.device))
    values.sum().backward()
    norms = [weight.grad.float().norm() for weight in policy.model.parameters() if weight.grad is not None]
    return values.detach().float().cpu(), float(torch.stack(norms).norm())
