"""Where runs stand, read from the run folders: what `harness status` prints.

A state that says "running" is believed only while somebody holds the run's lease and lives, as far as one look can
tell. Otherwise the run was interrupted and is pending again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from harness.launch.table import counted, print_line, print_table
from harness.record.folder import RunFolder
from harness.record.index import RunIndex, completes
from harness.record.lease import read_owner
from harness.record.state import RunState
from harness.spec.methods import Evaluation

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


@dataclass(frozen=True)
class StatusRow:
    """One run for a table.

    Attributes:
        status: pending, running, completed, failed or pruned.
        step: Steps done of the phase that `state.json` tells of.
        num_steps: Steps of that phase; of the training where no phase has begun.
        error: Why it failed, in one sentence.
        updated: When its state was last written, ISO 8601 in UTC.
        note: What a running run is doing, or why one is pending that had begun: "interrupted", "targets missing".
    """

    run_id: str
    method: str
    source: str | None
    seed: int
    targets: tuple[str, ...]
    status: str
    step: int
    num_steps: int
    error: str | None
    updated: str | None
    note: str | None

    def as_json(self) -> dict[str, Any]:
        """The row as plain JSON values."""
        return asdict(self) | {"targets": list(self.targets)}


def current_status(
    results: str | Path, run_id: str, targets: Sequence[str], evaluation: Evaluation, index: RunIndex
) -> tuple[str, str | None, RunState]:
    """What a run is for somebody who asks for these targets, evaluated like this.

    Args:
        results: The results folder.
        run_id: The run's name.
        targets: What it is to be evaluated on.
        evaluation: How.
        index: Of the results folder.

    Returns:
        The status, a note or None, and the state on record: a run that is complete for less than what is asked is
        "pending" with the note "targets missing"; one whose worker is gone is "pending" with the note "interrupted".
    """
    summary, state = index.status(run_id)
    if completes(summary, targets, evaluation):
        return "completed", None, state
    return *_incomplete(RunFolder(results, run_id), state), state


def _incomplete(folder: RunFolder, state: RunState) -> tuple[str, str | None]:
    owner = read_owner(folder.path)
    if owner is not None and owner.seems_alive:
        is_working = owner.role == "worker" and state.status == "running"
        return "running", _doing(state) if is_working else "starting"
    if state.status == "completed":
        return "pending", "targets missing"
    if state.status == "running":
        return "pending", "interrupted"
    return state.status, "interrupted" if state.status == "pending" and state.step else None


def _doing(state: RunState) -> str | None:
    return f"{state.phase} {state.target}" if state.target else state.phase


def sweep_status(sweep: Sweep, results: str | Path, index: RunIndex | None = None) -> list[StatusRow]:
    """One row per run of a sweep, in its order.

    Args:
        sweep: Whose runs.
        results: The results folder.
        index: Of that folder, where there is one at hand.
    """
    if index is None:
        with RunIndex(results) as index:
            return sweep_status(sweep, results, index)
    rows = []
    for run in sweep.runs.values():
        num_steps = getattr(run.spec.method, "num_steps", 0)
        about = (run.spec.method.type, run.spec.source, run.spec.seed, num_steps)
        rows.append(row_of(results, run.run_id, about, run.targets, sweep.evaluation, index))
    return rows


def all_status(results: str | Path, index: RunIndex | None = None) -> list[StatusRow]:
    """One row per run folder under a results folder, by run id, for the targets its last worker was given.

    Args:
        results: The results folder.
        index: Of that folder, where there is one at hand.
    """
    if index is None:
        with RunIndex(results) as index:
            return all_status(results, index)
    rows = []
    for run_id in index.run_ids():
        try:
            job = index.job(run_id) or {}
            spec, targets = job["spec"], tuple(job["targets"])
            about = (spec["method"]["type"], spec["source"], spec["seed"], spec["method"].get("num_steps", 0))
            evaluation = Evaluation.model_validate(job["evaluation"])
        except (KeyError, TypeError, AttributeError, ValueError):  # no run, or one that nobody can tell anything of
            continue
        rows.append(row_of(results, run_id, about, targets, evaluation, index))
    return rows


def row_of(
    results: str | Path,
    run_id: str,
    about: tuple[str, str | None, int, int],
    targets: tuple[str, ...],
    evaluation: Evaluation,
    index: RunIndex,
) -> StatusRow:
    """The row of one run.

    Args:
        results: The results folder.
        run_id: The run's name.
        about: Its method, source, seed and number of training steps.
        targets: What it is to be evaluated on.
        evaluation: How.
        index: Of the results folder.
    """
    status, note, state = current_status(results, run_id, targets, evaluation, index)
    method, source, seed, num_steps = about
    updated = None
    if state.heartbeat:
        updated = datetime.fromtimestamp(state.heartbeat, UTC).isoformat(timespec="seconds")
    return StatusRow(
        run_id=run_id,
        method=method,
        source=source,
        seed=seed,
        targets=targets,
        status=status,
        step=state.step,
        num_steps=state.num_steps or num_steps,
        error=state.error if status == "failed" else None,
        updated=updated,
        note=note,
    )


def print_status(rows: Sequence[StatusRow], out: IO[str], words: Mapping[str, str] | None = None) -> None:
    """Prints a line per run and how many have each status.

    Args:
        rows: The runs.
        out: Where to.
        words: More to be told of some of them, by run id.
    """
    if not rows:
        print_line(out, "no runs")
        return
    words = words or {}
    cells = [
        (
            row.run_id,
            " ".join(row.targets),
            row.status,
            f"{row.step}/{row.num_steps}" if row.num_steps and row.status != "completed" else "",
            row.updated or "",
            "  ".join(word for word in (row.error or row.note, words.get(row.run_id)) if word),
        )
        for row in rows
    ]
    print_table(out, ("run", "targets", "status", "step", "updated", "note"), cells)
    print_line(out, f"{len(rows)} runs: {counted([row.status for row in rows])}")
