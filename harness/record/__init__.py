"""The run folder: paths, state, rows, provenance, and the mirrors for dashboards. Imports no torch, pandas or wandb."""

from harness.record.atomic import read_json, read_jsonl, write_json, write_jsonl, write_text
from harness.record.folder import RunFolder, run_folders
from harness.record.provenance import provenance
from harness.record.recorder import Recorder
from harness.record.state import (
    RunState,
    answers,
    is_complete,
    mark_failed,
    read_state,
    read_summary,
    write_state,
)
from harness.record.sweep_record import read_sweep_record, sweep_names, write_sweep_record

__all__ = [
    "Recorder",
    "RunFolder",
    "RunState",
    "answers",
    "is_complete",
    "mark_failed",
    "provenance",
    "read_json",
    "read_jsonl",
    "read_state",
    "read_summary",
    "read_sweep_record",
    "run_folders",
    "sweep_names",
    "write_json",
    "write_jsonl",
    "write_state",
    "write_sweep_record",
    "write_text",
]
