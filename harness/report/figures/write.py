"""Draws what a sweep's runs support, and writes each figure with the numbers in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.record.atomic import write_text
from harness.report.curves import WINDOW
from harness.report.figures.ablation import ablation_figures
from harness.report.figures.cross_task import cross_task_figure
from harness.report.figures.curves import curves_figure
from harness.report.figures.data import SweepData, read_sweep_data
from harness.report.figures.drawn import Drawn
from harness.report.figures.same_task import same_task_figure
from harness.report.figures.schedules import schedules_figure
from harness.report.figures.study import study_figures
from harness.report.figures.style import save
from harness.report.figures.tradeoffs import cost_figure, kl_figure

if TYPE_CHECKING:
    import pandas as pd

    from harness.spec.sweep import Sweep


@dataclass(frozen=True)
class Written:
    """What a call wrote.

    Attributes:
        folder: Where to.
        files: The figures and their numbers, in the order of drawing.
        missing_run_ids: The runs that the figures lack.
    """

    folder: Path
    files: tuple[Path, ...]
    missing_run_ids: tuple[str, ...]


def write_figures(
    results_dir: str | Path,
    sweep: str | Path | Sweep,
    out: str | Path | None = None,
    *,
    formats: Sequence[str] = ("png",),
    window: int = WINDOW,
    storage: str | None = None,
) -> Written:
    """Writes the figures of a sweep: `<name>.<format>` each, and `<name>.csv` with exactly the numbers plotted.

    Names: `ablation_<setting>` for each setting that the sweep varies within a method, `curves`, `same_task`,
    `cross_task`, `schedules`, `accuracy_kl`, `accuracy_cost`, and, where the sweep comes as a file with a study, those
    of :func:`harness.report.figures.study.study_figures`. A figure without any number is not written. The same run
    folders and trials give the same bytes. Where others published the accuracy of such a run, it is shown beside ours.

    Args:
        results_dir: The results folder.
        sweep: The name of a sweep on record, the path of a sweep file, or a loaded sweep.
        out: The folder to write to; by default `figures/<sweep>` in the results folder.
        formats: Among :data:`harness.report.figures.style.FORMATS`.
        window: Steps of the running mean of curves; 1 for none.
        storage: Of a study, a URL as Optuna takes it; by default its SQLite file in the results folder.

    Raises:
        UserError: There is no such sweep, the storage cannot be opened, or the folder cannot be written to.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    data = read_sweep_data(results_dir, sweep)
    folder = Path(out) if out is not None else Path(results_dir) / "figures" / data.asked.name
    files: list[Path] = []
    try:
        for drawn in chain(draw_figures(data, window=window), _draw_study(results_dir, sweep, storage)):
            files += write_drawn(drawn, folder, formats)
    except OSError as error:
        raise UserError(f"{folder}: {(error.strerror or str(error)).lower()}") from None
    return Written(folder, tuple(files), tuple(data.missing(data.run_ids)))


def write_drawn(drawn: Drawn, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Writes one figure in these formats, and its numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{drawn.name}.{suffix}" for suffix in formats]
    for file in files:
        save(drawn.figure, file)
    numbers = folder / f"{drawn.name}.csv"
    write_text(numbers, as_csv(drawn.numbers))
    return [*files, numbers]


def draw_figures(data: SweepData, *, window: int = WINDOW) -> Iterator[Drawn]:
    """The figures of a sweep, one after the other; arguments as in :func:`write_figures`."""
    yield from ablation_figures(data, window=window)
    of_all = (
        curves_figure(data, window=window),
        same_task_figure(data),
        cross_task_figure(data),
        schedules_figure(data),
        kl_figure(data),
        cost_figure(data),
    )
    yield from (drawn for drawn in of_all if drawn is not None)


def _draw_study(results_dir: str | Path, sweep: str | Path | Sweep, storage: str | None) -> Iterator[Drawn]:
    """The figures of a sweep's study; none of a sweep on record, which does not tell what was searched."""
    if isinstance(sweep, (str, Path)):
        if Path(sweep).suffix not in (".yaml", ".yml") and not Path(sweep).is_file():
            return
        from harness.spec.sweep import load_sweep

        sweep = load_sweep(sweep)
    yield from study_figures(results_dir, sweep, storage)


def as_csv(numbers: pd.DataFrame) -> str:
    """A figure's numbers as CSV, to ten digits; the run ids of a curve stand at its first step, not at all of them."""
    numbers = numbers.copy()
    if "step" in numbers:
        goes_on = (numbers["step"].diff() > 0).fillna(False) & (numbers["run_ids"] == numbers["run_ids"].shift())
        numbers.loc[goes_on, "run_ids"] = None
    return numbers.to_csv(index=False, lineterminator="\n", float_format="%.10g")
