"""From measured steps to a row of results, and from rows to a table. No torch: plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

Measurement = Mapping[str, Any]
"""What `one_side.py` prints."""

PARTS = ("step", "sampling", "update")
"""What a ratio is given of; a step also rewards, and runs the reference."""


def kept(measurement: Measurement, warmup: int) -> list[Mapping[str, float]]:
    """A measurement's steps behind its warm-up."""
    steps: list[Mapping[str, float]] = measurement["steps"][warmup:]
    return steps


def summarise(measurements: Sequence[Measurement], warmup: int, limits: Mapping[str, Any]) -> dict[str, Any]:
    """One side over the steps of all rounds.

    Args:
        measurements: One per round.
        warmup: Steps of each that do not count.
        limits: The machine's flops_per_s and bytes_per_s.

    Returns:
        `<part>_s`, medians in seconds, and `<part>_s_rounds`, each round's median, for the parts that there are;
        collect_s. tokens_per_s, sampling_tokens_per_s, update_tokens_per_s: completion tokens over the part's time,
        medians. update_flops_frac: the update's operations over what the machine could have done in its time.
        decode_bytes_frac: bytes that decoding must move over what it could have moved in the time of sampling, which
        holds the prefill too. num_tokens, prompt_tokens: means of a step. peak_gib and loaded_gib: the highest of any
        round.
    """
    steps = [step for measurement in measurements for step in kept(measurement, warmup)]

    def rate(count: str, part: str) -> float:
        return median(step[count] / step[part] for step in steps)

    summary: dict[str, Any] = {"num_steps": len(steps), "collect_s": median(step["collect_s"] for step in steps)}
    for part in PARTS:
        if f"{part}_s" in steps[0]:
            summary[f"{part}_s"] = median(step[f"{part}_s"] for step in steps)
            rounds = [kept(measurement, warmup) for measurement in measurements]
            summary[f"{part}_s_rounds"] = [median(step[f"{part}_s"] for step in round_) for round_ in rounds]
            summary["tokens_per_s" if part == "step" else f"{part}_tokens_per_s"] = rate("num_tokens", f"{part}_s")
    summary["update_flops_frac"] = rate("update_operations", "update_s") / limits["flops_per_s"]
    if "decode_bytes" in steps[0]:
        summary["decode_bytes_frac"] = rate("decode_bytes", "sampling_s") / limits["bytes_per_s"]
    for count in ("num_tokens", "prompt_tokens"):
        summary[count] = sum(step[count] for step in steps) / len(steps)
    for memory in ("peak_gib", "loaded_gib"):
        summary[memory] = max(measurement[memory] for measurement in measurements)
    return {**summary, "versions": measurements[0]["versions"]}


def ratios(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    """How many times faster ours is: `<part>_speedup`, of the medians, and `<part>_speedup_rounds`, of each round's."""
    found: dict[str, Any] = {}
    for part in PARTS:
        if f"{part}_s" in ours and f"{part}_s" in peer:
            found[f"{part}_speedup"] = peer[f"{part}_s"] / ours[f"{part}_s"]
            pairs = zip(peer[f"{part}_s_rounds"], ours[f"{part}_s_rounds"], strict=True)
            found[f"{part}_speedup_rounds"] = [theirs / own for theirs, own in pairs]
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line per row and side, then a line per ratio."""
    columns = (
        "step s",
        "sampl. s",
        "update s",
        "tok/s",
        "sampl. tok/s",
        "update tok/s",
        "FLOP/s %",
        "bytes/s %",
        "GiB",
    )
    lines = [f"{'prompts':>7}  {'side':<5}" + "".join(f"{column:>13}" for column in columns)]
    for row in rows:
        for side in (key for key in ("ours", "trl") if key in row):
            values = row[side]
            fields = (
                _number(values.get("step_s"), 3),
                _number(values.get("sampling_s"), 3),
                _number(values.get("update_s"), 3),
                _number(values.get("tokens_per_s"), 0),
                _number(values.get("sampling_tokens_per_s"), 0),
                _number(values.get("update_tokens_per_s"), 0),
                _number(values.get("update_flops_frac"), 1, 100),
                _number(values.get("decode_bytes_frac"), 1, 100),
                _number(values.get("peak_gib"), 2),
            )
            lines.append(f"{row['num_prompts']:>7}  {side:<5}" + "".join(f"{field:>13}" for field in fields))
        for part in PARTS:
            if f"{part}_speedup" in row:
                rounds = row[f"{part}_speedup_rounds"]
                ratio, low, high = row[f"{part}_speedup"], min(rounds), max(rounds)
                lines.append(f"{'':>7}  {part}: {ratio:.2f} times as fast (rounds {low:.2f} to {high:.2f})")
    return "\n".join(lines)


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    """A number, or a dash for what there is none of."""
    return "-" if value is None else f"{value * factor:.{digits}f}"
