"""What of a sweep a fault may not change, and who works on it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.record.atomic import read_json, read_jsonl
from harness.record.folder import RunFolder
from harness.record.lease import read_owner
from harness.report.render import render_tables
from harness.report.tables import build_tables
from harness.spec.sweep import Sweep


def everything(sweep: Sweep, results: Path) -> dict[str, Any]:
    """Tables, metrics, completions, verdicts and weights of a sweep: all but times, and what tells of attempts."""
    found: dict[str, Any] = {"tables": json.loads(render_tables(build_tables(results, sweep), "json"))}
    for run_id in sweep.runs:
        folder = RunFolder(results, run_id)
        summary = read_json(folder.summary)
        summary.pop("attempt_s")
        rows = [
            {key: value for key, value in row.items() if not key.startswith("time/")}
            for row in read_jsonl(folder.metrics)
        ]
        rows_of = [file for file in (folder.validations, folder.completions) if file.exists()]
        files = sorted([*folder.path.glob("eval/**/*.jsonl"), *folder.weights.glob("*.safetensors"), *rows_of])
        digests = {str(path.relative_to(folder.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        found[run_id] = {"summary": summary, "metrics": rows, "files": digests}
    return found


def worker_pids(sweep: Sweep, results: Path) -> list[int]:
    """The processes that hold a run of a sweep as workers now."""
    owners = [read_owner(RunFolder(results, run_id).path) for run_id in sweep.runs]
    return [
        owner.process.pid
        for owner in owners
        if owner is not None and owner.role == "worker" and not owner.released and owner.process.is_alive
    ]
