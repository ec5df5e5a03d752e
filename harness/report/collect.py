"""What was asked, and what was measured: sweeps and run folders as plain values and as one tidy frame.

Only what stands in a run folder counts. A run without `summary.json`, without one of its targets, or with fewer
examples than the sweep asks for, is missing: the plan trains or evaluates it again, and a table shows a dash.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.record.atomic import read_json, read_jsonl
from harness.record.folder import RunFolder, run_folders
from harness.record.state import SUMMARY_KEYS, answers, read_summary
from harness.record.sweep_record import read_sweep_record, with_recorded_trials
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.run import RunSpec
    from harness.spec.sweep import Sweep

CORE_AXES = ("method", "source", "seed")
"""Axes with a place of their own in tables and frames; any other axis is a setting."""

_COLUMNS = (
    *("run_id", "sweep", "method", "source", "target", "table", "seed", "model", "num_train", "format_weight"),
    *("schedule", "protocol", "num_examples", "num_correct", "accuracy", "format", "validation_accuracy"),
    *("commit", "dirty"),
)


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
        if path.suffix not in (".yaml", ".yml") and not path.is_file():
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
        settings |= dict(leaves(method, "method."))
        settings.pop("method.type", None)
    return settings


def leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The settings in nested mappings, each under its dotted name, such as ``"method.schedule.beta"``."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from leaves(item, f"{prefix}{key}.")
        else:
            yield prefix + key, item


def measure(results_dir: str | Path, run_id: str, target: str, asked: Evaluation | None = None) -> Measurement | None:
    """What a run scored on a target.

    Args:
        results_dir: The results folder.
        run_id: The run.
        target: The task it was evaluated on.
        asked: The split, how many of its first examples count, and where answers were cut; None for every test
            example on record.

    Returns:
        None where the run is not completed, or was not evaluated on this target as asked.

    Raises:
        DataError: The evaluation's file has not the rows that the summary counts.
    """
    folder = RunFolder(results_dir, run_id)
    summary = read_summary(folder)
    split: Split = "test" if asked is None else asked.table_split
    counted = None if summary is None else summary.get(SUMMARY_KEYS[split], {}).get(target)
    if counted is None or (asked is not None and not answers(counted, asked, split)):
        return None
    return measure_split(folder, target, split, counted, asked.num(split) if asked else None)


def measure_split(
    folder: RunFolder, target: str, split: Split, counted: Mapping[str, Any], first: int | None = None
) -> Measurement:
    """What a run scored on one split of a target.

    Args:
        folder: The run's.
        target: The task it was evaluated on.
        split: Of the examples.
        counted: The target's entry in the run's summary.
        first: How many of the first examples count; None for all on record.

    Raises:
        DataError: The evaluation's file has not the rows that the summary counts.
    """
    path = folder.evaluation(target, split)
    rows = list(read_jsonl(path)) if path.is_file() else []
    if len(rows) < counted["num_examples"]:
        raise DataError(f"{path}: {len(rows)} rows where the run's summary counts {counted['num_examples']}")
    rows = rows[:first]
    formats = [bool(row["format"]) for row in rows if row.get("format") is not None]
    return Measurement(
        correct=np.array([bool(row["correct"]) for row in rows], dtype=np.bool_),
        formats=np.array(formats, dtype=np.bool_) if len(formats) == len(rows) else None,
        protocol=counted.get("protocol"),
    )


def measure_all(results_dir: str | Path, asked: Asked) -> dict[tuple[str, str], Measurement | None]:
    """By run and target, what every run of a sweep scored; None where it is missing.

    Args:
        results_dir: The results folder.
        asked: From :func:`asked_by`.

    Raises:
        DataError: A run folder whose files contradict each other.
    """
    pairs = dict.fromkeys((cell.run_id, target) for cell in asked.cells for target in cell.targets)
    return {pair: measure(results_dir, *pair, asked.evaluation) for pair in pairs}


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
        record = RunFolder(results_dir, cell.run_id).run_json
        if record.is_file():
            return cast("Mapping[str, Any]", read_json(record)["spec"])
    return None


def load_results(results_dir: str | Path = "results", sweep: str | Path | Sweep | None = None) -> pd.DataFrame:
    """One tidy row per completed run and target.

    Columns: run_id, sweep, method, source (None for `base`), target, table (`same_task`, `cross_task`; `both` for
    `base`), seed, model, num_train, format_weight, schedule (its type), protocol, num_examples, num_correct, accuracy
    and format in [0, 1], validation_accuracy (in [0, 1], of the last evaluation during training, on other examples:
    what settings may be chosen by), commit, dirty; then every setting of the methods as `method.<setting>`, and the
    sweep's other axes by their keys. What a run does not have is missing (None or NaN), never 0.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep: its runs and targets, on its
            number of test examples. None for every completed run, on all examples it was evaluated on.

    Raises:
        UserError: There is no such sweep.
        DataError: A run folder whose files contradict each other.
    """
    import pandas as pd

    rows = list(_every_row(Path(results_dir)) if sweep is None else _asked_rows(Path(results_dir), sweep))
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*_COLUMNS, *(key for row in rows for key in row)])))
    # pandas' own string type would turn the None of `base` into NaN.
    frame["source"] = pd.Series([row["source"] for row in rows], dtype=object, index=frame.index)
    return frame


def _every_row(results: Path) -> Iterator[dict[str, Any]]:
    for folder in run_folders(results):
        summary = read_summary(folder)
        if summary is None:
            continue
        run = read_json(folder.run_json)
        for target in summary["evaluations"]:
            measurement = measure(results, folder.run_id, target)
            if measurement is not None:
                yield _row(folder, run, (run.get("job") or {}).get("sweep"), target, measurement)


def _asked_rows(results: Path, sweep: str | Path | Sweep) -> Iterator[dict[str, Any]]:
    asked = asked_by(results, sweep)
    seen: set[tuple[str, str]] = set()
    for cell in asked.cells:
        for target in cell.targets:
            # Cells that share a run share its row; the first one's settings stand.
            if (cell.run_id, target) in seen:
                continue
            seen.add((cell.run_id, target))
            measurement = measure(results, cell.run_id, target, asked.evaluation)
            if measurement is not None:
                folder = RunFolder(results, cell.run_id)
                row = _row(folder, read_json(folder.run_json), asked.name, target, measurement)
                yield row | {key: value for key, value in cell.settings.items() if key not in row}


def _row(
    folder: RunFolder, run: Mapping[str, Any], sweep: str | None, target: str, measured: Measurement
) -> dict[str, Any]:
    spec, method = run["spec"], run["spec"]["method"]
    summary = read_summary(folder) or {}
    provenance = run.get("provenance") or {}
    num_correct = int(measured.correct.sum())
    return {
        "run_id": folder.run_id,
        "sweep": sweep,
        "method": method["type"],
        "source": spec["source"],
        "target": target,
        "table": table_of(spec["source"], target),
        "seed": spec["seed"],
        "model": spec["model"],
        "num_train": spec["num_train"],
        "format_weight": method.get("format_weight"),
        "schedule": (method.get("schedule") or {}).get("type"),
        "protocol": measured.protocol,
        "num_examples": len(measured.correct),
        "num_correct": num_correct,
        "accuracy": num_correct / len(measured.correct),
        "format": measured.format_frac,
        "validation_accuracy": (summary.get("train") or {}).get(f"eval/{target}/accuracy"),
        "commit": provenance.get("commit"),
        "dirty": provenance.get("dirty"),
        **{key: value for key, value in leaves(method, "method.") if key != "method.type"},
    }
