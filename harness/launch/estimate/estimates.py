"""What is left of a sweep, in seconds, device hours and GiB, and where each number comes from.

A run's estimate is its start, its remaining steps and its remaining evaluations: from runs of its kind on the same
device, else from a calibration, else from the operations of its model (:mod:`harness.launch.estimate.counted`). A
piece that none of them knows leaves the estimate open: another kind's number never stands in for it.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import UserError
from harness.launch.demands import kind_of
from harness.launch.estimate.counted import START_S, Counted, count, operations_per_s
from harness.launch.estimate.measured import Cost, Measurements, Spread
from harness.launch.estimate.work import Work, remaining, whole
from harness.launch.executors.devices import gpu_name, visible_gpus
from harness.record.folder import RunFolder
from harness.spec import Execution, RunSpec
from harness.spec.executor import ExecutorSettings
from harness.spec.methods import Trained

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

TO_DO = ("pending", "running", "pruned")
"""Statuses of the runs that an invocation would work on."""


class Span(NamedTuple):
    """A number as it would be if every part of it were at its 10 % quantile, median or 90 % quantile."""

    low: float = 0.0
    median: float = 0.0
    high: float = 0.0

    def plus(self, other: Span) -> Span:
        """The sum."""
        return Span(*(one + two for one, two in zip(self, other, strict=True)))

    def times(self, factor: float) -> Span:
        """The multiple."""
        return Span(*(one * factor for one in self))


NOTHING = Span()


@dataclass(frozen=True)
class Place:
    """Where runs would run.

    Attributes:
        device: `cpu`, or the name of the GPU; None where only the cluster knows.
        on_gpu: Whether that is, or is likely to be, a GPU.
        num_threads: CPU threads of a process.
        num_slots: Runs at the same time; None where that cannot be known beforehand.
        why: The reason for that.
    """

    device: str | None
    on_gpu: bool
    num_threads: int
    num_slots: int | None
    why: str = ""


@dataclass(frozen=True)
class Estimate:
    """Of one run.

    Attributes:
        kind: What it shares with other runs; see :func:`harness.launch.demands.kind_of`.
        seconds: Until it is complete; None where a part of it is not known.
        devices: Of the run.
        device_gib: Peak memory on a device; None where not known.
        host_gib: Peak host memory.
        source: Such as ``"measured (n=4)"``, ``"calibrated (n=1)"`` or ``"counted"``; ``"-"`` where not known.
        at_least: Whether memory is a lower bound: weights, gradients and optimiser state alone.
    """

    kind: str
    seconds: Span | None
    devices: int
    device_gib: float | None
    host_gib: float | None
    source: str
    at_least: bool = False

    @property
    def device_hours(self) -> Span | None:
        """Hours times devices."""
        return None if self.seconds is None else self.seconds.times(self.devices / 3600)

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        hours = self.device_hours
        return {
            "kind": self.kind,
            "source": self.source,
            "seconds": None if self.seconds is None else self.seconds._asdict(),
            "device_hours": None if hours is None else hours._asdict(),
            "peak_device_gib": self.device_gib,
            "peak_host_gib": self.host_gib,
            "peak_is_at_least": self.at_least,
        }


@dataclass(frozen=True)
class Total:
    """Of several runs.

    Attributes:
        num_runs: With work left.
        num_unknown: Of these, those without an estimate; they are in no number here.
        device_hours: All together.
        wall_s: Until the last is complete; None where the number of slots is not known.
        device_gib: The highest peak on a device.
        host_gib: The highest peak of host memory of one run.
    """

    num_runs: int = 0
    num_unknown: int = 0
    device_hours: Span = NOTHING
    wall_s: Span | None = None
    device_gib: float | None = None
    host_gib: float | None = None

    def as_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "num_runs": self.num_runs,
            "num_unknown": self.num_unknown,
            "device_hours": self.device_hours._asdict(),
            "wall_s": None if self.wall_s is None else self.wall_s._asdict(),
            "peak_device_gib": self.device_gib,
            "peak_host_gib": self.host_gib,
        }


def place_of(settings: ExecutorSettings, execution: Execution) -> Place:
    """Where an executor would run runs, as far as this machine can tell; starts nothing and asks no cluster."""
    cores = max(1, (settings.cpus or 2 * execution.devices) // execution.devices)
    if settings.type != "local":
        why = "" if settings.slots else "executor.slots is not set, and only the cluster knows how many run at a time"
        on_gpu = execution.device != "cpu"
        return Place(None if on_gpu else "cpu", on_gpu, cores, settings.slots, why)
    from harness.launch.executors.local import (
        LocalExecutor,  # takes its time to import, and who reads the record needs none
    )

    gpus = () if execution.device == "cpu" else visible_gpus(os.environ)
    try:
        executor = LocalExecutor(settings, execution)
    except UserError as error:
        return Place(None, execution.device != "cpu", cores, settings.slots, str(error))
    return Place(gpu_name(gpus) if gpus else "cpu", bool(gpus), executor.num_threads, executor.num_slots)


@dataclass
class Estimator:
    """Makes the estimates of a sweep's runs.

    Args:
        sweep: Whose runs.
        measurements: What is on record.
        place: Where they would run.
    """

    sweep: Sweep
    measurements: Measurements
    place: Place
    _known: dict[tuple[str, Work], Estimate] = field(default_factory=dict)
    _fresh: dict[tuple[Any, ...], tuple[Any, Estimate]] = field(default_factory=dict)
    _costs: dict[str, tuple[Cost | None, Counted | None]] = field(default_factory=dict)

    def kind(self, spec: RunSpec) -> str:
        """The kind of a run of this sweep."""
        return kind_of(spec, self.sweep.execution)

    def left(self, spec: RunSpec, targets: Sequence[str], folder: RunFolder | None, status: str) -> Estimate:
        """What is left of a run.

        Args:
            spec: The run's.
            targets: To be evaluated on.
            folder: The run's; None where it has none yet.
            status: The run's.
        """
        if folder is not None:
            return self.estimate(spec, self.work(spec, targets, folder, status))
        # Thousands of runs differ in their seed alone, and share the very object of their method.
        alike = (id(spec.method), spec.model, spec.source, spec.precision, spec.max_pixels, spec.vision, targets)
        if alike not in self._fresh:
            self._fresh[alike] = spec.method, self.estimate(spec, self.work(spec, targets, None, status))
        return self._fresh[alike][1]

    def work(self, spec: RunSpec, targets: Sequence[str], folder: RunFolder | None, status: str) -> Work:
        """What that is, in steps and examples."""
        evaluation, split_sizes = self.sweep.evaluation, self.measurements.split_sizes
        if folder is None:
            return whole(spec, targets, evaluation, split_sizes)
        return remaining(folder, spec, targets, evaluation, status, split_sizes)

    def estimate(self, spec: RunSpec, work: Work) -> Estimate:
        """What that takes."""
        kind = self.kind(spec)
        if (kind, work) not in self._known:
            self._known[kind, work] = self._made(kind, spec, work)
        return self._known[kind, work]

    def is_measured(self, spec: RunSpec, targets: Sequence[str]) -> bool:
        """Whether runs of this kind were measured where they would run: start, steps and examples of these targets."""
        cost, _ = self._both(self.kind(spec), spec)
        if cost is None or cost.start_s is None or not set(targets) <= cost.example_s.keys():
            return False
        return cost.step_s is not None or not isinstance(spec.method, Trained)

    def tests_s(self, spec: RunSpec, work: Work) -> float | None:
        """Seconds of the evaluations behind the training; None where a part is not known."""
        seconds, _ = _added(self._examples(work.tests, *self._both(self.kind(spec), spec)), None)
        return None if seconds is None else seconds.median

    def _examples(
        self, examples: Iterable[tuple[str, int]], cost: Cost | None, counted: Counted | None
    ) -> list[tuple[float, Spread | None, float | None]]:
        each = counted.per_example / self._speed if counted else None
        return [(num, cost.example_s.get(target) if cost else None, each) for target, num in examples]

    @property
    def _speed(self) -> float:
        return operations_per_s(self.place.on_gpu, self.place.num_threads) * self.sweep.execution.devices

    def _both(self, kind: str, spec: RunSpec) -> tuple[Cost | None, Counted | None]:
        if kind not in self._costs:
            cost = self.measurements.of(kind, self.place.device, None if self.place.on_gpu else self.place.num_threads)
            self._costs[kind] = cost, count(spec, self.sweep.evaluation, self.sweep.execution)
        return self._costs[kind]

    def _made(self, kind: str, spec: RunSpec, work: Work) -> Estimate:
        cost, counted = self._both(kind, spec)
        devices = self.sweep.execution.devices
        pieces: list[tuple[float, Spread | None, float | None]] = [(1, cost.start_s if cost else None, START_S)]
        if work.steps:
            step = counted.per_step / self._speed if counted else None
            pieces.append((work.steps, cost.step_s if cost else None, step))
        pieces += self._examples(work.examples, cost, counted)
        seconds, source = _added(pieces if work else [], cost)
        bound = counted.gib if counted and cost is None else None
        return Estimate(
            kind=kind,
            seconds=seconds,
            devices=devices,
            device_gib=cost.device_gib if cost else bound if self.place.on_gpu else None,
            host_gib=cost.host_gib if cost else None if self.place.on_gpu else bound and bound * devices,
            source=source,
            at_least=bound is not None,
        )


def _added(pieces: Iterable[tuple[float, Spread | None, float | None]], cost: Cost | None) -> tuple[Span | None, str]:
    """The sum of pieces, each so many times what was measured, else what was counted; and where it comes from."""
    total, least, num_counted = Span(), 0, 0
    for factor, measured, counted in pieces:
        if measured is not None:
            total = total.plus(Span(*measured[:3]).times(factor))
            least = measured.n if not least else min(least, measured.n)
        elif counted is not None:
            total = total.plus(Span(counted, counted, counted).times(factor))
            num_counted += 1
        else:
            return None, "-"
    if cost is None or not least:
        return total, "counted" if num_counted else ""
    return total, f"{cost.origin} (n={least})" + (", counted" if num_counted else "")


def add_up(estimates: Sequence[Estimate], num_slots: int | None) -> Total:
    """The sum of estimates, and the time that they take when each free slot takes the next one in order."""
    known = [one for one in estimates if one.seconds is not None]
    hours = Span(*(sum(one.seconds[at] * one.devices for one in known if one.seconds) / 3600 for at in range(3)))
    return Total(
        num_runs=len(estimates),
        num_unknown=len(estimates) - len(known),
        device_hours=hours,
        wall_s=None if num_slots is None else _wall_s([one.seconds or Span() for one in known], num_slots),
        device_gib=max((one.device_gib for one in estimates if one.device_gib is not None), default=None),
        host_gib=max((one.host_gib for one in estimates if one.host_gib is not None), default=None),
    )


def _wall_s(seconds: Sequence[Span], num_slots: int) -> Span:
    ends = []
    for at in range(3):
        slots = [0.0] * min(num_slots, max(len(seconds), 1))
        for one in seconds:
            heapq.heapreplace(slots, slots[0] + one[at])
        ends.append(max(slots))
    return Span(*ends)
