"""What an export answers, computed again from the verdicts that it holds: tables, claims, and figures of accuracies."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness.errors import UserError
from harness.record.atomic import read_json, write_text
from harness.report.claims import judge_claims
from harness.report.export import restore
from harness.report.figures.cross_task import cross_task_figure
from harness.report.figures.data import read_sweep_data
from harness.report.figures.same_task import same_task_figure
from harness.report.figures.tradeoffs import cost_figure
from harness.report.figures.write import write_drawn
from harness.report.render import render_tables
from harness.report.render_claims import render_claims
from harness.spec.sweep import Sweep

_FORMS = (("json", "json"), ("markdown", "md"))


def refresh_export(exported: str | Path, sweep: Sweep, out: str | Path | None = None) -> list[Path]:
    """Computes the tables and claims of an export again, and those of its figures that show accuracies alone.

    An export holds no metrics, so figures of training are not made again; nor is a figure that it does not hold.

    Args:
        exported: The folder of an export.
        sweep: The sweep that it is of, for its claims.
        out: The folder to write to; by default over the old ones.

    Returns:
        The files written.

    Raises:
        UserError: The export is another sweep's.
        DataError: The export is not whole.
    """
    folder = Path(out if out is not None else exported)
    texts: dict[str, str] = {}
    files: list[Path] = []
    with tempfile.TemporaryDirectory() as results:
        restore(exported, results)
        name = read_json(Path(exported) / "sweep.json")["name"]
        if name != sweep.name:
            raise UserError(f"{exported} is an export of '{name}', not of '{sweep.name}'")
        data = read_sweep_data(results, name)
        texts |= {f"tables.{end}": render_tables(data.rows, form) for form, end in _FORMS}
        if sweep.claims:
            answers = judge_claims(results, sweep)
            texts |= {f"claims.{end}": render_claims(answers, form) for form, end in _FORMS}
        for drawn in (same_task_figure(data), cross_task_figure(data), cost_figure(data)):
            if drawn is not None and (Path(exported) / "figures" / f"{drawn.name}.csv").is_file():
                files += write_drawn(drawn, folder / "figures", ("png",))
    for file, text in texts.items():
        write_text(folder / file, text + "\n")
    return [*(folder / file for file in texts), *files]
