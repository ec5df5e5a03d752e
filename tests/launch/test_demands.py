"""Which runs are of one kind, and what is learnt of a kind."""

from __future__ import annotations

from typing import Any

import pytest

from harness.launch.demands import Demands, kind_of
from harness.launch.executor import Demand
from harness.record.state import RunState
from harness.spec import Execution, RunSpec

CPU = Execution(device="cpu")


def spec(method: str = "grpo", *, settings: dict[str, Any] | None = None, **fields: Any) -> RunSpec:
    return RunSpec(**{"source": "counting", "method": {"type": method, **(settings or {})}, **fields})


def kind(*args: Any, **fields: Any) -> str:
    return kind_of(spec(*args, **fields), CPU)


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 1e-3, "lr_schedule": "cosine", "warmup_frac": 0.5, "max_grad_norm": 2.0},
        {"num_steps": 7},
        {"temperature": 0.5, "clip_epsilon": 0.1, "format_weight": 0.5, "advantage_scale": "none"},
        {"schedule": {"type": "constant", "beta": 0.5}},
    ],
)
def test_what_costs_nothing_does_not_part_runs(settings):
    assert kind(settings=settings) == kind()


def test_neither_seed_nor_amount_of_data_parts_runs():
    assert kind(seed=3, num_train=100) == kind()
    assert kind("grpo_d") == kind()  # the same steps under another schedule


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ({"group_size": 4}, {}),
        ({"max_completion_length": 100}, {}),
        ({"prompts_per_step": 2}, {}),
        ({"updates_per_rollout": 2}, {}),
        ({"schedule": {"type": "constant", "beta": 0.0}}, {}),  # no reference
        ({}, {"model": "Qwen/Qwen2-VL-2B-Instruct"}),
        ({}, {"source": "geometry"}),
        ({}, {"lora_rank": 8}),
        ({}, {"vision": "frozen"}),
        ({}, {"precision": "bf16"}),
        ({}, {"max_pixels": 1000}),
    ],
)
def test_what_costs_memory_or_time_parts_runs(settings, fields):
    assert kind(settings=settings, **fields) != kind()


def test_methods_part_runs():
    assert len({kind(method) for method in ("grpo", "sft")} | {kind_of(RunSpec(method={"type": "base"}), CPU)}) == 3


def test_how_runs_are_executed_parts_them_but_their_limits_do_not():
    one = spec()
    same = Execution(device="cpu", halvings=2, lease_s=5, max_lost=1, max_out_of_memory=0)
    assert kind_of(one, same) == kind_of(one, CPU)
    for other in ({"devices": 2}, {"micro_batch_tokens": 100}, {"gradient_checkpointing": True}, {"device": "cuda"}):
        assert kind_of(one, Execution(**{"device": "cpu", **other})) != kind_of(one, CPU)


def test_a_spec_on_record_is_of_the_kind_that_it_was():
    one = spec("grpo_d", lora_rank=4)
    assert kind_of(one.model_dump(mode="json"), CPU) == kind_of(one, CPU)


def test_the_highest_peak_of_a_kind_is_what_the_next_will_need():
    demands = Demands(Execution(devices=2), {})
    first, other = spec(seed=1), spec(settings={"group_size": 4})
    assert demands.of(first) == Demand(devices=2)
    assert demands.of(first, alone=True) == Demand(devices=2, alone=True)
    demands.learn(first, RunState())  # has not told yet
    assert demands.of(first) == Demand(devices=2)
    for device_gib, host_gib in ((3.0, None), (4.5, 1.0), (2.0, 2.5), (None, None)):
        demands.learn(first, RunState(peak_device_gib=device_gib, peak_host_gib=host_gib))
    assert demands.of(spec(seed=9)) == Demand(devices=2, device_gib=4.5, host_gib=2.5)
    assert demands.of(other) == Demand(devices=2)


def test_peaks_on_record_are_known_from_the_start():
    one = spec()
    demands = Demands(CPU, {kind_of(one, CPU): (None, 1.5)})
    assert demands.of(one) == Demand(host_gib=1.5)
    demands.learn(one, RunState(peak_host_gib=1.0))
    assert demands.of(one) == Demand(host_gib=1.5)
