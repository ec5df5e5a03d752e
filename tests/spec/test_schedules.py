"""KL schedules: Eq. 3 of OThink-MR1 by hand, the other schedules, and the controller."""

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from harness.spec import (
    AdaptiveSchedule,
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    OthinkSchedule,
    beta_at,
    next_beta,
)

COUNTING = OthinkSchedule(beta_min=0.04, beta_max=0.1)
GEOMETRY = OthinkSchedule(beta_min=0.0, beta_max=0.02)


@pytest.mark.parametrize(
    ("step", "beta"),
    [
        (0, 0.07),  # the middle of 0.04 and 0.1
        (15, 0.055),  # halfway down
        (30, 0.04),  # s = w = 0.3 * 100
        (65, 0.07),  # halfway up
        (100, 0.1),  # s = t
    ],
)
def test_eq_3_with_the_papers_counting_range(step: int, beta: float) -> None:
    assert beta_at(COUNTING, step, 100) == pytest.approx(beta, abs=1e-12)


@pytest.mark.parametrize(("step", "beta"), [(0, 0.01), (10, 0.01 * 2 / 3), (30, 0.0), (44, 0.004), (100, 0.02)])
def test_eq_3_with_the_papers_geometry_range(step: int, beta: float) -> None:
    assert beta_at(GEOMETRY, step, 100) == pytest.approx(beta, abs=1e-12)


def test_the_v_falls_then_rises_and_is_continuous_at_its_corner() -> None:
    betas = [beta_at(COUNTING, step, 100) for step in range(101)]
    assert all(a > b for a, b in pairwise(betas[:31]))
    assert all(a < b for a, b in pairwise(betas[30:]))
    assert beta_at(COUNTING, 30 + 1e-9, 100) == pytest.approx(beta_at(COUNTING, 30, 100))


def test_the_corner_scales_with_the_length_of_the_training() -> None:
    assert beta_at(COUNTING, 3, 10) == pytest.approx(0.04)
    assert beta_at(OthinkSchedule(beta_min=0.04, beta_max=0.1, explore_frac=0.5), 5, 10) == pytest.approx(0.04)


@pytest.mark.parametrize(("step", "beta"), [(0, 0.02), (25, 0.04), (50, 0.06), (100, 0.1)])
def test_linear(step: int, beta: float) -> None:
    assert beta_at(LinearSchedule(beta_min=0.02, beta_max=0.1), step, 100) == pytest.approx(beta)


@pytest.mark.parametrize(("step", "beta"), [(0, 0.02), (20, 0.04), (30, 0.06), (40, 0.08), (60, 0.1)])
def test_cosine(step: int, beta: float) -> None:
    # cos(pi / 3) = 1 / 2 at a third of the way
    assert beta_at(CosineSchedule(beta_min=0.02, beta_max=0.1), step, 60) == pytest.approx(beta)


def test_constant_is_the_same_everywhere() -> None:
    assert {beta_at(ConstantSchedule(beta=0.01), step, 7) for step in range(8)} == {0.01}


@pytest.mark.parametrize("kind", [OthinkSchedule, LinearSchedule, CosineSchedule])
def test_a_range_without_width_is_constant(kind: type[OthinkSchedule | LinearSchedule | CosineSchedule]) -> None:
    schedule = kind(beta_min=0.03, beta_max=0.03)
    assert [beta_at(schedule, step, 10) for step in range(11)] == pytest.approx([0.03] * 11)


@pytest.mark.parametrize(("step", "num_steps"), [(-1, 10), (11, 10), (0, 0)])
def test_a_step_outside_the_training_is_refused(step: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match="outside a training"):
        beta_at(COUNTING, step, num_steps)


def test_the_adaptive_schedule_is_no_function_of_the_step() -> None:
    with pytest.raises(TypeError, match="adaptive"):
        beta_at(AdaptiveSchedule(), 0, 10)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kl", "beta"),
    [
        (0.05, 0.1),  # on target: unchanged
        (0.055, 0.1 * (1 + 0.1 / 5)),  # 10 % above
        (0.045, 0.1 * (1 - 0.1 / 5)),
        (9.0, 0.1 * (1 + 0.2 / 5)),  # clipped to 20 %
        (0.0, 0.1 * (1 - 0.2 / 5)),
    ],
)
def test_the_controller_moves_beta_towards_the_target(kl: float, beta: float) -> None:
    schedule = AdaptiveSchedule(target_kl=0.05, horizon=5)
    assert next_beta(schedule, 0.1, kl) == pytest.approx(beta)


@pytest.mark.parametrize(
    "bad",
    [
        {"beta_min": 0.2, "beta_max": 0.1},
        {"beta_min": -0.1},
        {"beta_max": float("nan")},
        {"explore_frac": 0.0},
        {"explore_frac": 1.0},
        {"betamax": 1.0},
    ],
)
def test_impossible_schedules_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        OthinkSchedule.model_validate(bad)
