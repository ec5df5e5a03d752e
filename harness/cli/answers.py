"""Verbs about answers: tables, figures, claims, their export, and scores of any completions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app
from harness.cli.options import (
    RESULTS,
    Overrides,
    Results,
    Storage,
    SweepFile,
    SweepOrName,
    end_if_missing,
    existing,
    load,
    load_or_name,
    print_json,
    print_tables,
)


@app.command()
def tables(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv, latex or json.")
    ] = "text",
) -> None:
    """Prints a sweep's accuracies, same task and cross task, with intervals over seeds."""
    from harness.report.tables import build_tables

    folder = existing(results)
    print_tables(build_tables(folder, load_or_name(sweep, overrides)), form, strict=True)


@app.command()
def figures(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; by default figures/<sweep> in the results folder.")
    ] = None,
    formats: Annotated[str, typer.Option(metavar="LIST", help="Of png, svg and pdf, with commas between.")] = "png",
    storage: Storage = None,
) -> None:
    """Draws a sweep's ablations, curves, tables, schedules and study; the numbers of each figure beside it as CSV."""
    from harness.report.figures.style import checked_formats
    from harness.report.figures.write import write_figures

    kinds, folder = checked_formats(formats), existing(results)
    written = write_figures(folder, load_or_name(sweep, overrides), out, formats=kinds, storage=storage)
    for file in written.files:
        typer.echo(str(file))
    end_if_missing(written.missing_run_ids)


@app.command()
def claims(
    sweep: SweepFile,
    overrides: Overrides = None,
    results: Results = RESULTS,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="text, markdown or json.")] = "text",
) -> None:
    """Judges a sweep's claims: supported, contradicted, undecided, or missing its runs."""
    from harness.report.claims import judge_claims, missing_run_ids
    from harness.report.render_claims import render_claims

    answers = judge_claims(existing(results), load(sweep, overrides))
    typer.echo(render_claims(answers, form))
    end_if_missing(missing_run_ids(answers))


@app.command()
def export(
    sweep: SweepFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")],
    overrides: Overrides = None,
    results: Results = RESULTS,
) -> None:
    """Writes a sweep's tables, claims, figures and the verdicts behind them as a few small files."""
    from harness.report.export import export_sweep

    folder = existing(results)
    for file in export_sweep(folder, load(sweep, overrides), out):
        typer.echo(str(file))


@app.command()
def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON or JSONL with `completion` and `solution`.")],
    protocol: Annotated[str, typer.Option(metavar="NAME", help="The rule: r1v_counting or r1v_geoqa.")],
    as_json: Annotated[bool, typer.Option("--json", help="A verdict per row, as JSON.")] = False,
    results: Annotated[
        Path, typer.Option("--results", metavar="DIR", help="Taken as every verb takes it; scoring reads FILE alone.")
    ] = RESULTS,
) -> None:
    """Scores completions that any model wrote under a published protocol."""
    from harness.tasks.protocols import load_protocol
    from harness.tasks.score import read_rows
    from harness.tasks.score import score as scored

    rule = load_protocol(protocol)
    report = scored(read_rows(file), rule)
    if as_json:
        print_json(report.as_json())
    else:
        typer.echo(report.line())
