"""What runs of each kind took: from the attempts on record, and from calibrations where a kind has none.

Each attempt tells the seconds until its training began, of its steps, and of each target's evaluation
(`attempts[i]["measured"]` of `run.json`). Evaluations during training are in its training time; they are taken out by
what an example of their targets took. The first step, which warms up, counts as part of the start.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.launch.demands import Peaks, kind_of, larger
from harness.record.atomic import read_json_or
from harness.record.index import RunIndex
from harness.record.state import SUMMARY_KEYS
from harness.spec import Execution

Origin = Literal["measured", "calibrated"]
CALIBRATIONS = "calibrations"
"""The folder of calibrations, in the results folder: a file per kind."""


class Spread(NamedTuple):
    """A quantity that was measured `n` times: its 10 % quantile, median and 90 % quantile."""

    low: float
    median: float
    high: float
    n: int


@dataclass(frozen=True)
class Cost:
    """What runs of one kind took on one device.

    Attributes:
        kind: See :func:`harness.launch.demands.kind_of`.
        device: Such as `cpu` or `NVIDIA H200`.
        num_threads: CPU threads; None on an accelerator, where they hardly matter.
        origin: Where the numbers come from.
        start_s: Seconds of a worker before its first step, and what that takes longer than the others.
        step_s: Seconds per training step, without evaluations; None where no step was measured.
        example_s: By target, seconds per evaluated example.
        device_gib: The highest peak on a device; None without one.
        host_gib: The highest peak of host memory, of all processes of a run.
    """

    kind: str
    device: str
    num_threads: int | None
    origin: Origin
    start_s: Spread | None
    step_s: Spread | None
    example_s: Mapping[str, Spread]
    device_gib: float | None
    host_gib: float | None

    @property
    def n(self) -> int:
        """How many measurements the least known of the numbers rests on."""
        known = [one.n for one in (self.start_s, self.step_s, *self.example_s.values()) if one is not None]
        return min(known, default=0)


@dataclass
class _Attempt:
    """An attempt on record, before its steps are told from the evaluations among them."""

    measured: Mapping[str, Any]
    job: Mapping[str, Any]
    start_step: int
    num_steps: int
    wall_s: float | None
    example_s: dict[str, float] = field(default_factory=dict)


class Measurements:
    """What is on record of all kinds.

    Attributes:
        costs: By kind, the costs on each device; measured ones before calibrated ones, the best known first.
        split_sizes: By (split, target), how many examples there are, where that is known.
    """

    def __init__(self, costs: Mapping[str, Sequence[Cost]], split_sizes: Mapping[tuple[str, str], int]) -> None:
        self.costs = costs
        self.split_sizes = split_sizes

    def of(self, kind: str, device: str | None, num_threads: int | None) -> Cost | None:
        """What a kind took on a device; None where it was not measured there.

        Args:
            kind: Of the runs.
            device: None where only the cluster knows: the device that is known best.
            num_threads: On a CPU; None where not known.
        """
        for cost in self.costs.get(kind, ()):
            threads_fit = None in (num_threads, cost.num_threads) or cost.num_threads == num_threads
            if device is None or (cost.device == device and threads_fit):
                return cost
        return None

    @property
    def peaks(self) -> Peaks:
        """The highest memory of each kind on any device."""
        found: dict[str, tuple[float | None, float | None]] = {}
        for kind, costs in self.costs.items():
            for cost in costs:
                before = found.get(kind, (None, None))
                found[kind] = larger(before[0], cost.device_gib), larger(before[1], cost.host_gib)
        return found


def read_measurements(results: Path, index: RunIndex) -> Measurements:
    """Everything that was measured under a results folder."""
    attempts: dict[tuple[str, str, int | None, Origin], list[_Attempt]] = defaultdict(list)
    split_sizes: dict[tuple[str, str], int] = {}
    for run_id in index.run_ids():
        record = index.measured(run_id)
        if record is not None:
            summary, _ = index.status(run_id)
            _take(record, summary or {}, "measured", attempts, split_sizes)
    for path in sorted((results / CALIBRATIONS).glob("[!.]*.json")):
        record = read_json_or(path, {})
        if {"spec", "job", "attempts"} <= record.keys():
            _take(record, record.get("summary") or {}, "calibrated", attempts, split_sizes)
    costs: dict[str, list[Cost]] = defaultdict(list)
    for (kind, device, num_threads, origin), found in attempts.items():
        costs[kind].append(_cost(kind, device, num_threads, origin, found))
    for ranked in costs.values():
        ranked.sort(key=lambda cost: (cost.origin != "measured", -cost.n))
    return Measurements(costs, split_sizes)


def measured_peaks(results: Path) -> Peaks:
    """The highest memory of each kind on record, for :class:`harness.launch.demands.Demands`."""
    with RunIndex(results) as index:
        return read_measurements(results, index).peaks


def _take(
    record: Mapping[str, Any],
    summary: Mapping[str, Any],
    origin: Origin,
    into: dict[tuple[str, str, int | None, Origin], list[_Attempt]],
    split_sizes: dict[tuple[str, str], int],
) -> None:
    """Takes in the attempts of a run; a record that another version or a fault has made otherwise is passed over."""
    try:
        attempts = _attempts(record, summary)
        kind = kind_of(record["spec"], Execution.model_validate(record["job"]["execution"])) if attempts else ""
        for split, key in SUMMARY_KEYS.items():
            for target, made in (summary.get(key) or {}).items():
                if isinstance(made.get("split_size"), int):
                    split_sizes[split, target] = made["split_size"]
    except (KeyError, TypeError, ValueError, AttributeError):
        return
    for attempt in attempts:
        device, num_threads = attempt.measured["device"], attempt.measured.get("num_threads")
        into[kind, device, num_threads if device == "cpu" else None, origin].append(attempt)


def _attempts(record: Mapping[str, Any], summary: Mapping[str, Any]) -> list[_Attempt]:
    found, job = [], record["job"]
    num_steps = int(record["spec"]["method"].get("num_steps") or 0)
    for attempt in record["attempts"]:
        measured = attempt.get("measured")
        if isinstance(measured, dict) and isinstance(measured.get("device"), str):
            start = int(attempt.get("start_step") or 0)
            found.append(_Attempt(measured, job, start, num_steps, _wall_s(attempt)))
    made, asked = summary.get("evaluations") or {}, (job.get("evaluation") or {}).get("num_examples")
    seen: set[str] = set()
    for one in reversed(found):  # of a target that was evaluated again, the summary tells of the last time
        for target, seconds in (one.measured.get("evaluate_s") or {}).items():
            num = (made.get(target) or {}).get("num_examples") or asked
            if target not in seen and num and _number(seconds):
                one.example_s[target] = seconds / num
            seen.add(target)
    return found


def _cost(kind: str, device: str, num_threads: int | None, origin: Origin, attempts: Sequence[_Attempt]) -> Cost:
    examples: dict[str, list[float]] = defaultdict(list)
    for attempt in attempts:
        for target, seconds in attempt.example_s.items():
            examples[target].append(seconds)
    typical = {target: statistics.median(values) for target, values in examples.items()}
    times = [_start_and_step(attempt, typical) for attempt in attempts]
    return Cost(
        kind=kind,
        device=device,
        num_threads=num_threads,
        origin=origin,
        start_s=spread(start for start, _ in times if start is not None),
        step_s=spread(step for _, step in times if step is not None),
        example_s={target: found for target, values in examples.items() if (found := spread(values))},
        device_gib=_highest(attempts, "peak_device_gib"),
        host_gib=_highest(attempts, "peak_host_gib"),
    )


def _start_and_step(attempt: _Attempt, typical: Mapping[str, float]) -> tuple[float | None, float | None]:
    """Seconds of an attempt's start and of one of its later steps, as far as it tells them."""
    measured = attempt.measured
    start, first = _number(measured.get("start_s")), _number(measured.get("first_step_s"))
    train, num_steps = _number(measured.get("train_s")), _number(measured.get("num_steps"))
    if not start:
        if attempt.wall_s is None or not measured.get("evaluate_s"):
            return None, None
        # Nothing was trained: what is not evaluation is the start, to a second.
        evaluated = sum(_number(seconds) or 0.0 for seconds in measured["evaluate_s"].values())
        return max(attempt.wall_s - evaluated, 0.0), None
    evaluations = _evaluations_s(attempt, int(num_steps or 0), typical)
    if not train or not num_steps or evaluations is None:
        return None, None
    if first is None or num_steps < 2:
        step = (train - evaluations) / num_steps
        return start, step if step > 0 else None
    step = (train - (first - start) - evaluations) / (num_steps - 1)
    return (max(first - step, start), step) if step > 0 else (first, None)


def _evaluations_s(attempt: _Attempt, num_steps: int, typical: Mapping[str, float]) -> float | None:
    """Seconds of the evaluations among an attempt's steps; None where an example's are not known."""
    evaluation, targets = attempt.job.get("evaluation") or {}, attempt.job.get("targets") or ()
    every, num = evaluation.get("every") or 0, evaluation.get("num_validation") or 0
    times = num_evaluations(every, attempt.start_step, attempt.start_step + num_steps, attempt.num_steps)
    rates = [attempt.example_s.get(target, typical.get(target)) for target in targets]
    if not times:
        return 0.0
    return None if None in rates else times * num * sum(rate for rate in rates if rate is not None)


def num_evaluations(every: int, start: int, end: int, num_steps: int) -> int:
    """Evaluations during training behind steps `start` + 1 to `end` of `num_steps`: every so often, and at the end."""
    if not every or end <= start:
        return 0
    return end // every - start // every + int(end == num_steps and end % every != 0)


def spread(values: Iterable[float]) -> Spread | None:
    """The spread of some values, with quantiles that are interpolated linearly; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    low, median, high = (_quantile(ordered, share) for share in (0.1, 0.5, 0.9))
    return Spread(low, median, high, len(ordered))


def _quantile(ordered: Sequence[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def _highest(attempts: Iterable[_Attempt], key: str) -> float | None:
    peak: float | None = None
    for attempt in attempts:
        peak = larger(peak, _number(attempt.measured.get(key)))
    return peak


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and math.isfinite(value) and value >= 0
    return float(value) if is_number else None


def _wall_s(attempt: Mapping[str, Any]) -> float | None:
    try:
        return (datetime.fromisoformat(attempt["ended"]) - datetime.fromisoformat(attempt["started"])).total_seconds()
    except (KeyError, TypeError, ValueError):
        return None
