"""The command, and how it tells a mistake."""

from __future__ import annotations

import gc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from harness.errors import UserError

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
data = typer.Typer(cls=_Verbs, help="Stored rows as tasks.", no_args_is_help=True)
app.add_typer(data, name="data")
wandb = typer.Typer(cls=_Verbs, help="The dashboard: what W&B lacks, workspaces, reports.", no_args_is_help=True)
app.add_typer(wandb, name="wandb")


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
    # Up to a million records that have no cycles, in a process that ends soon: the collector would walk all of them
    # again and again.
    gc.set_threshold(200_000)
