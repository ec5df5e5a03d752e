"""Verbs that end or remove what sweeps have begun."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.cli.app import INCOMPLETE, app
from harness.cli.options import RESULTS, Overrides, Results, SweepOrName, existing, run_ids_of, runs_text
from harness.errors import UserError


@app.command()
def stop(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    wait: Annotated[bool, typer.Option(help="Wait until everything has ended.")] = True,
) -> None:
    """Asks a sweep's drivers and workers to save and end, wherever they run; the sweep can be run on later."""
    from harness.launch.stopping import stop_sweep, wait_for_end

    folder = existing(results)
    name, run_ids = run_ids_of(sweep, overrides, folder)
    stopped = stop_sweep(folder, name, run_ids)
    if stopped.nobody:
        typer.echo(f"{name}: nothing is running")
        return
    for driver in stopped.drivers:
        typer.echo(f"asked the driver with process {driver.process.pid} on {driver.process.host} to stop")
    if stopped.orphans:
        typer.echo(f"asked the workers of {runs_text(len(stopped.orphans))} without a driver to stop")
    if wait:
        wait_for_end(folder, stopped, lambda count: typer.echo(f"{count} still running" if count else "all ended"))


@app.command()
def clean(
    results: Results = RESULTS,
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="SWEEP", help="Only what belongs to the runs of this sweep.")
    ] = None,
    orphaned: Annotated[bool, typer.Option("--orphaned", help="Runs that no sweep on record asks for.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Runs that failed.")] = False,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Runs whose settings have another run id by now.")
    ] = False,
    weights: Annotated[bool, typer.Option("--weights", help="Trained weights of completed runs.")] = False,
    leftovers: Annotated[
        bool,
        typer.Option("--leftovers", help="Quarantined and unfinished files, what dead drivers and SLURM jobs left."),
    ] = False,
    older_than: Annotated[
        float, typer.Option(min=0, metavar="DAYS", help="Only what was last written so many days ago.")
    ] = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
) -> None:
    """Shows what could be removed, and removes it when told to; without a kind, shows the size of every kind."""
    from harness.launch.cleaning import CATEGORIES, Category, find_removable, remove

    folder = existing(results)
    asked: dict[Category, bool] = {
        "orphaned": orphaned,
        "failed": failed,
        "superseded": superseded,
        "weights": weights,
        "leftovers": leftovers,
    }
    chosen = [category for category, wanted in asked.items() if wanted]
    run_ids = None if sweep is None else set(run_ids_of(sweep, None, folder)[1])
    if not chosen:
        if yes:
            raise UserError("--yes removes nothing by itself: say what, such as --failed or --weights")
        found = find_removable(folder, CATEGORIES, older_than_s=older_than * 86400, run_ids=run_ids, every_reason=True)
        for category, meaning in CATEGORIES.items():
            sizes = [one.size for one in found if one.category == category]
            typer.echo(f"--{category:<11} {len(sizes):>6}  {_bytes(sum(sizes)):>10}  {meaning}")
        return
    found = find_removable(folder, chosen, older_than_s=older_than * 86400, run_ids=run_ids)
    if not found:
        typer.echo("nothing to remove")
        return
    for one in found:
        typer.echo(f"{one.category:<11} {_bytes(one.size):>10}  {one.path.relative_to(folder)}")
    total = f"{len(found)} to remove, {_bytes(sum(one.size for one in found))}"
    if not yes:
        typer.echo(total)
        typer.confirm("remove them?", abort=True)
    freed, left = remove(folder, found)
    typer.echo(f"removed, {_bytes(freed)} set free")
    if left:
        typer.echo(f"left alone, because somebody works on them: {', '.join(left)}", err=True)
        raise typer.Exit(INCOMPLETE)


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
