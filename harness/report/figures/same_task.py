"""Accuracy on the task trained on: a bar with its interval per source, method and settings; `base` beside them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence

import pandas as pd

from harness.report.figures.data import SweepData, missing_note, seeds_note, shown_settings
from harness.report.figures.drawn import Drawn
from harness.report.figures.groups import label_of
from harness.report.figures.published import draw_mark, marks_note, published_columns, shown_in
from harness.report.figures.style import SMALL_PT, Row, method_color, panels, style
from harness.report.tables import TableRow

COLUMNS = (
    *("source", "method", "settings", "target", "mean", "ci_low", "ci_high", "unit", "num_seeds", "num_examples"),
    *("run_ids",),
)

_LABEL_CHARACTERS = 20


def same_task_numbers(rows: Sequence[TableRow]) -> pd.DataFrame:
    """The accuracies of a sweep's same-task table, in %; what has missing runs is left out, and so are ablations.

    Columns: source (of `base`: the panel that it stands in), method, settings (as JSON), target, mean, ci_low, ci_high,
    unit, num_seeds, num_examples, run_ids; then what others published, where there is any.
    """
    of_table = [row for row in rows if row.table == "same_task" and row.ablation is None]
    records = []
    for source in dict.fromkeys(row.source for row in of_table if row.source is not None):
        for row in of_table:
            if row.target != source or row.mean is None or row.missing_run_ids:
                continue
            records.append(
                {
                    "source": source,
                    "method": row.method,
                    "settings": json.dumps(dict(row.settings), default=str),
                    "target": row.target,
                    "mean": 100 * row.mean,
                    "ci_low": None if row.ci_low is None else 100 * row.ci_low,
                    "ci_high": None if row.ci_high is None else 100 * row.ci_high,
                    "unit": "%",
                    "num_seeds": row.num_seeds,
                    "num_examples": row.num_examples,
                    "run_ids": " ".join(row.run_ids),
                }
                | published_columns(row.published or ())
            )
    frame = pd.DataFrame(records, columns=list(dict.fromkeys([*COLUMNS, *(key for row in records for key in row)])))
    return frame.astype({"mean": float, "ci_low": float, "ci_high": float})


@style()
def same_task_figure(data: SweepData) -> Drawn | None:
    """The figure; None unless the sweep trains on a task that it evaluates on."""
    numbers = same_task_numbers(data.rows)
    trained = numbers[numbers["method"] != "base"]
    if trained.empty:
        return None
    sources = list(dict.fromkeys(trained["source"]))
    num_bars = max(int((numbers["source"] == source).sum()) for source in sources)
    bar_in = 0.13 + 0.11 * max(len(_label(bar)) for _, bar in numbers.iterrows())
    figure, grid = panels([Row("bars", bar_in * num_bars, 0.7)], len(sources), _note(data, numbers))
    for axes, source in zip(grid[0], sources, strict=True):
        bars = numbers[numbers["source"] == source]
        at, furthest = list(range(len(bars))), 0.0
        axes.barh(at, bars["mean"], color=[method_color(method) for method in bars["method"]], height=0.7, alpha=0.85)
        for place, (_, bar) in zip(at, bars.iterrows(), strict=True):
            end = bar["mean"]
            if pd.notna(bar["ci_low"]):
                axes.plot([bar["ci_low"], bar["ci_high"]], [place, place], color="#222222", linewidth=1.0)
                end = bar["ci_high"]
            # Below the middle, clear of the interval and the number.
            for head, value, _ in (beside := shown_in(bar.to_dict())):
                draw_mark(axes, head, value, place + 0.3)
            furthest = max([furthest, end, *(value for _, value, _ in beside)])
            axes.annotate(
                f"{bar['mean']:.1f}", (end, place), (3, 0), textcoords="offset points", va="center", fontsize=SMALL_PT
            )
        axes.set_yticks(at, ["\n".join(_label(bar)) for _, bar in bars.iterrows()])
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.grid(axis="x", visible=True)
        # Room for the number to the right of whatever reaches furthest.
        axes.set_xlim(0, max(furthest * 1.15, 1.0))
        axes.set_xlabel("accuracy, %")
        axes.set_title(source)
    return Drawn("same_task", figure, numbers)


def _label(bar: pd.Series) -> list[str]:
    """The method, and its settings where they vary, in lines short enough to leave room for the bars."""
    return [bar["method"], *textwrap.wrap(shown_settings(json.loads(bar["settings"])), _LABEL_CHARACTERS)]


def _note(data: SweepData, numbers: pd.DataFrame) -> str:
    trained = numbers[numbers["method"] != "base"]
    counts = [int(count) for count in trained["num_seeds"]]
    few = ", none below 3 seeds" if min(counts) < 3 else ""
    base = " base: no seed, interval over examples." if len(trained) < len(numbers) else ""
    note = (
        f"Mean over {seeds_note(counts)}, {data.examples} each; lines: 95 % bootstrap interval over seeds and "
        f"examples{few}.{base}"
    )
    of_table = [row for row in data.rows if row.table == "same_task" and row.ablation is None]
    rows = [row for row in of_table if row.source is not None]
    run_ids = [run_id for row in rows for run_id in (*row.run_ids, *row.missing_run_ids)]
    left_out = [f"{label_of(row.method, row.settings)} on {row.source}" for row in rows if row.missing_run_ids]
    drawn = [row for row in of_table if row.mean is not None and not row.missing_run_ids]
    beside = marks_note(number for row in drawn for number in row.published or ())
    return "\n".join(line for line in (note, beside, missing_note(data, run_ids, left_out)) if line)
