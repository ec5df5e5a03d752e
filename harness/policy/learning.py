"""Which weights learn: all of them, the text stack's alone, or a low-rank adapter beside them (LoRA, arXiv 2106.09685).

transformers' own way to peft puts the adapter inside the model's layers, so everything that calls those layers has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from harness.errors import ModelError

if TYPE_CHECKING:
    from harness.policy.policy import Policy


def choose_learning(
    policy: Policy, *, vision: bool, lora_rank: int = 0, lora_alpha: float = 32.0, seed: int = 0
) -> None:
    """Sets which of a model's weights learn.

    Args:
        policy: Its model is changed in place.
        vision: Whether the image tower, with what projects into the text's space, learns too.
        lora_rank: Rank of an adapter on every linear layer that learns but the output head; 0 for the weights
            themselves. B starts at 0, so that the policy starts as it is; A is uniform, as peft's default.
        lora_alpha: The adapter's product is scaled by lora_alpha / lora_rank.
        seed: Of A.

    Raises:
        ModelError: peft is not installed.
    """
    policy.model.requires_grad_(True)
    if not vision:
        policy.family.visual.requires_grad_(False)
    if lora_rank:
        _add_adapter(policy, vision, lora_rank, lora_alpha, seed)


def learns_vision(policy: Policy) -> bool:
    """Whether image features change as the policy learns."""
    return any(parameter.requires_grad for parameter in policy.family.visual.parameters())


def has_adapter(policy: Policy) -> bool:
    """Whether a LoRA adapter stands beside the model's weights."""
    return bool(getattr(policy.model, "_hf_peft_config_loaded", False))


@contextmanager
def without_adapter(policy: Policy) -> Iterator[Policy]:
    """The policy as it was before its adapter learnt."""
    policy.model.disable_adapters()
    try:
        yield policy
    finally:
        policy.model.enable_adapters()


def add_saved_adapter(policy: Policy, folder: Path) -> None:
    """Puts an adapter that :meth:`Policy.save` wrote into the model that it belongs to.

    Raises:
        ModelError: peft is not installed, or the folder holds no adapter for this model.
    """
    _peft()
    try:
        policy.model.load_adapter(str(folder), use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot load the adapter {folder}: {str(error).splitlines()[0]}") from error
    policy.model.eval()


def _add_adapter(policy: Policy, vision: bool, rank: int, alpha: float, seed: int) -> None:
    peft = _peft()
    trees = [policy.family.text, *([policy.family.visual] if vision else [])]
    linear = {id(module) for tree in trees for module in tree.modules() if isinstance(module, nn.Linear)}
    names = [name for name, module in policy.model.named_modules() if id(module) in linear]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        policy.model.add_adapter(config)
    policy.model.eval()


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ModelError("lora_rank is above 0, which needs peft: pip install 'grpo-d-harness[lora]'") from None
    return peft
