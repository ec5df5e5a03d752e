"""What a sweep asked for, kept beside the runs so that a report needs no sweep file: `results/sweeps/<name>.json`.

A record is checked when it is read: its names become paths, and anybody may have written it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import DataError, UserError, nearest, shortened
from harness.record.atomic import read_json, write_text
from harness.record.folder import checked_name, is_name

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


def sweep_record_path(results: Path | str, name: str) -> Path:
    """Where the record of a sweep stands.

    Raises:
        DataError: The name cannot be a file's.
    """
    return Path(results) / "sweeps" / f"{checked_name('sweep', name)}.json"


def sweep_names(results: Path | str) -> list[str]:
    """The sweeps on record, by name."""
    names = (path.stem for path in (Path(results) / "sweeps").glob("[!.]*.json"))
    return sorted(name for name in names if is_name(name))


def write_sweep_record(results: Path | str, sweep: Sweep, trials: Sequence[Mapping[str, Any]] = ()) -> Path:
    """Writes the record of a sweep over an earlier one of that name.

    Args:
        results: The results folder.
        sweep: With the cells that are known.
        trials: Of a study: each with study, number, combination, point and run_ids.

    Returns:
        The file, which holds name, description, path, targets, evaluation, cells and trials; a cell has settings,
        run_id, targets and, where it is part of one, ablation.
    """
    path = sweep_record_path(results, sweep.name)
    cells = [
        {"settings": dict(cell.settings), "run_id": cell.run_id, "targets": list(cell.targets)}
        | ({} if cell.ablation is None else {"ablation": cell.ablation})
        for cell in sweep.cells
    ]
    record = {
        "name": sweep.name,
        "description": sweep.description,
        "path": str(sweep.path),
        "targets": list(sweep.targets),
        "evaluation": sweep.evaluation.model_dump(mode="json"),
        "cells": cells,
        "trials": list(trials),
    }
    # Not indented: ten thousand cells are a matter of the encoder's speed.
    write_text(path, json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
    return path


def with_recorded_trials(sweep: Sweep, results: Path | str) -> Sweep:
    """A sweep with the trials on record, where it is a search whose points no file can tell."""
    if sweep.study is None or sweep.study.sampler == "grid" or sweep.name not in sweep_names(results):
        return sweep
    trials = read_sweep_record(results, sweep.name).get("trials", [])
    known = [(trial["combination"], trial["point"]) for trial in trials if trial["combination"] in sweep.searches]
    return sweep.with_trials(known)


def read_sweep_record(results: Path | str, name: str) -> dict[str, Any]:
    """The record of a sweep, as :func:`write_sweep_record` has it.

    Raises:
        UserError: No sweep of that name is on record.
        DataError: Its file holds something else.
    """
    file = sweep_record_path(results, name)
    try:
        return checked_record(read_json(file), file)
    except FileNotFoundError:
        names = sweep_names(results)
        hint = nearest(name, names) if names else "none is there yet"
        raise UserError(f"no sweep '{shortened(name)}' on record in {results}: {hint}") from None


def checked_record(record: Any, file: Path) -> dict[str, Any]:
    """The content of a file, where it is the record of a sweep.

    Raises:
        DataError: It is something else, or has names that lead out of the results folder.
    """
    from pydantic import ValidationError

    from harness.record.sweep_form import SweepForm  # takes its time to build; a plan reads no record

    try:
        SweepForm.model_validate(record)
    except ValidationError as error:
        wrong = error.errors()[0]
        where = ".".join(map(str, wrong["loc"])) or "content"
        raise DataError(f"{file}: not the record of a sweep: {shortened(where)}: {wrong['msg']}") from None
    return cast("dict[str, Any]", record)
