"""A sweep's answers as a few small files to commit or send, and the run folders that they can be computed from again.

    sweep.json       the cells, as on record
    runs.jsonl       a run per line: spec, provenance, versions, device, attempts
    verdicts.csv     a run and target per line: whether each example was answered rightly and in the right format
    tables.json      what `harness tables` prints; tables.md for reading
    claims.json      what `harness claims` prints, where the sweep has claims; claims.md for reading
    about.json       commits, versions, devices, how long the runs took; the exports it was made from, where it was
    figures/         what `harness figures` draws

No weights, completions or images.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.record.atomic import read_json, read_jsonl, write_json, write_jsonl, write_text
from harness.record.folder import RunFolder
from harness.record.state import SUMMARY_KEYS, read_summary
from harness.record.sweep_record import checked_record, sweep_record_path, with_recorded_trials, write_sweep_record
from harness.report.claims import judge_claims
from harness.report.figures.write import write_figures
from harness.report.render import render_tables
from harness.report.render_claims import render_claims
from harness.report.tables import build_tables
from harness.spec.sweep import Sweep

_COLUMNS = ("run_id", "split", "target", "protocol", "max_new_tokens", "split_size", "correct", "format")


def export_sweep(results: str | Path, sweep: Sweep, out: str | Path) -> list[Path]:
    """Writes the export of a sweep, over an earlier one.

    Args:
        results: The results folder.
        sweep: What is exported; runs that are not complete are left out.
        out: The folder to write to.

    Returns:
        The files.

    Raises:
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    sweep = with_recorded_trials(sweep, results)
    complete = [RunFolder(results, run_id) for run_id in sweep.runs if read_summary(RunFolder(results, run_id))]
    runs = [_run(one) for one in complete]
    rows = build_tables(results, sweep)
    record = read_json(write_sweep_record(results, sweep, _trials(results, sweep)))
    write_json(folder / "sweep.json", record)
    write_jsonl(folder / "runs.jsonl", runs)
    write_text(folder / "verdicts.csv", _as_csv(row for one in complete for row in _verdicts(one)))
    write_text(folder / "tables.json", render_tables(rows, "json") + "\n")
    write_text(folder / "tables.md", render_tables(rows, "markdown") + "\n")
    restored = [source for one in complete if (source := read_json(one.run_json).get("restored_from")) is not None]
    write_json(folder / "about.json", _about(sweep, runs, restored))
    files = [folder / name for name in ("sweep.json", "runs.jsonl", "verdicts.csv", "tables.json", "tables.md")]
    files.append(folder / "about.json")
    if sweep.claims:
        answers = judge_claims(results, sweep)
        for form, name in (("json", "claims.json"), ("markdown", "claims.md")):
            write_text(folder / name, render_claims(answers, form) + "\n")
            files.append(folder / name)
    return [*files, *write_figures(results, sweep, folder / "figures").files]


def restore(exported: str | Path, results: str | Path) -> None:
    """Writes the run folders of an export, as far as tables and claims need them.

    Args:
        exported: The folder of an export.
        results: The results folder to write into; runs that are there already are left alone.

    Raises:
        DataError: The export is not whole.
    """
    folder = Path(exported)
    by_run: dict[str, list[dict[str, str]]] = {}
    try:
        record = checked_record(read_json(folder / "sweep.json"), folder / "sweep.json")
        runs = read_jsonl(folder / "runs.jsonl")
        for row in csv.DictReader(io.StringIO((folder / "verdicts.csv").read_text())):
            by_run.setdefault(row["run_id"], []).append(row)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename} is missing: {folder} is not the folder of an export") from None
    write_json(sweep_record_path(results, record["name"]), record)
    for run in runs:
        run_folder = RunFolder(results, run["run_id"])
        if run_folder.summary.exists():
            continue
        summary: dict[str, Any] = {key: {} for key in SUMMARY_KEYS.values()}
        for row in by_run.get(run["run_id"], []):
            correct, form = row["correct"], row["format"]
            split: Any = row["split"]
            verdicts = [
                {"index": index, "correct": one == "1", "format": other == "1"}
                for index, (one, other) in enumerate(zip(correct, form, strict=True))
            ]
            write_jsonl(run_folder.evaluation(row["target"], split), verdicts)
            summary[SUMMARY_KEYS[split]][row["target"]] = {
                "num_examples": len(verdicts),
                "num_correct": correct.count("1"),
                "accuracy": correct.count("1") / len(verdicts),
                "format": form.count("1") / len(verdicts),
                "protocol": row["protocol"],
                "max_new_tokens": int(row["max_new_tokens"]) if row["max_new_tokens"] else None,
                "split_size": int(row["split_size"]) if row.get("split_size") else None,
            }
        write_json(run_folder.run_json, {**run, "job": {"sweep": record["name"]}, "restored_from": record["name"]})
        write_json(run_folder.summary, {"run_id": run["run_id"], **summary})


def _run(folder: RunFolder) -> dict[str, Any]:
    record = read_json(folder.run_json)
    attempts = [
        {key: attempt[key] for key in ("started", "ended", "start_step", "outcome", "device", "commit", "dirty")}
        for attempt in record["attempts"]
    ]
    # Names of machines and folders are nobody's business.
    provenance = {key: record["provenance"].get(key) for key in ("commit", "dirty", "versions", "cpu")}
    kept = {"run_id": folder.run_id, "spec": record["spec"], "resolved": record["resolved"]}
    return {**kept, "provenance": provenance, "attempts": attempts}


def _verdicts(folder: RunFolder) -> Iterable[dict[str, Any]]:
    summary = read_summary(folder) or {}
    for split, key in SUMMARY_KEYS.items():
        for target, made in summary.get(key, {}).items():
            rows = read_jsonl(folder.evaluation(target, split))[: made["num_examples"]]
            yield {
                "run_id": folder.run_id,
                "split": split,
                "target": target,
                "protocol": made.get("protocol"),
                "max_new_tokens": made.get("max_new_tokens"),
                "split_size": made.get("split_size"),
                "correct": "".join("01"[bool(row["correct"])] for row in rows),
                "format": "".join("01"[bool(row["format"])] for row in rows),
            }


def _as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def _trials(results: str | Path, sweep: Sweep) -> list[dict[str, Any]]:
    path = sweep_record_path(results, sweep.name)
    return list(read_json(path).get("trials", [])) if path.exists() else []


def _about(sweep: Sweep, runs: list[dict[str, Any]], restored_from: Iterable[str]) -> dict[str, Any]:
    attempts = [attempt for run in runs for attempt in run["attempts"]]
    versions = [run["provenance"]["versions"] for run in runs]
    spans = [
        (datetime.fromisoformat(one["ended"]) - datetime.fromisoformat(one["started"])).total_seconds()
        for one in attempts
        if one["ended"]
    ]
    sources = sorted(set(restored_from))
    return {
        "sweep": sweep.name,
        "command": f"harness {'export' if sources else 'run'} {sweep.path}",
        # Runs of other exports: who trained them when stands with each run.
        **({"restored_from": sources} if sources else {}),
        "num_runs": len(sweep.runs),
        "num_completed": len(runs),
        "commits": sorted({f"{one['commit']}{'+dirty' if one['dirty'] else ''}" for one in attempts}),
        "devices": sorted({f"{run['resolved']['device']}, {run['resolved']['num_threads']} threads" for run in runs}),
        "versions": [json.loads(text) for text in sorted({json.dumps(one, sort_keys=True) for one in versions})],
        "worker_s": round(sum(spans), 1),
        "first_start": min((one["started"] for one in attempts), default=None),
        "last_end": max((one["ended"] for one in attempts if one["ended"]), default=None),
    }
