"""Where Optuna keeps a sweep's studies, and what they are called."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import UserError, shortened
from harness.spec.keys import Value
from harness.spec.sweep import Sweep


def default_storage(results: str | Path, sweep: Sweep) -> str:
    """The study's SQLite file in a results folder, made where it is missing."""
    folder = Path(results) / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{(folder / f'{sweep.name}.db').resolve()}"


def storage_error(storage: str, error: Exception) -> UserError:
    """What to raise where a storage cannot be opened: its address and the reason, both without user and password.

    Args:
        storage: The URL, which may hold a password before its last `@` or after a `?`.
        error: What Optuna or the database said, of which the first line is told.
    """
    scheme, _, rest = storage.partition("://")
    credentials, _, place = rest.partition("?")[0].rpartition("@")
    address = f"{scheme}://{place}" if rest else scheme.partition(":")[0]
    reason = next(iter(str(error).splitlines()), type(error).__name__).replace(storage, address)
    for secret in (credentials.partition(":")[2], *re.findall(r"=([^&]+)", rest.partition("?")[2])):
        reason = reason.replace(secret, "***") if secret else reason
    return UserError(f"cannot open the study's storage {shortened(address, 200)}: {shortened(reason, 200)}")


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
