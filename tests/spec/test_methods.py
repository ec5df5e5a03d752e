"""Methods: the paper's defaults, the profiles over them, and what is refused."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from harness.spec import Base, Evaluation, Execution, Grpo, GrpoD, RunSpec, Sft
from harness.spec.executor import ExecutorSettings
from harness.spec.methods import METHOD_MODELS
from harness.spec.names import METHODS
from harness.spec.schedules import SCHEDULE_MODELS

QWEN = "Qwen/Qwen2-VL-2B-Instruct"


def test_the_class_defaults_are_r1vs() -> None:
    grpo = Grpo()
    assert (grpo.lr, grpo.lr_schedule, grpo.group_size, grpo.temperature) == (1e-6, "linear", 8, 1.0)
    assert (grpo.prompts_per_step, grpo.num_steps, grpo.max_completion_length) == (16, 100, 512)
    assert (grpo.format_weight, grpo.clip_epsilon, grpo.kl_estimator, grpo.schedule.beta) == (1.0, 0.2, "k3", 0.04)
    sft = Sft()
    assert (sft.lr, sft.lr_schedule, sft.warmup_frac, sft.target) == (2e-5, "cosine", 0.1, "answer_only")


def test_grpo_d_is_grpo_with_another_schedule() -> None:
    shared = Grpo.model_fields.keys() - {"type", "schedule"}
    assert shared == GrpoD.model_fields.keys() - {"type", "schedule"}
    assert all(getattr(Grpo(), name) == getattr(GrpoD(), name) for name in shared)
    assert GrpoD().schedule.type == "othink"


@pytest.mark.parametrize(
    ("source", "beta", "low", "high"), [("counting", 0.04, 0.04, 0.1), ("geometry", 0.01, 0.0, 0.02)]
)
def test_betas_follow_the_source_as_in_the_paper(source: str, beta: float, low: float, high: float) -> None:
    grpo = RunSpec(model=QWEN, method="grpo", source=source).method
    grpo_d = RunSpec(model=QWEN, method="grpo_d", source=source).method
    assert isinstance(grpo, Grpo) and isinstance(grpo_d, GrpoD)
    assert grpo.schedule.beta == beta
    assert (grpo_d.schedule.beta_min, grpo_d.schedule.beta_max) == (low, high)
    assert grpo_d.schedule.explore_frac == 0.3


def test_what_is_given_wins_over_the_profile() -> None:
    method = RunSpec(
        model=QWEN, method={"type": "grpo_d", "schedule": {"beta_max": 0.5}, "lr": 3e-5}, source="counting"
    ).method
    assert isinstance(method, GrpoD)
    assert (method.schedule.beta_min, method.schedule.beta_max, method.lr) == (0.04, 0.5, 3e-5)


@pytest.mark.parametrize(("model", "num_train"), [(QWEN, 100), ("Qwen/Qwen2-VL-7B-Instruct", 120), ("embedded", 400)])
def test_data_is_as_few_shot_as_in_the_paper(model: str, num_train: int) -> None:
    assert RunSpec(model=model, method="sft", source="counting").num_train == num_train


def test_every_method_that_trains_has_a_trainer() -> None:
    assert METHOD_MODELS.keys() - {"base"} == METHODS.keys()
    assert all(model.model_fields["type"].default == name for name, model in METHOD_MODELS.items())


@pytest.mark.parametrize(
    "model", [*METHOD_MODELS.values(), *SCHEDULE_MODELS.values(), RunSpec, Evaluation, Execution, ExecutorSettings]
)
def test_every_setting_is_explained(model: type[BaseModel]) -> None:
    """By the words below it, which stay in the source: reading them there would slow down every command."""
    explained = set()
    for kind in model.mro():
        if kind.__module__.startswith("harness."):
            (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
            for field, words in itertools.pairwise(definition.body):
                if isinstance(field, ast.AnnAssign) and isinstance(words, ast.Expr):
                    explained.add(field.target.id)
    assert model.model_fields.keys() - {"type"} <= explained


@pytest.mark.parametrize(
    "bad",
    [
        {"group_size": 1},
        {"lr": 0},
        {"lr": float("inf")},
        {"clip_epsilon": 1},
        {"format_weight": -0.5},
        {"num_steps": 0},
        {"kl_estimator": "k4"},
        {"schedule": {"type": "othink"}},
        {"group": 8},
    ],
)
def test_impossible_settings_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Grpo.model_validate(bad)


def test_base_has_no_settings() -> None:
    assert list(Base.model_fields) == ["type"]
    with pytest.raises(ValidationError):
        Base.model_validate({"lr": 1e-4})


@pytest.mark.parametrize("bad", [{"num_examples": 0}, {"num_examples": 2_000_000}, {"every": -1}, {"examples": 5}])
def test_impossible_evaluations_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        Evaluation.model_validate(bad)
