"""What several verbs share: their options, and the sweeps, folders and consoles that these stand for."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli.app import INCOMPLETE
from harness.errors import UserError, shortened

if TYPE_CHECKING:
    from rich.console import Console

    from harness.report.tables import TableRow
    from harness.spec.sweep import Sweep

SweepOrName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, or the name of a sweep on record.")]
SweepFile = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file, such as sweeps/quickstart.yaml.")]
Results = Annotated[Path, typer.Option("--results", metavar="DIR", help="The results folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Replaces a setting of the sweep; a list makes an axis. Repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
Slots = Annotated[
    int | None, typer.Option(min=1, help="Runs at the same time; by default as memory and CPU cores allow.")
]
ExecutorType = Annotated[
    Literal["local", "ray", "slurm"] | None, typer.Option(help="Where runs run, in place of the sweep's `executor`.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try runs again that failed in an earlier invocation.")
]
Wandb = Annotated[bool, typer.Option(help="Mirror the runs to W&B; offline unless logged in.")]
Tensorboard = Annotated[bool, typer.Option("--tensorboard", help="Write event files for TensorBoard too.")]
Storage = Annotated[
    str | None, typer.Option(metavar="URL", help="Of a study, for Optuna; by default SQLite with the results.")
]
RESULTS = Path("results")


def load(sweep: str, overrides: list[str] | None) -> Sweep:
    """A sweep file with the `--set` options in it."""
    from harness.spec.sweep import load_sweep

    return load_sweep(sweep, overrides or ())


def on_executor(sweep: Sweep, executor: str | None) -> Sweep:
    """A sweep on another executor than its own, with those of its `executor` settings that the other has too."""
    from harness.spec.executor import executor_of_type

    if executor is None or executor == sweep.executor.type:
        return sweep
    return dataclasses.replace(sweep, executor=executor_of_type(sweep.executor, executor))


def with_slots(sweep: Sweep, slots: int | None) -> Sweep:
    """A sweep with another number of runs at the same time."""
    if slots is None:
        return sweep
    return dataclasses.replace(sweep, executor=sweep.executor.model_copy(update={"slots": slots}))


def load_or_name(sweep: str, overrides: list[str] | None) -> Sweep | str:
    """A sweep file, or what must be the name of a sweep on record."""
    is_name = not overrides and not os.path.exists(sweep) and Path(sweep).suffix not in (".yaml", ".yml")
    return sweep if is_name else load(sweep, overrides)


def known(sweep: str, overrides: list[str] | None, results: Path) -> Sweep:
    """A sweep with those trials of its search that are on record."""
    from harness.record.sweep_record import with_recorded_trials

    return with_recorded_trials(load(sweep, overrides), results)


def run_ids_of(sweep: str, overrides: list[str] | None, results: Path) -> tuple[str, list[str]]:
    """The name and the runs of a sweep file, or of a sweep on record."""
    from harness.record.sweep_record import read_sweep_record

    loaded = load_or_name(sweep, overrides)
    if isinstance(loaded, str):
        record = read_sweep_record(results, loaded)
        return loaded, list(dict.fromkeys(cell["run_id"] for cell in record["cells"]))
    loaded = known(sweep, overrides, results)
    return loaded.name, list(loaded.runs)


def existing(results: Path) -> Path:
    """A results folder to read from; one that is not there yet is empty, not wrong."""
    if os.path.exists(results) and not os.path.isdir(results):
        raise UserError(f"--results {results}: not a folder")
    return results


def writable(results: Path) -> None:
    """Makes a results folder to write to, or says why it cannot be one."""
    try:
        results.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"--results {shortened(str(results), 200)}: {reason.lower()}") from None


def check_tensorboard(wanted: bool) -> None:
    """Says how TensorBoard is installed where it is wanted and is not."""
    if wanted and importlib.util.find_spec("tensorboard") is None:
        raise UserError("TensorBoard is not installed: pip install 'grpo-d-harness[tensorboard]'")


def print_tables(rows: list[TableRow], form: str, *, strict: bool = False) -> None:
    """Prints tables; `strict` names the runs they lack on stderr and exits with 3."""
    from harness.report.render import render_tables
    from harness.report.tables import missing_run_ids

    typer.echo(render_tables(rows, form))
    if strict:
        end_if_missing(missing_run_ids(rows))


def end_if_missing(run_ids: Sequence[str]) -> None:
    """Names the runs that an answer lacks on stderr and exits with 3; does nothing where it lacks none."""
    if run_ids:
        typer.echo(f"{runs_text(len(run_ids))} missing: {', '.join(run_ids)}", err=True)
        raise typer.Exit(INCOMPLETE)


def runs_text(count: int) -> str:
    """A number of runs in words."""
    return "1 run" if count == 1 else f"{count} runs"


def console(*, stderr: bool = False) -> Console:
    """For tables and progress; made here, because rich takes its time to import."""
    from rich.console import Console

    return Console(stderr=stderr)


def print_json(value: Any) -> None:
    """Prints a value for programs."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
