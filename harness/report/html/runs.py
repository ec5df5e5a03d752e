"""Every run of a sweep as a report shows it: settings, how far it is, where it comes from, what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.state import read_state, read_summary
from harness.report.collect import AskedCell, leaves
from harness.report.figures.data import SweepData, shown, shown_settings


@dataclass(frozen=True)
class RunCard:
    """One run.

    Attributes:
        run_id: The run.
        label: Its method, with the settings that the sweep names.
        method: The method's type.
        source: The task trained on; None for `base`.
        seed: None for `base`.
        status: As in its `state.json`; `not started` without one.
        error: Why it failed.
        accuracies: By target, in [0, 1]; None where missing.
        worker_s: Seconds over all attempts that ended; None without one.
        settings: Its whole spec, leaf by leaf.
        provenance: Commit, versions, device and attempts, in words.
    """

    run_id: str
    label: str
    method: str
    source: str | None
    seed: int | None
    status: str
    error: str | None
    accuracies: Mapping[str, float | None]
    worker_s: float | None
    settings: Mapping[str, str]
    provenance: Mapping[str, str]


def read_run_cards(results: str | Path, data: SweepData) -> list[RunCard]:
    """The runs of a sweep, in its order; those that were never started too."""
    cells = {cell.run_id: cell for cell in reversed(data.asked.cells)}
    return [_card(RunFolder(results, run_id), cells[run_id], data) for run_id in data.run_ids]


def _card(folder: RunFolder, cell: AskedCell, data: SweepData) -> RunCard:
    record: Mapping[str, Any] = read_json(folder.run_json) if folder.run_json.is_file() else {}
    has_state = folder.state_json.is_file()
    is_complete = read_summary(folder) is not None
    status = "completed" if is_complete else read_state(folder).status if has_state else "not started"
    spec = record.get("spec") or ({} if cell.spec is None else cell.spec.model_dump(mode="json"))
    targets = dict.fromkeys(target for run_id, target in data.measured if run_id == folder.run_id)
    found = {target: data.measured[folder.run_id, target] for target in targets}
    settings = shown_settings(cell.settings)
    return RunCard(
        run_id=folder.run_id,
        label=f"{cell.method} ({settings})" if settings else cell.method,
        method=cell.method,
        source=cell.source,
        seed=None if cell.source is None else cell.seed,
        status=status,
        error=read_state(folder).error if has_state and not is_complete else None,
        accuracies={name: None if one is None else float(one.correct.mean()) for name, one in found.items()},
        worker_s=data.worker_s.get(folder.run_id),
        settings={key: "none" if value is None else shown(value) for key, value in leaves(spec).items()},
        provenance=dict(_provenance(record)),
    )


def _provenance(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What may be told of a run's origin; names of machines and folders are nobody's business."""
    source, resolved = record.get("provenance") or {}, record.get("resolved") or {}
    if source:
        yield "commit", _commit(source)
        yield "versions", ", ".join(f"{name} {version}" for name, version in (source.get("versions") or {}).items())
    if resolved:
        yield "device", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in resolved.items())
    if source.get("cpu"):
        yield "cpu", str(source["cpu"])
    for number, attempt in enumerate(record.get("attempts", ()), start=1):
        text = f"from step {attempt['start_step']}, {attempt['outcome'] or 'under way or lost'}"
        yield f"attempt {number}", f"{attempt['started']} to {attempt['ended'] or '?'}, {text}, {_commit(attempt)}"


def _commit(source: Mapping[str, Any]) -> str:
    commit = source.get("commit")
    if commit is None:
        return "unknown commit"
    return f"{commit[:10]} with uncommitted changes" if source.get("dirty") else str(commit[:10])
