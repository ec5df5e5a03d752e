"""What a report holds, gathered from the run folders; how it looks is :mod:`harness.report.html.page`'s."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.record.sweep_record import read_sweep_record
from harness.report.claims import ClaimAnswer, Verdict, judge_claims
from harness.report.figures.data import read_sweep_data
from harness.report.figures.drawn import Drawn
from harness.report.figures.study import study_figures
from harness.report.figures.style import method_color, save
from harness.report.figures.write import as_csv, draw_figures
from harness.report.grids import Grid, grids, notes
from harness.report.html.charts import curve_chart, schedule_chart
from harness.report.html.completions import Collection, read_collections
from harness.report.html.pack import data_uri
from harness.report.html.pictures import Pictures
from harness.report.html.runs import RunCard, read_run_cards
from harness.report.tables import missing_run_ids
from harness.report.winners import find_winners, winner_lines

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

FIGURE_TITLES: Mapping[str, str] = {
    "same_task": "Accuracy on the task trained on",
    "cross_task": "Accuracy on the other task",
    "accuracy_kl": "Accuracy against KL to the reference",
    "accuracy_cost": "Accuracy against cost",
    "curves": "Training curves",
    "schedules": "KL schedules",
    "study_slices": "What the search tried",
    "study_importances": "Which settings mattered",
    "study_parallel": "Trials across all settings",
    "study_front": "What the objectives cost each other",
}
"""By the names of :func:`harness.report.figures.write.write_figures`; another one is titled by its name."""

DRAWN_BY_SCRIPT = ("curves", "schedules")
"""Figures that a page with a script draws itself."""


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Of its files, where `harness figures` writes them.
        title: In words.
        image: An SVG as a data address.
        numbers: Exactly what it shows, as CSV in a data address; names the run ids.
    """

    name: str
    title: str
    image: str
    numbers: str


@dataclass(frozen=True)
class Contents:
    """A report.

    Attributes:
        name: The sweep's.
        question: What it asks.
        path: The sweep's file, as it was given.
        claims: Their answers; empty where the sweep claims nothing, None for a sweep on record, which has no claims.
        tables: Same task and cross task.
        table_notes: What to know of their numbers.
        figures: Of the sweep.
        study_figures: Of its search; empty without one.
        winners: Of that search, as lines of text.
        is_search: Whether the sweep is a search, whose accuracies are on validation examples.
        tuned_by: Where the sweep's comment says that its settings were searched; None elsewhere.
        curves: For the page's script; None where no run has metrics.
        schedules: The same; None where no run has a KL schedule.
        runs: All of them.
        collections: Completions.
        colors: By method.
        split: What the tables' examples are of.
        missing_run_ids: The runs that the tables lack.
    """

    name: str
    question: str
    path: str
    claims: tuple[ClaimAnswer, ...] | None
    tables: tuple[Grid, ...]
    table_notes: tuple[str, ...]
    figures: tuple[Figure, ...]
    study_figures: tuple[Figure, ...]
    winners: tuple[str, ...]
    is_search: bool
    tuned_by: str | None
    curves: dict[str, Any] | None
    schedules: dict[str, Any] | None
    runs: tuple[RunCard, ...]
    collections: tuple[Collection, ...]
    colors: Mapping[str, str]
    split: str
    missing_run_ids: tuple[str, ...]

    @property
    def verdicts(self) -> Mapping[str, int]:
        """How many claims have each verdict, the decided ones first."""
        counts = Counter(answer.verdict for answer in self.claims or ())
        order: tuple[Verdict, ...] = ("supported", "contradicted", "undecided", "missing")
        return {verdict: counts[verdict] for verdict in order if verdict in counts}

    @property
    def worker_s(self) -> float:
        """Seconds that workers took, over all runs."""
        return sum(run.worker_s or 0.0 for run in self.runs)

    @property
    def num_completed(self) -> int:
        """Runs with a summary."""
        return sum(run.status == "completed" for run in self.runs)


def gather(
    results: str | Path, sweep: str | Sweep, *, num_examples: int, storage: str | None = None, is_static: bool = False
) -> Contents:
    """Reads all that a report shows.

    Args:
        results: The results folder.
        sweep: A loaded sweep, or the name of one on record.
        num_examples: Examples per target whose completions are shown.
        storage: Of a study, a URL as Optuna takes it; by default its SQLite file in the results folder.
        is_static: Whether it is for print: every figure is drawn, and completions are left out.

    Raises:
        UserError: There is no such sweep, or the storage cannot be opened.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    data = read_sweep_data(results, sweep)
    loaded = None if isinstance(sweep, str) else sweep
    drawn = (one for one in draw_figures(data) if is_static or one.name not in DRAWN_BY_SCRIPT)
    of_study = () if loaded is None else tuple(study_figures(results, loaded, storage))
    record = read_sweep_record(results, data.asked.name) if loaded is None else {}
    pictures = Pictures({} if loaded is None else loaded.data)
    return Contents(
        name=data.asked.name,
        question=str(record["description"] if loaded is None else loaded.description),
        path=str(record["path"] if loaded is None else loaded.path),
        claims=None if loaded is None else tuple(judge_claims(results, loaded)) if loaded.claims else (),
        tables=tuple(grids(data.rows)),
        table_notes=tuple(notes(data.rows)),
        figures=tuple(_figures(drawn)),
        study_figures=tuple(_figures(of_study)),
        winners=_winners(results, loaded, storage) if loaded is not None and of_study else (),
        is_search=loaded is not None and loaded.study is not None,
        tuned_by=None if loaded is None else _tuned_by(loaded.path),
        curves=None if is_static else curve_chart(data),
        schedules=None if is_static else schedule_chart(data),
        runs=tuple(read_run_cards(results, data)),
        collections=() if is_static else tuple(read_collections(results, data, pictures, num_examples=num_examples)),
        colors={method: method_color(method) for method in dict.fromkeys(cell.method for cell in data.asked.cells)},
        split=data.asked.evaluation.table_split,
        missing_run_ids=tuple(missing_run_ids(data.rows)),
    )


def _winners(results: str | Path, sweep: Sweep, storage: str | None) -> tuple[str, ...]:
    assert sweep.study is not None
    return tuple(winner_lines(find_winners(sweep, results, storage, partial=True), sweep.study.objectives))


def _figures(drawn: Iterable[Drawn]) -> Iterable[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        for one in drawn:
            file = Path(folder) / f"{one.name}.svg"
            save(one.figure, file)
            words = one.name.replace("ablation_", "ablation of ").replace("_", " ")
            title = FIGURE_TITLES.get(one.name, words.capitalize())
            numbers = data_uri("text/csv;charset=utf-8", as_csv(one.numbers).encode())
            yield Figure(one.name, title, data_uri("image/svg+xml", file.read_bytes()), numbers)


def _tuned_by(path: Path) -> str | None:
    """The line in which `harness tune` says that it wrote a sweep file; None for any other file."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return next((line.lstrip("# ") for line in lines[:1] if line.startswith("# Written by `harness tune ")), None)
