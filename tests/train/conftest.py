from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from harness.errors import Interrupted
from harness.policy import load_policy
from harness.policy.learning import choose_learning
from harness.spec import RunSpec
from harness.spec.names import METHODS, resolve
from harness.tasks.base import load_task
from harness.train.loop import Loop
from harness.train.processes import Processes

SMALL: Mapping[str, Mapping[str, Any]] = {
    "sft": {"num_steps": 3, "prompts_per_step": 4, "lr": 1e-3},
    "grpo": {
        "num_steps": 3,
        "prompts_per_step": 4,
        "group_size": 4,
        "max_completion_length": 20,
        "lr": 1e-3,
        "schedule": {"type": "constant", "beta": 0.04},
    },
    "grpo_d": {"num_steps": 3, "prompts_per_step": 4, "group_size": 4, "max_completion_length": 20, "lr": 1e-3},
}


@pytest.fixture
def make_loop(policy_folder: Path, tmp_path: Path) -> Callable[..., Loop]:
    """A small run, from its method's settings: policy, method and loop, all new."""

    def make(
        method: str,
        *,
        folder: str = "checkpoint",
        seed: int = 0,
        num_train: int = 10,
        checkpoint_every: int = 0,
        micro_batch_tokens: int | None = None,
        vision: str = "trained",
        lora_rank: int = 0,
        **settings: Any,
    ) -> Loop:
        spec = RunSpec(
            model=str(policy_folder),
            method={"type": method, **SMALL[method], **settings},
            source="counting",
            num_train=num_train,
            seed=seed,
            vision=vision,
            lora_rank=lora_rank,
        )
        policy, processes = load_policy(spec.model), Processes("cpu")
        choose_learning(policy, vision=vision == "trained", lora_rank=lora_rank, seed=seed)
        trainer = resolve(METHODS, "method", method)(spec, policy, load_task("counting"), processes)
        return Loop(
            trainer,
            policy,
            spec.method,
            processes,
            checkpoints=tmp_path / folder,
            checkpoint_every=checkpoint_every,
            micro_batch_tokens=micro_batch_tokens,
        )

    return make


@pytest.fixture
def finish() -> Callable[..., list[dict[str, float]]]:
    """Runs a loop to its end, or until so many steps are done; the metrics of each step but times."""

    def run(loop: Loop, stop_after: int | None = None) -> list[dict[str, float]]:
        rows = []
        try:
            for record in loop.run(lambda: stop_after is not None and loop.step >= stop_after):
                rows.append({key: value for key, value in record.metrics.items() if not key.startswith("time/")})
        except Interrupted:
            assert stop_after is not None
        return rows

    return run


@pytest.fixture
def weights() -> Callable[[Loop], dict[str, Tensor]]:
    """A copy of a loop's present weights."""
    return lambda loop: {name: value.detach().clone() for name, value in loop.policy.model.named_parameters()}
