"""One run, readable: what it is, what it set itself, how training went, what it scored and what it wrote."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from harness.record.atomic import read_jsonl
from harness.record.folder import RunFolder
from harness.record.state import SUMMARY_KEYS, read_state, read_summary
from harness.record.verdicts import sound_rows
from harness.report.collect import Measurement, measure_split
from harness.report.one_run import (
    Differing,
    changed_settings,
    find_run,
    plain_text,
    read_run,
    shown,
    spec_on_record,
    worker_s,
)
from harness.report.stats import LEVEL, Estimate, interval_rng, two_level_bootstrap
from harness.report.terminal import braille, columns
from harness.spec.methods import Split
from harness.spec.run import RunSpec

CURVES = (
    *("train/loss", "rollout/reward", "rollout/accuracy", "rollout/format", "train/kl", "train/beta"),
    *("rollout/length", "train/grad_norm"),
)
"""Metrics with a curve, where the run measures them; accuracies during training follow."""

_CURVE_WIDTH, _CURVE_HEIGHT = 48, 2
_TEXT = 300
"""Letters shown of a completion."""


class Line(NamedTuple):
    """A line for a terminal, in a style of :func:`harness.launch.table.print_line`; nothing is lost without it."""

    text: str
    style: str | None = None


@dataclass(frozen=True)
class Score:
    """What a run scored on a target.

    Attributes:
        target: The task.
        split: Of its examples.
        accuracy: With its interval over examples: one run says nothing of the spread between seeds.
        format_frac: Share of completions in the right format; None where not recorded.
        accuracy_in_format: Share of right answers among those; None where there are none.
        accuracy_otherwise: Among the others.
        num_examples: Behind the accuracy.
        protocol: The evaluation rule.
    """

    target: str
    split: Split
    accuracy: Estimate
    format_frac: float | None
    accuracy_in_format: float | None
    accuracy_otherwise: float | None
    num_examples: int
    protocol: str | None


@dataclass(frozen=True)
class Shown:
    """A run as `harness show` prints it.

    Attributes:
        folder: Where it lies.
        status: As in `state.json`; "completed" with a summary.
        error: Why it failed.
        spec: What it trains.
        record: `run.json`.
        changed: The settings that differ from the defaults of its method, model and source.
        curves: By metric, step and value; NaN where a number was not finite.
        scores: By split and target.
        answers: By target, the first evaluated examples.
        rollouts: Of the last recorded step of sampling, those of one prompt.
    """

    folder: RunFolder
    status: str
    error: str | None
    spec: RunSpec
    record: Mapping[str, Any]
    changed: tuple[Differing, ...]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    scores: tuple[Score, ...]
    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    rollouts: Sequence[Mapping[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs; what is not a number is null."""
        scores = [asdict(score) | {"accuracy": score.accuracy._asdict()} for score in self.scores]
        curves = {
            metric: [[step, value if math.isfinite(value) else None] for step, value in curve]
            for metric, curve in self.curves.items()
        }
        return {
            "run_id": self.folder.run_id,
            "folder": str(self.folder.path),
            "status": self.status,
            "error": self.error,
            "record": self.record,
            "worker_s": worker_s(self.record),
            "changed": {one.setting: {"value": one.a, "default": one.b} for one in self.changed},
            "scores": scores,
            "curves": curves,
            "answers": self.answers,
            "rollouts": self.rollouts,
        }


def read_shown(results: str | Path, name: str, *, num_samples: int) -> Shown:
    """A run, read from its folder.

    Args:
        results: The results folder.
        name: As :func:`harness.report.one_run.find_run` takes it.
        num_samples: Examples per target, and completions of one prompt.

    Raises:
        UserError: There is no such run, or it was never started.
        DataError: A file that is read, such as the record of the sweep, is not what it should be.
    """
    folder = find_run(results, name)
    record = read_run(folder)
    spec = spec_on_record(record, folder.run_json)
    summary = read_summary(folder)
    state = read_state(folder) if folder.state_json.is_file() else None
    status = "completed" if summary is not None else state.status if state is not None else "pending"
    # Validation first, so that the test split stays where a target has both.
    answers = {
        target: (sound_rows(folder, target, split, summary) or [])[:num_samples]
        for split, key in reversed(tuple(SUMMARY_KEYS.items()))
        for target in (summary or {}).get(key, {})
    }
    rollouts = read_jsonl(folder.completions) if folder.completions.is_file() else []
    last = [row for row in rollouts if row["step"] == rollouts[-1]["step"]]
    return Shown(
        folder=folder,
        status=status,
        error=state.error if state is not None and summary is None else None,
        spec=spec,
        record=record,
        changed=changed_settings(spec),
        curves=_curves(folder),
        scores=tuple(_scores(folder, summary or {})),
        answers=answers,
        rollouts=[row for row in last if row["id"] == last[0]["id"]][:num_samples],
    )


def _curves(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in read_jsonl(folder.metrics) if folder.metrics.is_file() else ():
        for metric, value in row.items():
            if metric in CURVES or (metric.startswith("eval/") and metric.endswith("/accuracy")):
                curves.setdefault(metric, []).append((row["step"], math.nan if value is None else float(value)))
    return {metric: curves[metric] for metric in dict.fromkeys([*CURVES, *curves]) if metric in curves}


def _scores(folder: RunFolder, summary: Mapping[str, Any]) -> Iterator[Score]:
    for split, key in SUMMARY_KEYS.items():
        for target in summary.get(key, {}):
            found = measure_split(folder, target, split, summary)
            if found is not None:
                yield _score(target, split, found, folder.run_id)


def _score(target: str, split: Split, found: Measurement, run_id: str) -> Score:
    rng = interval_rng(target, split, run_id)
    forms = found.formats
    return Score(
        target=target,
        split=split,
        accuracy=two_level_bootstrap([found.correct], rng, over_seeds=False),
        format_frac=found.format_frac,
        accuracy_in_format=None if forms is None else _mean(found.correct[forms]),
        accuracy_otherwise=None if forms is None else _mean(found.correct[~forms]),
        num_examples=len(found.correct),
        protocol=found.protocol,
    )


def _mean(verdicts: np.ndarray) -> float | None:
    return float(verdicts.mean()) if len(verdicts) else None


def show_lines(run: Shown) -> list[Line]:
    """What `harness show` prints."""
    parts = (_head(run), _changed(run), _training(run), _evaluation(run), _samples(run))
    return [line for part in parts for line in (*part, Line(""))][:-1]


def _head(run: Shown) -> Iterator[Line]:
    style = {"completed": "bold green", "failed": "bold red"}.get(run.status, "bold")
    yield Line(f"{run.folder.run_id}: {run.status}", style)
    if run.error:
        yield Line(f"  {plain_text(run.error)}", "red")
    spec, record = run.spec, run.record
    source = "untrained" if spec.source is None else f"trained on {spec.num_train} examples of {spec.source}"
    seed = "" if spec.source is None else f", seed {spec.seed}"
    rows = [["what", f"{spec.method.type}, model {spec.model}, {source}{seed}"]]
    rows.append(["sweep", str((record.get("job") or {}).get("sweep", "none on record"))])
    origin = record.get("provenance") or {}
    commit = origin.get("commit") or "unknown"
    rows.append(["commit", f"{commit} with uncommitted changes" if origin.get("dirty") else commit])
    resolved = record.get("resolved") or {}
    if resolved:
        rows.append(["device", ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in resolved.items())])
    spent, attempts = worker_s(record), record.get("attempts") or ()
    plural = "" if len(attempts) == 1 else "s"
    rows.append(["took", f"{'unknown' if spent is None else f'{spent:.0f} s'} in {len(attempts)} attempt{plural}"])
    rows.append(["folder", str(run.folder.path)])
    yield from map(Line, columns(rows))


def _changed(run: Shown) -> Iterator[Line]:
    defaults = f"the defaults of {run.spec.method.type}" + (f" on {run.spec.source}" if run.spec.source else "")
    if not run.changed:
        yield Line(f"Every setting as in {defaults}", "bold")
        return
    yield Line(f"Settings that differ from {defaults}", "bold")
    rows = [["setting", "here", "default"], *([one.setting, shown(one.a), shown(one.b)] for one in run.changed)]
    yield from map(Line, columns(rows, right=(1, 2)))


def _training(run: Shown) -> Iterator[Line]:
    if not run.curves:
        yield Line("No training on record", "bold")
        return
    steps = 1 + max(step for curve in run.curves.values() for step, _ in curve)
    yield Line(f"Training, {steps} steps: greatest and least value to the left, the last one to the right", "bold")
    width = max(map(len, run.curves))
    for metric, curve in run.curves.items():
        values = _by_step(curve)
        finite = [value for value in values if math.isfinite(value)]
        bounds = [f"{max(finite):.4g}", f"{min(finite):.4g}"] if finite else ["", "not finite"]
        drawn = braille(values, width=_CURVE_WIDTH, height=_CURVE_HEIGHT)
        last = f"{curve[-1][1]:.4g}"
        for row, (text, bound) in enumerate(zip(drawn, bounds, strict=True)):
            name, end = (metric, "") if row == 0 else ("", last)
            yield Line(f"  {name.ljust(width)}  {bound.rjust(10)} {text} {end}".rstrip())


def _by_step(curve: Iterable[tuple[int, float]]) -> list[float]:
    """A curve's values; those measured every so often, such as accuracies, without the steps between."""
    return [value for _, value in sorted(dict(curve).items())]


def _evaluation(run: Shown) -> Iterator[Line]:
    if not run.scores:
        yield Line("No evaluation on record", "bold")
        return
    yield Line(f"Evaluation, in %; in brackets the {100 * LEVEL:g} % interval over examples", "bold")
    heads = ["target", "split", "n", "accuracy", "in right format", "right of those", "right of others", "protocol"]
    rows = [heads]
    for score in run.scores:
        low, high = cast("tuple[float, float]", score.accuracy[1:])
        accuracy = f"{100 * score.accuracy.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        shares = (score.format_frac, score.accuracy_in_format, score.accuracy_otherwise)
        texts = ["-" if share is None else f"{100 * share:.1f}" for share in shares]
        rows.append([score.target, score.split, str(score.num_examples), accuracy, *texts, score.protocol or "-"])
    yield from map(Line, columns(rows, right=(2, 3, 4, 5, 6)))


def _samples(run: Shown) -> Iterator[Line]:
    for target, rows in run.answers.items():
        has_texts = any("completion" in row for row in rows)
        yield Line(f"Answers on {target}{'' if has_texts else ': verdicts without texts on record'}", "bold")
        for row in rows if has_texts else ():
            mark, style = ("right", "green") if row["correct"] else ("wrong", "red")
            question, solution = plain_text(row.get("question"), _TEXT), plain_text(row.get("solution"), _TEXT)
            yield Line(f"  {row.get('id') or row['index']}: {question}  (solution: {solution})")
            yield Line(f"    {mark}: {plain_text(row.get('completion'), _TEXT)}", style)
    if run.rollouts:
        first = run.rollouts[0]
        yield Line(f"Sampled at step {first['step']} on {first['id']}: {plain_text(first['question'], _TEXT)}", "bold")
        for row in run.rollouts:
            about = f"reward {shown(row['reward'])}, advantage {row['advantage']:+.2f}"
            yield Line(f"    {about}: {plain_text(row['completion'], _TEXT)}")
