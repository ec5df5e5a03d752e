"""Where runs stand, read from the run folders: what `harness status` prints.

A state that says "running" is believed only while somebody works on the run: a held lock, a live process on this
machine, or on another machine a heartbeat of the last minute. Otherwise the run was interrupted and is pending again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness.launch.lock import is_locked
from harness.launch.table import counted, print_line, print_table
from harness.record.atomic import read_json
from harness.record.folder import RunFolder, run_folders
from harness.record.state import RunState, is_alive, is_complete, read_state
from harness.spec.methods import Evaluation

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

HEARTBEAT_TIMEOUT_S = 60.0
"""A worker on another machine that has been silent for longer counts as dead."""


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


def current_status(folder: RunFolder, targets: Sequence[str], evaluation: Evaluation) -> tuple[str, str | None]:
    """What a run is for somebody who asks for these targets, evaluated like this.

    Returns:
        The status and a note, or None: a run that is complete for less than what is asked is "pending" with the note
        "targets missing"; one whose worker is gone is "pending" with the note "interrupted".
    """
    if not folder.path.is_dir():
        return "pending", None
    if is_complete(folder, targets, evaluation):
        return "completed", None
    state = read_state(folder)
    if is_locked(folder.path):
        return "running", _doing(state) if state.status == "running" else "starting"
    if state.status == "completed":
        return "pending", "targets missing"
    if state.status == "running":
        return ("running", _doing(state)) if has_worker(state) else ("pending", "interrupted")
    return state.status, "interrupted" if state.status == "pending" and state.step else None


def _doing(state: RunState) -> str | None:
    return f"{state.phase} {state.target}" if state.target else state.phase


def has_worker(state: RunState) -> bool:
    """Whether the process that wrote a state still lives, as far as can be told from here."""
    alive = is_alive(state)
    if alive is None:
        return time.time() - (state.heartbeat or 0.0) < HEARTBEAT_TIMEOUT_S
    return alive and state.pid is not None and not _is_zombie_or_younger(state.pid, state.heartbeat or 0.0)


def _is_zombie_or_younger(pid: int, heartbeat: float) -> bool:
    """Whether a process has ended, or began after a heartbeat so that its number is another's now; by Linux's /proc."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return False
    began = time.time() - uptime + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return fields[0] in "ZX" or began > heartbeat + 5.0


def sweep_status(sweep: Sweep, results: str | Path) -> list[StatusRow]:
    """One row per run of a sweep, in its order."""
    rows = []
    for run in sweep.runs.values():
        folder = RunFolder(results, run.run_id)
        spec = run.spec.model_dump(mode="json")
        rows.append(_row(folder, spec, run.targets, sweep.evaluation))
    return rows


def all_status(results: str | Path) -> list[StatusRow]:
    """One row per run folder under a results folder, by run id, for the targets its last worker was given."""
    rows = []
    for folder in run_folders(results):
        if folder.job_json.is_file():
            job = read_json(folder.job_json)
        elif folder.run_json.is_file():  # a worker that was started by hand, with its job elsewhere
            record = read_json(folder.run_json)
            job = {**record["job"], "spec": record["spec"]}
        else:
            continue
        rows.append(_row(folder, job["spec"], tuple(job["targets"]), Evaluation.model_validate(job["evaluation"])))
    return rows


def _row(folder: RunFolder, spec: Mapping[str, Any], targets: tuple[str, ...], evaluation: Evaluation) -> StatusRow:
    status, note = current_status(folder, targets, evaluation)
    state = read_state(folder)
    updated = None
    if state.heartbeat:
        updated = datetime.fromtimestamp(state.heartbeat, UTC).isoformat(timespec="seconds")
    return StatusRow(
        run_id=folder.path.name,
        method=spec["method"]["type"],
        source=spec["source"],
        seed=spec["seed"],
        targets=targets,
        status=status,
        step=state.step,
        num_steps=state.num_steps or spec["method"].get("num_steps", 0),
        error=state.error if status == "failed" else None,
        updated=updated,
        note=note,
    )


def print_status(rows: Sequence[StatusRow], console: Console) -> None:
    """Prints a line per run and how many have each status."""
    if not rows:
        print_line(console, "no runs")
        return
    cells = [
        (
            row.run_id,
            " ".join(row.targets),
            row.status,
            f"{row.step}/{row.num_steps}" if row.num_steps and row.status != "completed" else "",
            row.updated or "",
            row.error or row.note or "",
        )
        for row in rows
    ]
    print_table(console, ("run", "targets", "status", "step", "updated", "note"), cells)
    print_line(console, f"{len(rows)} runs: {counted([row.status for row in rows])}")
