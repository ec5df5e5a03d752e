"""Verbs to look closer: one run, two runs or sweeps side by side, the examples of a task."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from harness.cli.app import app
from harness.cli.options import RESULTS, AsJson, Results, existing, load_or_name, print_json
from harness.errors import UserError, nearest, shortened

if TYPE_CHECKING:
    from harness.spec.methods import Split

_SPLITS = ("train", "validation", "test")


@app.command()
def show(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run id, the beginning of one, or a run folder.")],
    results: Results = RESULTS,
    num: Annotated[int, typer.Option("--n", min=0, help="Samples of each kind.")] = 3,
    as_json: AsJson = False,
) -> None:
    """Shows one run: settings of its own, training curves, evaluation, samples."""
    from harness.launch.table import print_line
    from harness.report.show import read_shown, show_lines

    shown = read_shown(existing(results), run, num_samples=num)
    if as_json:
        print_json(shown.as_json())
        return
    for line in show_lines(shown):
        print_line(sys.stdout, line.text, line.style)


@app.command()
def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="A run, a sweep file, or the name of a sweep on record.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one of the same kind.")],
    results: Results = RESULTS,
    num: Annotated[int, typer.Option("--n", min=0, help="Examples shown of those they disagree on.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Compares two runs or two sweeps: settings that differ, metrics, examples on which they disagree."""
    from harness.report.compare import compare_runs, compare_sweeps
    from harness.report.render_compare import render_compared

    folder = existing(results)
    kinds = [_is_sweep(name, folder) for name in (a, b)]
    if kinds[0] != kinds[1]:
        sweep, run = (a, b) if kinds[0] else (b, a)
        raise UserError(f"'{sweep}' is a sweep and '{run}' a run: compare two of one kind")
    if kinds[0]:
        found = compare_sweeps(folder, load_or_name(a, None), load_or_name(b, None))
    else:
        found = compare_runs(folder, a, b)
    if as_json:
        print_json(found.as_json())
    else:
        typer.echo(render_compared(found, num_examples=num))


def _is_sweep(name: str, results: Path) -> bool:
    """Whether a name is a sweep's rather than a run's.

    Raises:
        UserError: It is nobody's.
    """
    from harness.record.folder import run_folders
    from harness.record.sweep_record import sweep_names

    if name.endswith((".yaml", ".yml")) or os.path.isfile(name) or name in sweep_names(results):
        return True
    ids = [folder.run_id for folder in run_folders(results)]
    if os.path.isdir(name) or any(run_id.startswith(name) for run_id in ids):
        return False
    known = [*ids, *sweep_names(results)]
    hint = nearest(name, known) if known else "the results folder is empty"
    if hint.startswith("allowed"):
        hint = "`harness status` lists the runs"
    raise UserError(f"'{shortened(name)}' is no run and no sweep on record in {results}, and no sweep file: {hint}")


@app.command()
def examples(
    task: Annotated[str, typer.Argument(metavar="TASK", help="The name of a task, or the path of stored rows.")],
    num: Annotated[int, typer.Option("--n", min=1, max=200, help="How many.")] = 12,
    split: Annotated[str, typer.Option(metavar="SPLIT", help="train, validation or test.")] = "test",
    first: Annotated[int, typer.Option(metavar="INDEX", min=0, help="The first one's index.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .png, .svg or .pdf; by default <task>_<split>.png.")
    ] = None,
) -> None:
    """Draws examples of a task with their questions and answers on one sheet."""
    from harness.report.contact_sheet import write_contact_sheet
    from harness.spec.data import task_name

    if split not in _SPLITS:
        raise UserError(f"--split: unknown split '{split}': {nearest(split, _SPLITS)}")
    path = out if out is not None else Path(f"{task_name(task)}_{split}.png")
    typer.echo(str(write_contact_sheet(task, path, split=cast("Split", split), num_examples=num, first=first)))
