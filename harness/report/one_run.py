"""One run as its folder tells it: which folder a name stands for, its settings, what it took, what it answered."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.errors import DataError, UserError, nearest, shortened
from harness.record.atomic import read_json
from harness.record.folder import RunFolder, run_folders
from harness.report.collect import leaves
from harness.spec.run import RunSpec

ABSENT = "-"
"""Of a setting that one side does not have."""


@dataclass(frozen=True)
class Differing:
    """A setting that two specs do not agree on.

    Attributes:
        setting: Its dotted name, as a sweep file may write it.
        a: Its value on the first side.
        b: On the second; :data:`ABSENT` on a side that has no such setting.
    """

    setting: str
    a: Any
    b: Any


def find_run(results: str | Path, name: str) -> RunFolder:
    """The run that a run id, the beginning of one, or the path of a run folder stands for.

    Raises:
        UserError: There is none, or several begin like this.
    """
    folders = run_folders(results)
    ids = [folder.run_id for folder in folders]
    wanted = Path(name).resolve().name if os.path.isdir(name) else name
    fitting = [wanted] if wanted in ids else [run_id for run_id in ids if wanted and run_id.startswith(wanted)]
    if len(fitting) == 1:
        return RunFolder(results, fitting[0])
    if fitting:
        rest = f" and {len(fitting) - 4} more" if len(fitting) > 4 else ""
        raise UserError(f"'{shortened(name)}' stands for {len(fitting)} runs: {', '.join(fitting[:4])}{rest}")
    hint = nearest(wanted, ids) if ids else "there are no runs"
    if hint.startswith("allowed") and len(ids) > 8:
        hint = "`harness status` lists the runs"
    raise UserError(f"no run '{shortened(name)}' in {Path(results) / 'runs'}: {hint}")


def read_run(folder: RunFolder) -> dict[str, Any]:
    """The content of `run.json`.

    Raises:
        UserError: The run was never started.
    """
    try:
        record: dict[str, Any] = read_json(folder.run_json)
    except FileNotFoundError:
        raise UserError(f"{folder.path}: the run was never started, it has no run.json") from None
    return record


def worker_s(record: Mapping[str, Any]) -> float | None:
    """Seconds that workers spent on a run: all attempts that ended, loading, training and evaluation.

    Args:
        record: The content of `run.json`.

    Returns:
        None where no attempt on record has ended.
    """
    spans = [
        (datetime.fromisoformat(one["ended"]) - datetime.fromisoformat(one["started"])).total_seconds()
        for one in record.get("attempts", ())
        if one.get("ended")
    ]
    return sum(spans) if spans else None


def spec_on_record(record: Mapping[str, Any], path: Path) -> RunSpec:
    """A run's spec, with the defaults of settings that are younger than the run.

    Raises:
        DataError: It is no spec.
    """
    try:
        return RunSpec.model_validate(record["spec"])
    except (KeyError, ValidationError):
        raise DataError(f"{path} does not hold the spec of a run") from None


def differing(a: RunSpec, b: RunSpec, *, without: tuple[str, ...] = ()) -> tuple[Differing, ...]:
    """The settings that two specs do not agree on, in their order.

    Args:
        a: One spec.
        b: The other.
        without: Settings that are left out.
    """
    left, right = (_settings(spec) for spec in (a, b))
    return tuple(
        Differing(key, left.get(key, ABSENT), right.get(key, ABSENT))
        for key in dict.fromkeys([*left, *right])
        if key not in without and left.get(key, ABSENT) != right.get(key, ABSENT)
    )


def changed_settings(spec: RunSpec) -> tuple[Differing, ...]:
    """What a run set itself: its settings beside the defaults of its method for its model and source.

    Returns:
        `a` is the run's value, `b` the default.
    """
    default = RunSpec.model_validate({"model": spec.model, "method": spec.method.type, "source": spec.source})
    return differing(spec, default, without=("seed",))


def _settings(spec: RunSpec) -> dict[str, Any]:
    """Leaf by leaf; a type under the key that it is the type of."""
    return {key.removesuffix(".type"): value for key, value in leaves(spec.model_dump(mode="json")).items()}


def shown(value: Any) -> str:
    """A value of a setting, or a metric, as a label: six digits are enough to tell two apart."""
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def plain_text(text: str | None, limit: int | None = None) -> str:
    """What a model wrote, on one line: no letter of it can move a terminal's cursor or change its colours.

    Args:
        text: None where the record has none.
        limit: Letters shown; the rest is an ellipsis.
    """
    if text is None:
        return "(no text on record)"
    line = " ".join(text.split())
    line = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in line)
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"
