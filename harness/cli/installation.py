"""Verbs about this installation and its embedded policy."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.app import app, base
from harness.cli.options import RESULTS, Results


@app.command()
def doctor(
    results: Results = RESULTS,
    device: Annotated[
        str | None, typer.Option(metavar="DEVICE", help="Also hold a device's numbers beside the CPU's: cuda, cuda:1.")
    ] = None,
) -> None:
    """Looks at this machine and installation: versions, devices, the embedded policy, W&B, disk."""
    from harness.doctor import compare, examine

    healthy = True
    for finding in chain(examine(results), compare(device) if device else ()):
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
