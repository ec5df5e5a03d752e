"""What does the driver cost per run, beyond the worker's own time?

``python -m benchmarks.overhead --out results/reference/cpu/overhead.json``, from the root of the repository. A sweep of
many runs, whose worker is a shell that copies a finished summary: what one run takes, less what that shell takes alone,
is the driver's: reserving, writing the job, starting, noticing the end, settling.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from harness.launch.driver import run_sweep
from harness.launch.executors.local import LocalExecutor
from harness.record.atomic import write_json, write_jsonl
from harness.record.provenance import provenance
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import load_sweep

SWEEP = """\
name: overhead
description: Runs that take no time.
axes: {{method: [sft], source: [counting], seed: {seeds}}}
targets: [counting]
evaluation: {{num_examples: 4}}
execution: {{device: cpu}}
"""
WORKER = (
    'run=$(dirname "$1"); mkdir -p "$run/eval"; cp {rows} "$run/eval/counting.jsonl"; cp {summary} "$run/summary.json"'
)


def measure(folder: Path, num_runs: int) -> dict[str, float]:
    """Seconds per run of a sweep with one slot, and of its worker alone."""
    (folder / "sweep.yaml").write_text(SWEEP.format(seeds=list(range(num_runs))))
    rows, summary = folder / "rows.jsonl", folder / "summary.json"
    write_jsonl(rows, [{"index": index, "correct": True} for index in range(4)])
    entry = {"num_examples": 4, "num_correct": 4, "accuracy": 1.0, "max_new_tokens": None}
    write_json(summary, {"evaluations": {"counting": entry}})
    command = ["/bin/sh", "-c", WORKER.format(rows=rows, summary=summary), "worker"]
    alone = []
    for number in range(20):
        job = folder / f"alone{number}" / "job.json"
        job.parent.mkdir()
        started = time.perf_counter()
        subprocess.run([*command, str(job)], check=True)
        alone.append(time.perf_counter() - started)
    executor = LocalExecutor(ExecutorSettings(slots=1), command=command)
    sweep = load_sweep(folder / "sweep.yaml")
    started = time.perf_counter()
    outcome = run_sweep(sweep, folder / "results", executor=executor, wandb=False, console=Console(file=io.StringIO()))
    per_run = (time.perf_counter() - started) / num_runs
    assert outcome.num_completed == num_runs, outcome
    return {"per_run_s": per_run, "worker_s": statistics.median(alone), "driver_s": per_run - statistics.median(alone)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    rounds = []
    for _ in range(chosen.rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(measure(Path(folder), chosen.runs))
    median = {key: statistics.median(one[key] for one in rounds) for key in rounds[0]}
    print(f"{chosen.runs} runs: {1000 * median['per_run_s']:.0f} ms per run, {1000 * median['worker_s']:.0f} of them")
    print(f"the worker's own: the driver takes {1000 * median['driver_s']:.0f} ms per run")
    if chosen.out is not None:
        record = {
            "benchmark": "overhead",
            "date": datetime.now(UTC).date().isoformat(),
            "settings": {"runs": chosen.runs, "rounds": chosen.rounds},
            "median": median,
            "rounds": rounds,
            "provenance": provenance(),
        }
        write_json(chosen.out, record)
        print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
