"""What was expected of a sweep's runs when they were launched, beside what they took.

`<results>/estimates/<sweep>.json` has for each run the estimate of what was left when a driver first had it to do, so
that a later, better informed one never replaces it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.errors import UserError
from harness.launch.estimate.estimates import Estimator, place_of
from harness.launch.estimate.measured import read_measurements
from harness.launch.estimate.work import Work
from harness.launch.table import print_line, print_table
from harness.launch.words import duration, hours, labels
from harness.record.atomic import read_json_or, write_json
from harness.record.folder import RunFolder
from harness.record.index import RunIndex
from harness.record.state import read_state
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep, SweepRun


@dataclass(frozen=True)
class Foreseen:
    """What was expected of one run.

    Attributes:
        at: When, in Unix seconds.
        kind: See :func:`harness.launch.demands.kind_of`.
        seconds: Low, median, high; None where nothing was known.
        evaluate_s: Of these, those of the evaluations behind the training.
        devices: Of the run.
        source: Where it came from.
    """

    at: float
    kind: str
    seconds: Sequence[float] | None
    evaluate_s: float | None
    devices: int
    source: str


def estimates_path(results: Path, name: str) -> Path:
    """Where a sweep's estimates are kept."""
    return results / "estimates" / f"{name}.json"


def record_estimates(results: Path, sweep: Sweep, runs: Iterable[SweepRun]) -> None:
    """Writes down what is expected of runs that are about to be started, where nothing was expected of them before.

    It is only ever shown, so a disk that takes no file is passed over.
    """
    path = estimates_path(results, sweep.name)
    known = _entries(path)
    new = [run for run in runs if run.run_id not in known]
    if not new:
        return
    with contextlib.suppress(OSError, UserError), RunIndex(results) as index:
        place = place_of(sweep.executor, sweep.execution)
        estimator = Estimator(sweep, read_measurements(results, index), place)
        there, now = set(index.run_ids()), time.time()
        found = {}
        for run in new:
            folder = RunFolder(results, run.run_id) if run.run_id in there else None
            work = estimator.work(
                run.spec, run.targets, folder, "pending" if folder is None else read_state(folder).status
            )
            found[run.run_id] = asdict(_foreseen(estimator, run.spec, work, now))
        write_json(path, {"sweep": sweep.name, "runs": known | found})


def _foreseen(estimator: Estimator, spec: RunSpec, work: Work, now: float) -> Foreseen:
    estimate = estimator.estimate(spec, work)
    return Foreseen(
        at=now,
        kind=estimate.kind,
        seconds=None if estimate.seconds is None else tuple(estimate.seconds),
        evaluate_s=estimator.tests_s(spec, work),
        devices=estimate.devices,
        source=estimate.source,
    )


def read_foreseen(results: Path, name: str) -> dict[str, Foreseen]:
    """What was expected of a sweep's runs, by run id; what is damaged is passed over."""
    found = {}
    for run_id, entry in _entries(estimates_path(results, name)).items():
        with contextlib.suppress(TypeError, ValueError):
            one = Foreseen(**entry)
            if one.seconds is not None and not (len(one.seconds) == 3 and all(map(math.isfinite, one.seconds))):
                continue
            found[run_id] = one
    return found


def _entries(path: Path) -> dict[str, Any]:
    try:
        runs = read_json_or(path, {}).get("runs")
    except OSError:
        return {}
    return runs if isinstance(runs, dict) else {}


def actual_s(record: Mapping[str, Any] | None, since: float) -> float | None:
    """Seconds that a run's attempts took which began after a moment; None where none of them tells.

    Args:
        record: Of :meth:`harness.record.index.RunIndex.measured`.
        since: Unix seconds.
    """
    found = [_attempt_s(attempt) for attempt in (record or {}).get("attempts", ()) if _started(attempt) >= since - 1.0]
    told = [seconds for seconds in found if seconds is not None]
    return sum(told) if told else None


def _attempt_s(attempt: Mapping[str, Any]) -> float | None:
    measured = attempt.get("measured")
    if not isinstance(measured, dict):
        return None
    try:
        if measured.get("start_s") is None:  # nothing was trained, and the start is not told
            ended = datetime.fromisoformat(attempt["ended"])
            return (ended - datetime.fromisoformat(attempt["started"])).total_seconds()
        evaluated = sum((measured.get("evaluate_s") or {}).values())
        return float(measured["start_s"] + (measured.get("train_s") or 0.0) + evaluated)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _started(attempt: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(attempt["started"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return -math.inf


@dataclass(frozen=True)
class Beside:
    """Completed runs of one kind: what was expected of them and what they took.

    Attributes:
        estimated_s: All together.
        actual_s: All together.
        device_hours: What they took, times devices.
    """

    specs: Sequence[RunSpec]
    estimated_s: float
    actual_s: float
    device_hours: float
    source: str


def beside(
    foreseen: Mapping[str, Foreseen], took: Mapping[str, float], specs: Mapping[str, RunSpec]
) -> dict[str, Beside]:
    """Estimates beside what completed runs took, by kind.

    Args:
        foreseen: What was expected, by run id.
        took: Seconds, by run id.
        specs: Of the same runs.
    """
    kinds: dict[str, list[tuple[RunSpec, Foreseen, float]]] = {}
    for run_id, spec in specs.items():
        one = foreseen[run_id]
        if one.seconds is not None:
            kinds.setdefault(one.kind, []).append((spec, one, took[run_id]))
    return {
        kind: Beside(
            specs=[spec for spec, _, _ in runs],
            estimated_s=sum(one.seconds[1] for _, one, _ in runs if one.seconds),
            actual_s=sum(taken for _, _, taken in runs),
            device_hours=sum(taken * one.devices for _, one, taken in runs) / 3600,
            source=", ".join(dict.fromkeys(one.source for _, one, _ in runs)),
        )
        for kind, runs in kinds.items()
    }


def print_beside(out: IO[str], kinds: Mapping[str, Beside]) -> None:
    """Prints a line per kind and the sum; nothing where no completed run had an estimate."""
    if not kinds:
        return
    names = labels({kind: one.specs for kind, one in kinds.items()})
    rows = [
        (
            names[kind],
            str(len(one.specs)),
            duration(one.estimated_s / len(one.specs)),
            duration(one.actual_s / len(one.specs)),
            f"{one.actual_s / one.estimated_s:.2f}" if one.estimated_s else "-",
            one.source,
        )
        for kind, one in kinds.items()
    ]
    print_line(out, "")
    print_table(out, ("kind, completed", "runs", "estimated", "actual", "ratio", "estimate was"), rows)
    estimated, actual = (sum(getattr(one, name) for one in kinds.values()) for name in ("estimated_s", "actual_s"))
    taken = sum(one.device_hours for one in kinds.values())
    ratio = f"{actual / estimated:.2f} of the {duration(estimated)} estimated; " if estimated else ""
    print_line(out, f"completed runs took {duration(actual)}, {ratio}{hours(taken)} device hours")
