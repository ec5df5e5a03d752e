"""From measured steps to rows, ratios and shares of a limit."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.phases import against_limit
from benchmarks.stopwatch import Stopwatch
from benchmarks.summary import ratios, summarise, table

LIMITS = {"flops_per_s": 100.0, "bytes_per_s": 50.0}


def measurement(scale: float, peak_gib: float) -> dict[str, Any]:
    """A slow warm-up step, then two steps."""

    def step(seconds: float) -> dict[str, float]:
        return {
            "step_s": seconds * scale,
            "collect_s": 0.5 * seconds * scale,
            "sampling_s": 0.25 * seconds * scale,
            "update_s": 0.5 * seconds * scale,
            "num_tokens": 10,
            "prompt_tokens": 30,
            "update_operations": 20,
            "decode_bytes": 5,
        }

    steps = [step(100.0), step(1.0), step(2.0)]
    return {"steps": steps, "peak_gib": peak_gib, "loaded_gib": 0.5, "versions": {"torch": "2"}}


def test_a_side_is_summarised_without_its_warmup() -> None:
    found = summarise([measurement(1.0, 2.0), measurement(3.0, 1.0)], 1, LIMITS)
    # Steps of 1, 2, 3 and 6 seconds.
    assert found["step_s"] == 2.5
    assert found["step_s_rounds"] == [1.5, 4.5]
    assert found["num_steps"] == 4
    assert found["collect_s"] == 1.25
    assert found["sampling_s"] == 0.625
    # 10, 5, 10 / 3 and 10 / 6 tokens a second; twice that in the update, four times in sampling.
    assert found["tokens_per_s"] == pytest.approx((5 + 10 / 3) / 2)
    assert found["update_tokens_per_s"] == pytest.approx(5 + 10 / 3)
    assert found["sampling_tokens_per_s"] == pytest.approx(2 * (5 + 10 / 3))
    # 20 operations in 1 and 1.5 s of update around the median, of 100 a second.
    assert found["update_flops_frac"] == pytest.approx((20 + 20 / 1.5) / 2 / 100)
    assert found["decode_bytes_frac"] == pytest.approx((5 / 0.5 + 5 / 0.75) / 2 / 50)
    assert found["peak_gib"] == 2.0
    assert found["num_tokens"] == 10


def test_a_method_without_sampling_has_no_such_numbers() -> None:
    supervised = measurement(1.0, 1.0)
    for step in supervised["steps"]:
        del step["sampling_s"], step["decode_bytes"]
    found = summarise([supervised], 1, LIMITS)
    assert "sampling_s" not in found
    assert "decode_bytes_frac" not in found
    assert set(ratios(found, found)) == {
        "step_speedup",
        "step_speedup_rounds",
        "update_speedup",
        "update_speedup_rounds",
    }
    assert " - " in table([{"num_prompts": 4, "ours": found}])


def test_ratios_are_of_medians_and_of_rounds() -> None:
    ours = summarise([measurement(1.0, 1.0), measurement(2.0, 1.0)], 1, LIMITS)
    peer = summarise([measurement(4.0, 1.0), measurement(4.0, 1.0)], 1, LIMITS)
    found = ratios(ours, peer)
    assert found["step_speedup_rounds"] == [4.0, 2.0]
    assert found["sampling_speedup"] == peer["sampling_s"] / ours["sampling_s"]
    assert "(rounds 2.00 to 4.00)" in table([{"num_prompts": 4, "ours": ours, "trl": peer, **found}])


def test_the_limit_is_the_longer_of_two_times() -> None:
    found = against_limit(operations=200, num_bytes=50, measured_s=8.0, limits=LIMITS)
    assert (found["limit_s"], found["bound"], found["limit_frac"]) == (2.0, "compute", 0.25)
    assert against_limit(operations=200, num_bytes=200, measured_s=8.0, limits=LIMITS)["bound"] == "memory"


def test_the_stopwatch_adds_up_parts_and_leaves_out_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    stopwatch = Stopwatch("cpu")
    clock = {"now": 0.0}
    monkeypatch.setattr(stopwatch, "now", lambda: clock["now"])

    def wait(seconds: float) -> None:
        clock["now"] += seconds

    def count() -> dict[str, float]:
        wait(100)
        return {"num_tokens": 7}

    collect = stopwatch.timed("collect_s", wait)
    collect(50)
    stopwatch.start()
    for seconds in (1, 2):
        collect(seconds)
        collect(seconds)
        wait(10)
        stopwatch.step_done(count)
    assert stopwatch.steps == [
        {"step_s": 12.0, "update_s": 10.0, "collect_s": 2.0, "num_tokens": 7},
        {"step_s": 14.0, "update_s": 10.0, "collect_s": 4.0, "num_tokens": 7},
    ]
    with pytest.raises(RuntimeError, match="not seen to collect"):
        stopwatch.step_done(count)
