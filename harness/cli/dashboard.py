"""Verbs about W&B: publishing what is missing there, a sweep's workspace and its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from harness.cli.app import INCOMPLETE, wandb
from harness.cli.options import RESULTS, Overrides, Results, SweepOrName, existing, load_or_name, print_json, runs_text
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.record.folder import RunFolder
    from harness.record.mirror.publication import Destination
    from harness.record.mirror.sync import Synced

Project = Annotated[str | None, typer.Option(metavar="NAME", help="Of W&B; by default WANDB_PROJECT, or harness.")]
Entity = Annotated[str | None, typer.Option(metavar="NAME", help="Of W&B; by default WANDB_ENTITY, or your own.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the JSON that would be sent, and send nothing.")]

_LOGIN = "not logged in to W&B: run `wandb login`, or set WANDB_API_KEY"

_WORDS = {
    "there": "there already",
    "running": "still running, mirrored by its worker",
    "unfinished": "not finished, which offline files cannot hold",
    "not_started": "not started",
}


@wandb.command("sync")
def wandb_sync(
    sweep: Annotated[
        str | None, typer.Argument(metavar="SWEEP", help="A sweep file or name; without it, every run.")
    ] = None,
    overrides: Overrides = None,
    results: Results = RESULTS,
    project: Project = None,
    entity: Entity = None,
) -> None:
    """Publishes what W&B lacks, from the run folders. Can be run again; WANDB_MODE=offline writes files instead."""
    from harness.record.mirror.sync import sync
    from harness.tasks.example_pictures import ExamplePictures

    where = _destination(project, entity, "offline" if _offline_asked() else "online")
    folders = _folders(existing(results), sweep, overrides)
    done: list[Synced] = []
    with _told(where):
        for result in sync(folders, where, ExamplePictures):
            done.append(result)
            typer.echo(f"{len(done)}/{len(folders)} {result.run_id}: {_line(result)}")
    counts = Counter(result.outcome for result in done)
    told = [f"{count} {outcome.replace('_', ' ')}" for outcome, count in counts.items()]
    left = len(folders) - len(done)
    told += [f"{left} not tried"] if left else []
    typer.echo(f"{runs_text(len(folders))}: {', '.join(told) or 'nothing to do'}; {where.name}")
    if counts["failed"]:
        typer.echo("the same command goes on from there", err=True)
        raise typer.Exit(INCOMPLETE)


@wandb.command("workspace")
def wandb_workspace(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    project: Project = None,
    entity: Entity = None,
    dry_run: DryRun = False,
) -> None:
    """Saves a workspace for a sweep: methods compared, ablations, curves with seeds averaged, tables."""
    _view("workspace", sweep, overrides, results, project, entity, dry_run)


@wandb.command("report")
def wandb_report(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    project: Project = None,
    entity: Entity = None,
    dry_run: DryRun = False,
) -> None:
    """Saves a report for a sweep: its tables, the same from W&B, each ablation by itself, curves."""
    _view("report", sweep, overrides, results, project, entity, dry_run)


def _view(
    kind: Literal["workspace", "report"],
    sweep: str,
    overrides: list[str] | None,
    results: Path,
    project: str | None,
    entity: str | None,
    dry_run: bool,
) -> None:
    from harness.report.wandb_views import as_json, build, save

    folder = existing(results)
    asked = load_or_name(sweep, overrides)
    where = _destination(project, entity, None if dry_run else "online")
    built = build(kind, folder, asked, where)
    if dry_run:
        return print_json(as_json(built))
    name = asked if isinstance(asked, str) else asked.name
    with _told(where):
        url = save(kind, built, folder, name, where)
    typer.echo(f"{kind} of {name}: {url}")


def _destination(project: str | None, entity: str | None, needed: Literal["online", "offline"] | None) -> Destination:
    """Where W&B is; `needed` is the mode that the verb has use for, None for any."""
    from harness.record.mirror.login import wandb_mode
    from harness.record.mirror.publication import find_destination

    mode = wandb_mode()
    if needed == "online" and mode != "online":
        raise UserError(_LOGIN)
    # What is shown without a login is what a login would save.
    return find_destination("online" if needed is None else mode, project, entity)


@contextmanager
def _told(where: Destination) -> Iterator[None]:
    """Tells what W&B has against a call in one sentence."""
    from wandb.errors import Error
    from wandb.sdk.lib.service.service_connection import WandbApiFailedError

    try:
        yield
    except (Error, WandbApiFailedError) as error:
        raise UserError(f"W&B at {where.server}: {' '.join(str(error).split())}") from None


def _offline_asked() -> bool:
    return os.environ.get("WANDB_MODE") == "offline"


def _folders(results: Path, sweep: str | None, overrides: list[str] | None) -> list[RunFolder]:
    from harness.record.folder import RunFolder, run_folders
    from harness.report.collect import asked_by

    if sweep is None:
        if overrides:
            raise UserError("--set changes a sweep: name the sweep file too")
        return run_folders(results)
    cells = asked_by(results, load_or_name(sweep, overrides)).cells
    return [RunFolder(results, run_id) for run_id in dict.fromkeys(cell.run_id for cell in cells)]


def _line(result: Synced) -> str:
    if result.outcome == "failed":
        return f"failed: {result.error}"
    if result.outcome != "published":
        return _WORDS[result.outcome]
    targets = f" and {', '.join(result.evaluated)}" if result.evaluated else ""
    return f"{result.num_steps} steps{targets}; {result.where}"
