"""What a sweep asked for, kept beside the runs so that a report needs no sweep file: `results/sweeps/<name>.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.errors import UserError, nearest
from harness.record.atomic import read_json, write_json

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep


def sweep_record_path(results: Path | str, name: str) -> Path:
    """Where the record of a sweep stands."""
    return Path(results) / "sweeps" / f"{name}.json"


def sweep_names(results: Path | str) -> list[str]:
    """The sweeps on record, by name."""
    return sorted(path.stem for path in (Path(results) / "sweeps").glob("[!.]*.json"))


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
    write_json(path, record)
    return path


def with_recorded_trials(sweep: Sweep, results: Path | str) -> Sweep:
    """A sweep with the trials on record, where it is a search whose points no file can tell."""
    if sweep.study is None or sweep.study.sampler == "grid" or sweep.name not in sweep_names(results):
        return sweep
    trials = read_sweep_record(results, sweep.name).get("trials", [])
    known = [(trial["combination"], trial["point"]) for trial in trials if trial["combination"] in sweep.searches]
    return sweep.with_trials(known)


def read_sweep_record(results: Path | str, name: str) -> dict[str, Any]:
    """The record of a sweep.

    Raises:
        UserError: No sweep of that name is on record.
    """
    try:
        return cast("dict[str, Any]", read_json(sweep_record_path(results, name)))
    except FileNotFoundError:
        names = sweep_names(results)
        hint = nearest(name, names) if names else "none is there yet"
        raise UserError(f"no sweep '{name}' on record in {results}: {hint}") from None
