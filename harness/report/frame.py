"""The results of all runs as one tidy frame, a row per completed run and target."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.pause import collector_paused
from harness.record.index import Recorded, RunIndex
from harness.report.collect import Asked, asked_by, counted_in, first_of, leaves, table_of
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep

_COLUMNS = (
    *("run_id", "sweep", "method", "source", "target", "table", "seed", "model", "num_train", "format_weight"),
    *("schedule", "protocol", "num_examples", "num_correct", "accuracy", "format", "validation_accuracy"),
    *("commit", "dirty"),
)


@collector_paused()
def load_results(results_dir: str | Path = "results", sweep: str | Path | Sweep | None = None) -> pd.DataFrame:
    """One tidy row per completed run and target.

    Columns: run_id, sweep, method, source (None for `base`), target, table (`same_task`, `cross_task`; `both` for
    `base`), seed, model, num_train, format_weight, schedule (its type), protocol, num_examples, num_correct, accuracy
    and format in [0, 1], validation_accuracy (in [0, 1], of the last evaluation during training, on other examples:
    what settings may be chosen by), commit, dirty; then every setting of the methods as `method.<setting>`, and the
    sweep's other axes by their keys. What a run does not have is missing (None or NaN), never 0. A run without a
    readable `run.json`, and an evaluation whose file is not the one that its summary was made from, have no row.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep: its runs and targets, on its
            number of test examples. None for every completed run, on all examples it was evaluated on.

    Raises:
        UserError: There is no such sweep.
    """
    import pandas as pd

    results = Path(results_dir)
    with RunIndex(results) as index:
        rows = list(_every_row(index) if sweep is None else _asked_rows(index, asked_by(results, sweep)))
    columns = dict.fromkeys(_COLUMNS)
    for row in rows:
        columns |= row
    frame = pd.DataFrame(rows, columns=list(columns))
    # pandas' own string type would turn the None of `base` into NaN.
    frame["source"] = pd.Series([row["source"] for row in rows], dtype=object, index=frame.index)
    return frame


def _every_row(index: RunIndex) -> Iterator[dict[str, Any]]:
    for run_id in index.run_ids():
        found = index.recorded(run_id)
        if found.summary is not None and found.run is not None:
            yield from _rows(run_id, found, found.run["job"]["sweep"], found.summary["evaluations"], None)


def _asked_rows(index: RunIndex, asked: Asked) -> Iterator[dict[str, Any]]:
    # Cells that share a run share its rows; the first one's settings stand.
    seen: set[tuple[str, str]] = set()
    for cell in asked.cells:
        targets = [target for target in cell.targets if (cell.run_id, target) not in seen]
        seen.update((cell.run_id, target) for target in targets)
        if targets:
            for row in _rows(cell.run_id, index.recorded(cell.run_id), asked.name, targets, asked.evaluation):
                others = {key: value for key, value in cell.settings.items() if key not in row}
                yield row | others if others else row


def _rows(
    run_id: str, found: Recorded, sweep: str | None, targets: Iterable[str], asked: Evaluation | None
) -> Iterator[dict[str, Any]]:
    """The rows of a run; none for a target that is missing."""
    split: Split = "test" if asked is None else asked.table_split
    of_run = {} if found.run is None else _of_run(run_id, found.run, sweep)
    for target in targets if of_run else ():
        counted, verdicts = counted_in(found.summary, target, split, asked), found.of(target, split)
        if counted is not None and verdicts is not None and found.summary is not None:
            first = first_of(verdicts, split, asked)
            num_correct = verdicts.num_correct(first)
            yield of_run | {
                "target": target,
                "table": table_of(of_run["source"], target),
                "protocol": counted.get("protocol"),
                "num_examples": first,
                "num_correct": num_correct,
                "accuracy": num_correct / first,
                "format": verdicts.format_frac(first),
                "validation_accuracy": found.summary.get("train", {}).get(f"eval/{target}/accuracy"),
            }


def _of_run(run_id: str, run: Mapping[str, Any], sweep: str | None) -> dict[str, Any]:
    """What the rows of a run have in common."""
    spec, origin = run["spec"], run["provenance"]
    method = spec["method"]
    settings = leaves(method, "method.")
    del settings["method.type"]
    return {
        "run_id": run_id,
        "sweep": sweep,
        "method": method["type"],
        "source": spec["source"],
        "seed": spec["seed"],
        "model": spec["model"],
        "num_train": spec["num_train"],
        "format_weight": method.get("format_weight"),
        "schedule": (method.get("schedule") or {}).get("type"),
        "commit": origin["commit"],
        "dirty": origin["dirty"],
    } | settings
