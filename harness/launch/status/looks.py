"""A look around: where every run stands, what the live ones are at, and what was expected of those that are over."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.errors import DataError
from harness.launch.estimate.foreseen import Beside, Foreseen, actual_s, beside, print_beside, read_foreseen
from harness.launch.status.status import StatusRow, all_status, print_status, row_of, sweep_status
from harness.launch.status.tail import tail_rows
from harness.launch.words import duration
from harness.record.folder import RunFolder
from harness.record.index import RunIndex
from harness.record.launches import read_launches
from harness.record.state import read_state
from harness.record.sweep_record import read_sweep_record
from harness.spec import RunSpec
from harness.spec.methods import Evaluation

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


LAST_STEPS = 10
"""Whose times make the speed."""

_RUN_ID = re.compile(r"(?P<method>[a-z_]+?)(?:-(?P<source>.+)-s(?P<seed>\d+))?-[0-9a-f]{10}-v\d+")


@dataclass(frozen=True)
class Detail:
    """What a run is at; None where it does not tell.

    Attributes:
        reward: Mean of the last step's completions, and likewise the others.
        step_s: Seconds per step, the median of the last ones, evaluations left out.
        left_s: Until it is complete, by its own speed and the estimate of its evaluations.
        place: Where it runs, or ran last.
        last_error: Of a worker that ended before its time, of this or an earlier launch.
        failure: The class of that.
        log: The run's log, where something went wrong.
    """

    reward: float | None = None
    beta: float | None = None
    kl: float | None = None
    loss: float | None = None
    step_s: float | None = None
    left_s: float | None = None
    place: str | None = None
    last_error: str | None = None
    failure: str | None = None
    log: str | None = None


@dataclass(frozen=True)
class Look:
    """Everything that one look found.

    Attributes:
        name: The sweep's; None for every run.
        rows: One per run.
        details: Of those that run, failed or were interrupted, by run id.
        foreseen: What was expected of the sweep's runs, by run id.
        took: Seconds that runs took since then, by run id.
        kinds: Completed runs beside their estimates, by kind.
    """

    name: str | None
    rows: Sequence[StatusRow]
    details: Mapping[str, Detail]
    foreseen: Mapping[str, Foreseen]
    took: Mapping[str, float]
    kinds: Mapping[str, Beside]

    def as_json(self) -> list[dict[str, Any]]:
        """A mapping per run: the row, its details, the seconds that were estimated and those that it took."""
        found = []
        for row in self.rows:
            expected = self.foreseen.get(row.run_id)
            seconds = expected.seconds if expected else None
            found.append(
                row.as_json()
                | asdict(self.details.get(row.run_id, Detail()))
                | {"estimated_s": seconds[1] if seconds else None, "actual_s": self.took.get(row.run_id)}
            )
        return found


def look_around(results: Path, asked: Sweep | str | None, index: RunIndex | None = None) -> Look:
    """Looks once.

    Args:
        results: The results folder.
        asked: A sweep, or the name of one on record; None for every run.
        index: Of that folder, where there is one at hand.

    Raises:
        UserError: No sweep of that name is on record.
    """
    if index is None:
        with RunIndex(results) as index:
            return look_around(results, asked, index)
    if asked is None:
        name, rows = None, all_status(results, index)
    elif isinstance(asked, str):
        name, rows = asked, recorded_status(results, asked, index)
    else:
        name, rows = asked.name, sweep_status(asked, results, index)
    foreseen = read_foreseen(results, name) if name else {}
    details = {
        row.run_id: detail_of(row, RunFolder(results, row.run_id), foreseen.get(row.run_id))
        for row in rows
        if row.status in ("running", "failed") or row.note == "interrupted"
    }
    completed = [row.run_id for row in rows if row.status == "completed" and row.run_id in foreseen]
    records = {run_id: index.measured(run_id) for run_id in completed}
    took = {run_id: actual_s(record, foreseen[run_id].at) for run_id, record in records.items()}
    known = {run_id: seconds for run_id, seconds in took.items() if seconds is not None}
    specs = {run_id: spec for run_id in known if (spec := _spec(records[run_id])) is not None}
    return Look(name, rows, details, foreseen, known, beside(foreseen, known, specs))


def recorded_status(results: Path, name: str, index: RunIndex) -> list[StatusRow]:
    """One row per run of a sweep on record, in its order.

    Raises:
        UserError: No sweep of that name is on record, or its record is damaged.
    """
    record = read_sweep_record(results, name)
    try:
        evaluation = Evaluation.model_validate(record["evaluation"])
        targets: dict[str, dict[str, None]] = {}
        for cell in record["cells"]:
            targets.setdefault(cell["run_id"], {}).update(dict.fromkeys(cell["targets"]))
    except (KeyError, TypeError, AttributeError, ValidationError):
        raise DataError(f"the record of sweep '{name}' in {results} is damaged: name the sweep file instead") from None
    rows = []
    for run_id, wanted in targets.items():
        named = _RUN_ID.fullmatch(run_id)
        if named is not None:
            about = (named["method"], named["source"], int(named["seed"] or 0), 0)
            rows.append(row_of(results, run_id, about, tuple(wanted), evaluation, index))
    return rows


def detail_of(row: StatusRow, folder: RunFolder, expected: Foreseen | None) -> Detail:
    """What a run is at, from the last rows of its metrics, its launches and its state."""
    rows = last_rows(folder.metrics)
    last = rows[-1] if rows else {}
    step_s = statistics.median(times) if (times := [t for one in rows[-LAST_STEPS:] if (t := _step_s(one))]) else None
    launches = read_launches(folder)
    lost = next((one for one in reversed(launches) if one.error), None)
    state = read_state(folder)
    is_wrong = row.status == "failed" or lost is not None
    place = launches[-1].place if launches else None
    return Detail(
        reward=_number(last.get("rollout/reward")),
        beta=_number(last.get("train/beta")),
        kl=_number(last.get("train/kl")),
        loss=_number(last.get("train/loss")),
        step_s=step_s,
        left_s=_left_s(row, step_s, expected),
        place=place if isinstance(place, str) and place else None,
        last_error=row.error or (str(lost.error) if lost else None),
        failure=state.failure if row.status == "failed" else lost.failure if lost else None,
        log=str(folder.log) if is_wrong else None,
    )


def _left_s(row: StatusRow, step_s: float | None, expected: Foreseen | None) -> float | None:
    if row.status != "running" or row.note != "train" or step_s is None:
        return None
    evaluate_s = expected.evaluate_s if expected and expected.evaluate_s else 0.0
    return (row.num_steps - row.step) * step_s + evaluate_s


def last_rows(path: Path) -> list[dict[str, Any]]:
    """The last whole training rows of a `metrics.jsonl`, oldest first; none where it is missing or damaged."""
    return [row for row in tail_rows(path) if "train/loss" in row]


def _step_s(row: Mapping[str, Any]) -> float:
    times = [_number(value) for key, value in row.items() if key.startswith("time/") and key.endswith("_s")]
    return sum(value for value in times if value is not None)


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _spec(record: Mapping[str, Any] | None) -> RunSpec | None:
    try:
        return RunSpec.model_validate((record or {})["spec"])
    except (KeyError, ValidationError):
        return None


def detail_words(detail: Detail) -> str:
    """What a live run is at, in a line, such as ``"reward 1.25  beta 0.04  kl 0.002  0.25 s/step  12 s left"``."""
    named = [("reward", detail.reward), ("beta", detail.beta), ("kl", detail.kl)]
    named += [("loss", detail.loss)] if detail.reward is None else []
    words = [f"{name} {value:.3g}" for name, value in named if value is not None]
    words += [f"{detail.step_s:.3g} s/step"] if detail.step_s is not None else []
    words += [f"{duration(detail.left_s)} left"] if detail.left_s is not None else []
    words += [detail.place] if detail.place else []
    words += [f"last error: {detail.last_error}"] if detail.last_error else []
    return "  ".join(words)


def print_look(look: Look, out: IO[str]) -> None:
    """Prints a line per run, how many have each status, and estimates beside what runs took."""
    words = {
        row.run_id: detail_words(look.details[row.run_id])
        for row in look.rows
        if row.run_id in look.details and row.status != "failed"
    }
    print_status(look.rows, out, words)
    print_beside(out, look.kinds)
