"""The command line: verbs only. Each parses, calls one function and chooses the exit code.

Exit codes: 0 done; 1 our own fault, with a traceback; 2 the user's mistake, told in one sentence on stderr; 3 finished,
but runs failed or are missing. What a verb needs is imported inside it, so `--help` and `plan` stay quick.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from harness.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from harness.report.tables import TableRow
    from harness.spec.sweep import Sweep

MISTAKE = 2
INCOMPLETE = 3


class _Verbs(TyperGroup):
    """Tells a user's mistake in one sentence, whichever verb finds it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(MISTAKE) from None


app = typer.Typer(
    cls=_Verbs,
    name="harness",
    help="Trains vision-language models with SFT, GRPO and GRPO-D over a sweep, and answers with tables.",
    epilog="Exit codes: 0 done, 1 our fault, 2 your mistake, 3 finished but runs failed or are missing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
base = typer.Typer(cls=_Verbs, help="The embedded policy.", no_args_is_help=True)
app.add_typer(base, name="base")

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
RESULTS = Path("results")


def _print_version(wanted: bool) -> None:
    if wanted:
        from harness import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="The version.")
    ] = False,
) -> None:
    pass


@app.command()
def plan(sweep: SweepFile, overrides: Overrides = None, results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Shows the runs of a sweep and where each one stands; starts nothing."""
    from harness.launch.plan import make_plan

    folder = _existing(results)
    planned = make_plan(_known(sweep, overrides, folder), folder)
    if as_json:
        _print_json(planned.as_json())
    else:
        planned.print(_console())


@app.command()
def run(
    sweep: SweepFile,
    overrides: Overrides = None,
    results: Results = RESULTS,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time; by default one per GPU, or per two CPU cores.")
    ] = None,
    wandb: Annotated[bool, typer.Option(help="Mirror the runs to W&B; offline unless logged in.")] = True,
    retry_failed: Annotated[bool, typer.Option(help="Try runs again that failed before.")] = True,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between two checkpoints; 0 for none but on interruption.")
    ] = 25,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Of a study, for Optuna; by default SQLite with the results.")
    ] = None,
) -> None:
    """Trains and evaluates what a sweep lacks, then prints its tables. Can be interrupted and run again."""
    from harness.launch.driver import run_sweep
    from harness.record.sweep_record import with_recorded_trials
    from harness.report.tables import build_tables

    loaded = _load(sweep, overrides)
    _writable(results)
    outcome = run_sweep(
        loaded,
        results,
        slots=slots,
        wandb=wandb,
        retry_failed=retry_failed,
        console=_console(stderr=True),
        checkpoint_every=checkpoint_every,
        storage=storage,
    )
    loaded = with_recorded_trials(loaded, results)
    _print_tables(build_tables(results, loaded), "text")
    if loaded.study is not None:
        from harness.report.winners import find_winners, winner_lines

        winners = find_winners(loaded, results, storage, partial=True)
        typer.echo("\n" + "\n".join(winner_lines(winners, loaded.study.objectives)))
    typer.echo(f"\n{_runs(len(loaded.runs))} in {results / 'runs'}, on record as {loaded.name}")
    if wandb:
        offline = results / "runs" / "*" / "wandb" / "offline-run-*"
        typer.echo(f"W&B files of each run in its folder; to upload what was logged offline: wandb sync {offline}")
    if outcome.num_failed or outcome.num_pending:
        lacking = {"failed": outcome.num_failed, "pending": outcome.num_pending}
        counts = ", ".join(f"{count} {status}" for status, count in lacking.items() if count)
        what = "interrupted; " if outcome.interrupted else ""
        typer.echo(f"{what}{counts}: the same command goes on, `harness status` tells more", err=True)
        raise typer.Exit(INCOMPLETE)


@app.command()
def tune(
    sweep: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep file with a study.")],
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; by default <sweep>_tuned.yaml beside the sweep file.")
    ] = None,
    num_seeds: Annotated[int, typer.Option(min=1, help="Seeds of the written sweep, none of them the search's.")] = 3,
    slots: Annotated[
        int | None, typer.Option(min=1, help="Runs at the same time; by default one per GPU, or per two CPU cores.")
    ] = None,
    wandb: Annotated[bool, typer.Option(help="Mirror the runs to W&B; offline unless logged in.")] = True,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Of the study, for Optuna; by default SQLite in the results folder."),
    ] = None,
) -> None:
    """Searches a study to its end and writes the winners as a sweep file: test split, fresh seeds, provenance."""
    from harness.launch.driver import run_sweep
    from harness.record.provenance import provenance
    from harness.report.winners import find_winners, tuned_sweep, winner_lines

    loaded = _load(sweep, None)
    if loaded.study is None:
        raise UserError(f"{sweep} has no study: there is nothing to tune")
    file = out or loaded.path.with_name(f"{loaded.path.stem}_tuned.yaml")
    _writable(results)
    outcome = run_sweep(loaded, results, slots=slots, wandb=wandb, console=_console(stderr=True), storage=storage)
    if outcome.num_failed or outcome.num_pending:
        typer.echo("the search is not over: the same command goes on, `harness status` tells more", err=True)
        raise typer.Exit(INCOMPLETE)
    winners = find_winners(loaded, results, storage)
    file.write_text(tuned_sweep(loaded, winners, num_seeds, provenance()))
    typer.echo("\n".join(winner_lines(winners, loaded.study.objectives)))
    typer.echo(f"written to {file}")


@app.command()
def status(
    sweep: Annotated[str | None, typer.Argument(metavar="SWEEP", help="A sweep file; without it, every run.")] = None,
    overrides: Overrides = None,
    results: Results = RESULTS,
    as_json: AsJson = False,
) -> None:
    """Shows how far runs are, and why one failed."""
    from harness.launch.status import all_status, print_status, sweep_status

    if sweep is None and overrides:
        raise UserError("--set changes a sweep: name the sweep file too")
    folder = _existing(results)
    rows = all_status(folder) if sweep is None else sweep_status(_known(sweep, overrides, folder), folder)
    if as_json:
        _print_json([row.as_json() for row in rows])
    else:
        print_status(rows, _console())


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

    folder = _existing(results)
    _print_tables(build_tables(folder, _load_or_name(sweep, overrides)), form, strict=True)


@app.command()
def figures(
    sweep: SweepOrName,
    overrides: Overrides = None,
    results: Results = RESULTS,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to; by default figures/<sweep> in the results folder.")
    ] = None,
    formats: Annotated[str, typer.Option(metavar="LIST", help="Of png, svg and pdf, with commas between.")] = "png",
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Of a study, for Optuna; by default SQLite with the results.")
    ] = None,
) -> None:
    """Draws a sweep's ablations, curves, tables, schedules and study; the numbers of each figure beside it as CSV."""
    from harness.report.figures.style import checked_formats
    from harness.report.figures.write import write_figures

    kinds, folder = checked_formats(formats), _existing(results)
    written = write_figures(folder, _load_or_name(sweep, overrides), out, formats=kinds, storage=storage)
    for file in written.files:
        typer.echo(str(file))
    if written.missing_run_ids:
        missing = written.missing_run_ids
        typer.echo(f"{_runs(len(missing))} missing: {', '.join(missing)}", err=True)
        raise typer.Exit(INCOMPLETE)


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

    answers = judge_claims(_existing(results), _load(sweep, overrides))
    typer.echo(render_claims(answers, form))
    missing = missing_run_ids(answers)
    if missing:
        typer.echo(f"{_runs(len(missing))} missing: {', '.join(missing)}", err=True)
        raise typer.Exit(INCOMPLETE)


@app.command()
def export(
    sweep: SweepFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")],
    overrides: Overrides = None,
    results: Results = RESULTS,
) -> None:
    """Writes a sweep's tables, claims, figures and the verdicts behind them as a few small files."""
    from harness.report.export import export_sweep

    folder = _existing(results)
    for file in export_sweep(folder, _load(sweep, overrides), out):
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
        _print_json(report.as_json())
    else:
        typer.echo(report.line())


@app.command()
def doctor(results: Results = RESULTS) -> None:
    """Looks at this machine and installation: versions, devices, the embedded policy, W&B, disk."""
    from harness.doctor import examine

    healthy = True
    for finding in examine(results):
        healthy = healthy and not finding.is_problem
        typer.echo(finding.line())
    if not healthy:
        raise typer.Exit(1)


@base.command("build")
def base_build(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to; by default ./embedded-rebuilt.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; by default the recipe's.")] = None,
) -> None:
    """Trains the embedded policy from nothing, by the recipe in its card."""
    from harness.base_build import build

    build(out, num_steps=steps)


def _load(sweep: str, overrides: list[str] | None) -> Sweep:
    from harness.spec.sweep import load_sweep

    return load_sweep(sweep, overrides or ())


def _load_or_name(sweep: str, overrides: list[str] | None) -> Sweep | str:
    """A sweep file, or what must be the name of a sweep on record."""
    is_name = not overrides and not Path(sweep).exists() and Path(sweep).suffix not in (".yaml", ".yml")
    return sweep if is_name else _load(sweep, overrides)


def _known(sweep: str, overrides: list[str] | None, results: Path) -> Sweep:
    """A sweep with those trials of its search that are on record."""
    from harness.record.sweep_record import with_recorded_trials

    return with_recorded_trials(_load(sweep, overrides), results)


def _existing(results: Path) -> Path:
    """A results folder to read from; one that is not there yet is empty, not wrong."""
    if results.exists() and not results.is_dir():
        raise UserError(f"--results {results}: not a folder")
    return results


def _writable(results: Path) -> None:
    try:
        results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--results {results}: {(error.strerror or str(error)).lower()}") from None


def _print_tables(rows: list[TableRow], form: str, *, strict: bool = False) -> None:
    """Prints tables; `strict` names the runs they lack on stderr and exits with 3."""
    from harness.report.render import render_tables
    from harness.report.tables import missing_run_ids

    typer.echo(render_tables(rows, form))
    missing = missing_run_ids(rows)
    if strict and missing:
        typer.echo(f"{_runs(len(missing))} missing: {', '.join(missing)}", err=True)
        raise typer.Exit(INCOMPLETE)


def _runs(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"


def _console(*, stderr: bool = False) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
