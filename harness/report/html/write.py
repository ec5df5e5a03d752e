"""Writes a sweep's report: the page, and on request its static part as PDF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.record.atomic import write_text
from harness.report.figures.write import Written
from harness.report.html.contents import gather
from harness.report.html.page import render_page
from harness.report.html.pdf import find_browser, print_pdf

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

NUM_EXAMPLES = 200
"""Examples per target whose completions are shown, unless asked otherwise: as many as tables have by default."""


def write_report(
    results: str | Path,
    sweep: str | Sweep,
    out: str | Path | None = None,
    *,
    num_examples: int = NUM_EXAMPLES,
    pdf: bool = False,
    storage: str | None = None,
) -> Written:
    """Writes the report of a sweep over an earlier one; the same run folders give the same page.

    Args:
        results: The results folder.
        sweep: A loaded sweep, or the name of one on record.
        out: The page's file; by default `reports/<sweep>.html` in the results folder.
        num_examples: Examples per target whose completions are shown, the first ones.
        pdf: Whether to print its static part too, beside it with the suffix `.pdf`.
        storage: Of a study, a URL as Optuna takes it; by default its SQLite file in the results folder.

    Raises:
        UserError: There is no such sweep, no browser to print with, or the file cannot be written.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    browser = find_browser() if pdf else None
    contents = gather(results, sweep, num_examples=num_examples, storage=storage)
    file = Path(out) if out is not None else Path(results) / "reports" / f"{contents.name}.html"
    try:
        write_text(file, render_page(contents))
        files = [file]
        if browser is not None:
            static = gather(results, sweep, num_examples=0, storage=storage, is_static=True)
            files.append(file.with_suffix(".pdf"))
            print_pdf(browser, render_page(static, is_static=True), files[-1])
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    return Written(file.parent, tuple(files), contents.missing_run_ids)
