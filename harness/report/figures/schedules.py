"""Beta over steps, for every KL schedule that a sweep's runs have: the formula, or what an adaptive one came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from pydantic import TypeAdapter

from harness.report.curves import mean_curve
from harness.report.figures.data import SweepData, missing_note, seeds_note, shown
from harness.report.figures.drawn import Drawn, draw_curve, over_steps
from harness.report.figures.style import DASHES, Row, legend_columns, legend_height_in, panels, style, value_colors
from harness.spec import AdaptiveSchedule, Schedule, beta_at

COLUMNS = (
    *("source", "schedule", "settings", "origin", "num_steps", "step", "mean", "ci_low", "ci_high", "unit"),
    *("num_seeds", "run_ids"),
)
_SCHEDULES: TypeAdapter[Schedule] = TypeAdapter(Schedule)


@dataclass(frozen=True)
class _Line:
    """Runs with one schedule on one source."""

    source: str
    schedule: Schedule
    num_steps: int
    run_ids: tuple[str, ...]
    seeds: frozenset[int]

    @property
    def is_measured(self) -> bool:
        return isinstance(self.schedule, AdaptiveSchedule)


def schedule_numbers(data: SweepData) -> pd.DataFrame:
    """Beta at each step of each distinct schedule, by source.

    Columns: source, schedule (its type), settings (as JSON), origin (`formula`, or `measured` for `adaptive`: the mean
    over its runs with a 95 % t-interval), num_steps, step, mean, ci_low, ci_high, unit, num_seeds (of the runs with
    this schedule), run_ids. An adaptive schedule with missing runs is left out; runs that never started have no
    schedule on record.
    """
    rows = []
    for line in _lines(data):
        if line.is_measured and data.missing(line.run_ids):
            continue
        about = {
            "source": line.source,
            "schedule": line.schedule.type,
            "settings": json.dumps(line.schedule.model_dump(exclude={"type"}), sort_keys=True),
            "origin": "measured" if line.is_measured else "formula",
            "num_steps": line.num_steps,
            "unit": "beta",
            "run_ids": " ".join(line.run_ids),
        }
        rows += [about | row for row in _betas(data, line)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"mean": float, "ci_low": float, "ci_high": float})


def _betas(data: SweepData, line: _Line) -> Iterator[dict[str, Any]]:
    if isinstance(line.schedule, AdaptiveSchedule):
        curve = mean_curve(data.curves.get("train/beta"), line.run_ids)
        yield from ({str(key): value for key, value in row.items()} for row in curve.to_dict("records"))
        return
    for step in range(line.num_steps):
        mean = beta_at(line.schedule, step, line.num_steps)
        yield {"step": step, "mean": mean, "num_seeds": len(line.seeds)}


def _lines(data: SweepData) -> list[_Line]:
    found: dict[str, _Line] = {}
    for run_id in data.run_ids:
        spec: Mapping[str, Any] = data.specs.get(run_id, {})
        method = spec.get("method", {})
        if "schedule" not in method:
            continue
        # Other settings change what an adaptive schedule comes to, but no formula.
        adaptive = method["schedule"]["type"] == "adaptive"
        own: Mapping[str, Any] = method if adaptive else {"schedule": method["schedule"], "steps": method["num_steps"]}
        key = json.dumps([spec["source"], own], sort_keys=True)
        schedule = _SCHEDULES.validate_python(method["schedule"])
        before = found.get(key, _Line(spec["source"], schedule, method["num_steps"], (), frozenset()))
        run_ids, seeds = (*before.run_ids, run_id), before.seeds | {spec["seed"]}
        found[key] = replace(before, run_ids=run_ids, seeds=seeds)
    return list(found.values())


@style()
def schedules_figure(data: SweepData) -> Drawn | None:
    """The figure; None unless any run of the sweep has a KL schedule."""
    numbers = schedule_numbers(data)
    if numbers.empty:
        return None
    sources = list(dict.fromkeys(numbers["source"]))
    longest = max((_drawn_lines(numbers, source)[1] for source in sources), key=legend_height_in)
    rows = [Row("beta", 1.5, 0.75), Row("schedules_legend", legend_height_in(longest), 0.0)]
    figure, grid = panels(rows, len(sources), _note(data, numbers))
    for axes, below, source in zip(*grid, sources, strict=True):
        lines, labels = _drawn_lines(numbers, source)
        colors = value_colors([kind for kind, _, _ in lines], ordered=False)
        for at, ((kind, _, run_ids), label, color) in enumerate(zip(lines, labels, colors, strict=True)):
            curve = numbers[(numbers["source"] == source) & (numbers["run_ids"] == run_ids)]
            dash = DASHES[[name for name, _, _ in lines[:at]].count(kind) % len(DASHES)]
            draw_curve(axes, curve, color=color, label=label, dash=dash)
        over_steps(axes, label=True)
        # A beta of 0 is a line of its own, not the axis.
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])
        axes.set_ylabel("beta")
        axes.set_title(f"trained on {source}")
        legend = below.legend(*axes.get_legend_handles_labels(), loc="center right", ncols=legend_columns(labels))
        legend.set_in_layout(False)
    return Drawn("schedules", figure, numbers)


def _drawn_lines(numbers: pd.DataFrame, source: str) -> tuple[list[tuple[str, str, str]], list[str]]:
    """The lines of a source, each as type, settings and run ids (which tell lengths of training apart), and labels."""
    own = numbers[numbers["source"] == source]
    lines = list(dict.fromkeys(zip(own["schedule"], own["settings"], own["run_ids"], strict=True)))
    return lines, _labels([(kind, json.loads(settings)) for kind, settings, _ in lines])


def _labels(lines: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Each schedule's type, with those of its settings in brackets that tell it from others of its type."""
    labels = []
    for kind, settings in lines:
        peers = [other for name, other in lines if name == kind]
        telling = [key for key in settings if len({json.dumps(peer[key]) for peer in peers}) > 1]
        rest = ", ".join(f"{key}={shown(settings[key])}" for key in telling)
        labels.append(f"{kind} ({rest})" if rest else kind)
    return labels


def _note(data: SweepData, numbers: pd.DataFrame) -> str:
    measured = numbers[numbers["origin"] == "measured"]
    counts = [int(count) for count in numbers["num_seeds"]]
    lines = [f"Beta by its formula at each update; {seeds_note(counts)}."]
    if not measured.empty:
        lines.append("adaptive: as measured, mean over seeds; band: 95 % t-interval of that mean.")
    adaptive = [line for line in _lines(data) if line.is_measured]
    left_out = [f"adaptive on {line.source}" for line in adaptive if data.missing(line.run_ids)]
    of_measured = set(measured["run_ids"])
    lines += [
        f"adaptive on {line.source}: left out, its runs having no beta on record."
        for line in adaptive
        if " ".join(line.run_ids) not in of_measured and not data.missing(line.run_ids)
    ]
    lines.append(missing_note(data, [run_id for line in adaptive for run_id in line.run_ids], left_out))
    return "\n".join(line for line in lines if line)
