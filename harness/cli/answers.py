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
from harness.errors import UserError


@app.command()
def tables(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    form: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="text, markdown, csv, latex or json.")
    ] = "text",
    cell: Annotated[
        str | None,
        typer.Option("--explain", metavar="CELL", help="The runs behind METHOD/SOURCE/TARGET; text or json."),
    ] = None,
) -> None:
    """Prints a sweep's accuracies, same task and cross task, with intervals over seeds; published ones beside them."""
    from harness.report.tables import build_tables

    folder, asked = existing(results), load_or_name(sweep, overrides)
    if cell is None:
        print_tables(build_tables(folder, asked), form, strict=True)
        return
    from harness.report.explain import explain, explain_text

    if form not in ("text", "json"):
        raise UserError(f"--explain takes --format text or json, not '{form}'")
    explained = explain(folder, asked, cell)
    if form == "json":
        print_json([one.as_json() for one in explained])
    else:
        typer.echo(explain_text(explained))


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
def report(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; by default reports/<sweep>.html with the results.")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf", help="Print the static part too, as PDF beside it.")] = False,
    num_examples: Annotated[
        int, typer.Option("--examples", min=1, metavar="N", help="Examples per target with their completions.")
    ] = 200,
    storage: Storage = None,
) -> None:
    """Writes one HTML file: question, answer, tables, figures, runs and a browser of completions; needs no network."""
    from harness.report.html.write import write_report

    folder, asked = existing(results), load_or_name(sweep, overrides)
    written = write_report(folder, asked, out, num_examples=num_examples, pdf=pdf, storage=storage)
    for file in written.files:
        typer.echo(f"{file}  {file.stat().st_size / 1e6:.1f} MB")
    end_if_missing(written.missing_run_ids)


@app.command()
def export(
    sweep: SweepFile,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="The folder to write to.")] = None,
    exported: Annotated[
        Path | None,
        typer.Option("--from", metavar="DIR", help="Computes the answers of this export again, in place or to --out."),
    ] = None,
    overrides: Overrides = None,
    results: Results = RESULTS,
) -> None:
    """Writes a sweep's tables, claims, figures and the verdicts behind them as a few small files."""
    from harness.report.export import export_sweep
    from harness.report.refresh import refresh_export

    loaded = load(sweep, overrides)
    if exported is not None:
        files = refresh_export(exported, loaded, out)
    elif out is not None:
        files = export_sweep(existing(results), loaded, out)
    else:
        raise UserError("export needs --out DIR to write to, or --from DIR to compute an export again")
    for file in files:
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
