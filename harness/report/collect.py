"""What was asked, and what was measured: sweeps and run folders as plain values and as one tidy frame.

Only what stands in a run folder counts. A run without `summary.json`, without one of its targets, or with fewer
examples than the sweep asks for, is missing: the plan trains or evaluates it again, and a table shows a dash. So is one
whose evaluation is not the file that its summary was made from (:mod:`harness.record.verdicts`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.record.atomic import read_json_or
from harness.record.folder import RunFolder
from harness.record.index import RunIndex
from harness.record.state import SUMMARY_KEYS, answers, read_summary
from harness.record.sweep_record import read_sweep_record, with_recorded_trials
from harness.record.verdicts import Verdicts, sound_rows, verdicts_of
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    from harness.spec.run import RunSpec
    from harness.spec.sweep import Sweep

CORE_AXES = ("method", "source", "seed")
"""Axes with a place of their own in tables and frames; any other axis is a setting."""


@dataclass(frozen=True)
class AskedCell:
    """One cell of a sweep, as tables need it.

    Attributes:
        run_id: The run that answers it.
        method: The method's type.
        source: The task trained on; None for `base`.
        seed: Of the run.
        targets: The tasks it is evaluated on.
        settings: The values of the axes other than method, source and seed; a method that was written as a mapping
            gives one entry per setting, such as ``"method.format_weight"``.
        spec: Of the run; None for a sweep on record, whose runs tell it once they were started.
        ablation: The settings that it ablates, by their short names; None for the sweep's main comparison.
    """

    run_id: str
    method: str
    source: str | None
    seed: int
    targets: tuple[str, ...]
    settings: Mapping[str, Any]
    spec: RunSpec | None = None
    ablation: str | None = None


@dataclass(frozen=True)
class Asked:
    """A sweep's cells, and how it wants them evaluated."""

    name: str
    evaluation: Evaluation
    cells: tuple[AskedCell, ...]


@dataclass(frozen=True)
class Measurement:
    """What one run scored on one target.

    Attributes:
        correct: Verdicts `[num_examples]`, in order of the test split.
        formats: Whether each completion has the right form, in the same order; None where a row does not say.
        protocol: The evaluation rule's name; None where not recorded.
    """

    correct: NDArray[np.bool_]
    formats: NDArray[np.bool_] | None
    protocol: str | None

    @property
    def format_frac(self) -> float | None:
        """Share of completions in the right form, in [0, 1]; None where not recorded."""
        return None if self.formats is None else float(self.formats.mean())


def table_of(source: str | None, target: str) -> Literal["same_task", "cross_task", "both"]:
    """The table that a source and a target belong to; `base` (no source) belongs to both."""
    if source is None:
        return "both"
    return "same_task" if source == target else "cross_task"


def asked_by(results_dir: str | Path, sweep: str | Path | Sweep) -> Asked:
    """What a sweep asks for.

    Args:
        results_dir: The results folder; holds the sweeps on record.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.

    Raises:
        UserError: There is no such sweep, or its file is wrong.
    """
    if isinstance(sweep, (str, Path)):
        path = Path(sweep)
        if path.suffix not in (".yaml", ".yml") and not os.path.isfile(path):
            return _asked_on_record(Path(results_dir), str(sweep))
        from harness.spec.sweep import load_sweep

        sweep = load_sweep(path)
    sweep = with_recorded_trials(sweep, results_dir)
    cells = tuple(
        AskedCell(
            run_id=cell.run_id,
            method=cell.spec.method.type,
            source=cell.spec.source,
            seed=cell.spec.seed,
            targets=tuple(cell.targets),
            settings=_settings(cell.settings),
            spec=cell.spec,
            ablation=cell.ablation,
        )
        for cell in sweep.cells
    )
    return Asked(sweep.name, sweep.evaluation, cells)


def _asked_on_record(results: Path, name: str) -> Asked:
    record = read_sweep_record(results, name)
    cells = []
    for cell in record["cells"]:
        method, source, seed = _named_by(cell["run_id"])
        settings, targets = _settings(cell["settings"]), tuple(cell["targets"])
        ablation = cell.get("ablation")
        cells.append(AskedCell(cell["run_id"], method, source, seed, targets, settings, ablation=ablation))
    return Asked(record["name"], Evaluation.model_validate(record["evaluation"]), tuple(cells))


def _named_by(run_id: str) -> tuple[str, str | None, int]:
    """Method, source and seed as the run id's readable prefix tells them; a missing run has nothing else."""
    prefix = run_id.rsplit("-", 2)[0]
    method, _, rest = prefix.partition("-")
    if not rest:
        return method, None, 0
    source, _, seed = rest.rpartition("-s")
    return method, source, int(seed)


def _settings(axes: Mapping[str, Any]) -> dict[str, Any]:
    settings = {key: value for key, value in axes.items() if key not in CORE_AXES and key != "method.type"}
    method = axes.get("method")
    if isinstance(method, Mapping):
        settings |= leaves(method, "method.")
        settings.pop("method.type", None)
    return settings


def leaves(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The settings in nested mappings, each under its dotted name, such as ``"method.schedule.beta"``."""
    found = {}
    for key, item in value.items():
        # Nearly all are scalars, and asking for a Mapping takes five times as long.
        if isinstance(item, _SCALARS) or not isinstance(item, Mapping):
            found[prefix + key] = item
        else:
            found |= leaves(item, f"{prefix}{key}.")
    return found


_SCALARS = (str, int, float, type(None))


def measure(results_dir: str | Path, run_id: str, target: str, asked: Evaluation | None = None) -> Measurement | None:
    """What a run scored on a target.

    Args:
        results_dir: The results folder.
        run_id: The run.
        target: The task it was evaluated on.
        asked: The split, how many of its first examples count, and where answers were cut; None for every test
            example on record.

    Returns:
        None where the run is not completed, was not evaluated on this target as asked, or its file was damaged since.
    """
    folder = RunFolder(results_dir, run_id)
    split: Split = "test" if asked is None else asked.table_split
    return measure_split(folder, target, split, read_summary(folder), asked)


def measure_split(
    folder: RunFolder, target: str, split: Split, summary: Mapping[str, Any] | None, asked: Evaluation | None = None
) -> Measurement | None:
    """What a run scored on one split of a target; see :func:`measure`.

    Args:
        folder: The run's.
        target: The task it was evaluated on.
        split: Of the examples.
        summary: The run's.
        asked: How many of the first examples count, and where answers were cut; None for every example on record.
    """
    counted = counted_in(summary, target, split, asked)
    rows = None if counted is None else sound_rows(folder, target, split, summary)
    return None if counted is None or rows is None else _measurement(counted, verdicts_of(rows), split, asked)


def counted_in(
    summary: Mapping[str, Any] | None, target: str, split: Split, asked: Evaluation | None
) -> Mapping[str, Any] | None:
    """A target's entry in a summary; None where there is none that answers what is asked."""
    counted = None if summary is None else summary.get(SUMMARY_KEYS[split], {}).get(target)
    return counted if asked is None or answers(counted, asked, split) else None


def first_of(verdicts: Verdicts, split: Split, asked: Evaluation | None) -> int:
    """How many of the first examples count: what is asked, or all on record."""
    return verdicts.num_examples if asked is None else min(asked.num(split), verdicts.num_examples)


def _measurement(counted: Mapping[str, Any], verdicts: Verdicts, split: Split, asked: Evaluation | None) -> Measurement:
    num = first_of(verdicts, split, asked)
    return Measurement(
        correct=_unpacked(verdicts.correct, num),
        formats=_unpacked(verdicts.formats, num) if verdicts.num_formats >= num else None,
        protocol=counted.get("protocol"),
    )


def _unpacked(bits: str, num: int) -> NDArray[np.bool_]:
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=num).view(np.bool_)


def measure_all(results_dir: str | Path, asked: Asked) -> dict[tuple[str, str], Measurement | None]:
    """By run and target, what every run of a sweep scored; None where it is missing.

    Args:
        results_dir: The results folder.
        asked: From :func:`asked_by`.
    """
    pairs = dict.fromkeys((cell.run_id, target) for cell in asked.cells for target in cell.targets)
    return measure_pairs(results_dir, pairs, asked.evaluation)


def measure_pairs(
    results_dir: str | Path, pairs: Iterable[tuple[str, str]], asked: Evaluation
) -> dict[tuple[str, str], Measurement | None]:
    """By run and target, what these runs scored on these targets; None where it is missing."""
    pairs = list(pairs)
    split = asked.table_split
    with RunIndex(results_dir) as index:
        found = {run_id: index.recorded(run_id) for run_id in dict.fromkeys(run_id for run_id, _ in pairs)}
    measured: dict[tuple[str, str], Measurement | None] = {}
    for run_id, target in pairs:
        counted = counted_in(found[run_id].summary, target, split, asked)
        verdicts = found[run_id].of(target, split)
        if counted is None or verdicts is None:
            measured[run_id, target] = None
        else:
            measured[run_id, target] = _measurement(counted, verdicts, split, asked)
    return measured


def spec_of(results_dir: str | Path, cells: Iterable[AskedCell]) -> Mapping[str, Any] | None:
    """The spec, as JSON has it, of the first of these cells that has one; seeds of one line differ in nothing else.

    Args:
        results_dir: The results folder.
        cells: That differ in their seed alone.

    Returns:
        None for a sweep on record none of whose runs was started.
    """
    for cell in cells:
        if cell.spec is not None:
            return cell.spec.model_dump(mode="json")
        spec = read_json_or(RunFolder(results_dir, cell.run_id).run_json, {}).get("spec")
        if isinstance(spec, dict):
            return spec
    return None
