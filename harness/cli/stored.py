"""Verbs about stored rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.app import MISTAKE, data
from harness.cli.options import AsJson, print_json

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep
    from harness.tasks.base import Split

_SHOWN = 100
"""Problems printed; JSON has all."""


@data.command("check")
def data_check(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A file or folder of rows, a task file, or a task.")],
    protocol: Annotated[str | None, typer.Option(metavar="NAME", help="Check the answers against this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Reads every row and picture of a data set and lists all that is wrong; exit code 2 if anything is."""
    from harness.tasks.data.check import check

    found = check(path, protocol)
    if as_json:
        print_json(found.as_json())
    else:
        typer.echo("\n".join(found.lines(_SHOWN)))
    if found.problems:
        raise typer.Exit(MISTAKE)


def check_data(sweep: Sweep) -> None:
    """Looks at the stored rows that a sweep needs, pictures aside, before any run is started.

    Raises:
        UserError: Rows are missing or wrong, or there are fewer than the sweep asks for; the message names the first.
    """
    from harness.tasks.data.check import check_rows

    trained = {(cell.spec.source, cell.spec.num_train) for cell in sweep.cells if cell.spec.source is not None}
    wanted: dict[tuple[str, Split], int] = {(source, "train"): num for source, num in sorted(trained)}
    for target in sweep.targets:
        wanted |= {(target, split): sweep.evaluation.num(split) for split in sweep.evaluation.splits}
        if sweep.evaluation.every:
            wanted[target, "validation"] = sweep.evaluation.num_validation
    for (task, split), num in wanted.items():
        check_rows(task, split, num, sweep.data)
