"""Run folders as workers leave them, with what attempts took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.spec.sweep import Sweep, SweepRun

MEASURED = {
    "device": "cpu",
    "num_threads": 2,
    "start_s": 5.0,
    "first_step_s": 8.0,
    "train_s": 8.0,
    "num_steps": 4,
    "evaluate_s": {"counting": 4.0},
    "peak_host_gib": 0.5,
    "peak_device_gib": None,
}
"""A first step of 3 s, three of 1 s, and two evaluations of two examples of 0.5 s each."""


def record(
    results: Path,
    sweep: Sweep,
    run: SweepRun,
    *measured: Mapping[str, Any],
    made_by: str | None = None,
    num_examples: int = 8,
    started: str = "2026-01-01T00:00:00+0000",
    targets: Sequence[str] = ("counting",),
    is_complete: bool = True,
) -> RunFolder:
    """A run with an attempt for each of what was measured; the evaluations have so many examples."""
    folder = RunFolder(results, run.run_id)
    evaluation = sweep.evaluation.model_dump(mode="json") | {"num_examples": num_examples}
    job = {
        "sweep": made_by or sweep.name,
        "targets": list(targets),
        "evaluation": evaluation,
        "execution": sweep.execution.model_dump(mode="json"),
    }
    attempts = [
        {"start_step": 0, "started": started, "ended": started.replace("00:00:00", "00:00:20"), "measured": dict(one)}
        for one in measured
    ]
    spec = run.spec.model_dump(mode="json")
    write_json(folder.run_json, {"run_id": run.run_id, "spec": spec, "job": job, "attempts": attempts})
    write_json(folder.job_json, job | {"spec": spec})
    if is_complete:
        made = {"num_examples": num_examples, "max_new_tokens": None}
        write_json(folder.summary, {"evaluations": dict.fromkeys(targets, made)})
        for target in targets:
            folder.evaluation(target).parent.mkdir(exist_ok=True)
            folder.evaluation(target).write_text('{"correct": true}\n' * num_examples)
    return folder
