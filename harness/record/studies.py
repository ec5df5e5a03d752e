"""Where Optuna keeps a sweep's studies, and what they are called."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.spec.keys import Value
from harness.spec.sweep import Sweep


def default_storage(results: str | Path, sweep: Sweep) -> str:
    """The study's SQLite file in a results folder, made where it is missing."""
    folder = Path(results) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(folder / f'{sweep.name}.db').resolve()}"


def study_name(sweep: Sweep, combination: Mapping[str, Value]) -> str:
    """``<sweep>[/<combination>]@<digest>``: a sweep that asks for other runs is another study.

    The digest is over the space, the objectives, what is looked at, and the runs at one point, which stand for every
    other setting and for the model.
    """
    study = sweep.study
    assert study is not None
    content: dict[str, Any] = {
        "space": [repr(parameter) for parameter in study.space],
        "objectives": study.objectives,
        "sampler": [study.sampler, study.seed, study.pruner],
        "evaluation": sweep.evaluation.model_dump(mode="json"),
        "targets": sweep.targets,
        "runs": [cell.run_id for cell in sweep.trial(combination, sweep.probe)],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    chosen = "-".join(str(value) for value in combination.values())
    return f"{sweep.name}{f'/{chosen}' if chosen else ''}@{digest}"
