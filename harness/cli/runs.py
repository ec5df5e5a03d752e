"""Verbs about runs: what a sweep would do, does, and where it stands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import INCOMPLETE, app
from harness.cli.options import (
    RESULTS,
    AsJson,
    ExecutorType,
    Overrides,
    Results,
    RetryFailed,
    Slots,
    Storage,
    SweepFile,
    Tensorboard,
    Wandb,
    check_tensorboard,
    console,
    existing,
    known,
    load,
    load_or_name,
    on_executor,
    print_json,
    print_tables,
    runs_text,
    with_slots,
    writable,
)
from harness.cli.stored import check_data
from harness.errors import UserError

MANY_RUNS = 1000
"""Of a sweep with more, `run` prints no tables: their intervals take longer than finding that nothing is to do."""


@app.command()
def plan(
    sweep: SweepFile,
    overrides: Overrides = None,
    results: Results = RESULTS,
    slots: Slots = None,
    executor: ExecutorType = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="First measure the kinds of runs that nothing is known of.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Shows the runs of a sweep, where each one stands, and what is left in time and memory; starts nothing."""
    from harness.launch.plan import make_plan, with_estimates
    from harness.record.index import RunIndex

    folder = existing(results)
    loaded = with_slots(on_executor(known(sweep, overrides, folder), executor), slots)
    if calibrate:
        from harness.launch.estimate.calibrate import calibrate_kinds

        writable(results)
        calibrate_kinds(loaded, results, console(stderr=True))
    with RunIndex(folder) as index:
        planned = with_estimates(make_plan(loaded, folder, index), loaded, folder, index)
    if as_json:
        print_json(planned.as_json())
    else:
        planned.print(sys.stdout)


@app.command()
def run(
    sweep: SweepFile,
    overrides: Overrides = None,
    results: Results = RESULTS,
    slots: Slots = None,
    wandb: Wandb = True,
    tensorboard: Tensorboard = False,
    executor: ExecutorType = None,
    retry_failed: RetryFailed = False,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between two checkpoints; 0 for none but on interruption.")
    ] = 25,
    storage: Storage = None,
) -> None:
    """Trains and evaluates what a sweep lacks, then prints its tables. Can be interrupted and run again."""
    from harness.launch.driver import run_sweep
    from harness.record.sweep_record import with_recorded_trials
    from harness.report.tables import build_tables

    check_tensorboard(tensorboard)
    loaded = on_executor(load(sweep, overrides), executor)
    check_data(loaded)
    writable(results)
    outcome = run_sweep(
        loaded,
        results,
        slots=slots,
        wandb=wandb,
        tensorboard=tensorboard,
        retry_failed=retry_failed,
        console=console(stderr=True),
        checkpoint_every=checkpoint_every,
        storage=storage,
    )
    loaded = with_recorded_trials(loaded, results)
    if len(loaded.runs) <= MANY_RUNS:
        print_tables(build_tables(results, loaded), "text")
    else:
        typer.echo(f"the tables of so many runs take their time: harness tables {sweep}")
    if loaded.study is not None:
        from harness.report.winners import find_winners, winner_lines

        winners = find_winners(loaded, results, storage, partial=True)
        typer.echo("\n" + "\n".join(winner_lines(winners, loaded.study.objectives)))
    typer.echo(f"\n{runs_text(len(loaded.runs))} in {results / 'runs'}, on record as {loaded.name}")
    if wandb:
        place = "" if results == RESULTS else f" --results {results}"
        typer.echo(f"what W&B lacks of them, such as runs made offline: harness wandb sync {loaded.name}{place}")
    if outcome.num_failed or outcome.num_pending:
        lacking = {"failed": outcome.num_failed, "pending": outcome.num_pending}
        counts = ", ".join(f"{count} {status}" for status, count in lacking.items() if count)
        what = "interrupted; " if outcome.interrupted else ""
        again = "with --retry-failed they are tried again" if outcome.num_failed else "the same command goes on"
        typer.echo(f"{what}{counts}: {again}, `harness status` tells more", err=True)
        raise typer.Exit(INCOMPLETE)


@app.command()
def tune(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file with a study.")],
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; by default <sweep>_tuned.yaml beside the sweep file.")
    ] = None,
    num_seeds: Annotated[int, typer.Option(min=1, help="Seeds of the written sweep, none of them the search's.")] = 3,
    slots: Slots = None,
    executor: ExecutorType = None,
    retry_failed: RetryFailed = False,
    wandb: Wandb = True,
    storage: Storage = None,
) -> None:
    """Searches a study to its end and writes the winners as a sweep file: test split, fresh seeds, provenance."""
    from harness.launch.driver import run_sweep
    from harness.record.provenance import provenance
    from harness.report.winners import find_winners, tuned_sweep, winner_lines

    loaded = load(sweep, None)
    if loaded.study is None:
        raise UserError(f"{sweep} has no study: there is nothing to tune")
    check_data(loaded)
    file = out or loaded.path.with_name(f"{loaded.path.stem}_tuned.yaml")
    writable(results)
    outcome = run_sweep(
        on_executor(loaded, executor),
        results,
        slots=slots,
        wandb=wandb,
        retry_failed=retry_failed,
        console=console(stderr=True),
        storage=storage,
    )
    if outcome.num_failed or outcome.num_pending:
        typer.echo("the search is not over: the same command goes on, `harness status` tells more", err=True)
        raise typer.Exit(INCOMPLETE)
    winners = find_winners(loaded, results, storage)
    file.write_text(tuned_sweep(loaded, winners, num_seeds, provenance()))
    typer.echo("\n".join(winner_lines(winners, loaded.study.objectives)))
    typer.echo(f"written to {file}")


@app.command()
def status(
    sweep: Annotated[
        str | None,
        typer.Argument(metavar="SWEEP", help="A sweep file, or the name of a sweep on record; without it, every run."),
    ] = None,
    overrides: Overrides = None,
    results: Results = RESULTS,
    once: Annotated[bool, typer.Option("--once", help="Print where runs stand, and end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Shows how far runs are, and why one failed: live on a terminal until q is pressed, else once."""
    from harness.launch.status.looks import look_around, print_look

    if sweep is None and overrides:
        raise UserError("--set changes a sweep: name the sweep file too")
    folder = existing(results)
    asked = None if sweep is None else load_or_name(sweep, overrides)
    if asked is not None and not isinstance(asked, str):
        from harness.record.sweep_record import with_recorded_trials

        asked = with_recorded_trials(asked, folder)
    if sys.stdout.isatty() and not once and not as_json:
        from harness.launch.status.live import watch

        watch(folder, asked, console())
        return
    look = look_around(folder, asked)
    if as_json:
        print_json(look.as_json())
    else:
        print_look(look, sys.stdout)
