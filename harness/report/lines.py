"""Runs that differ in their seed alone, and which of one sweep stand beside which of another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.state import SUMMARY_KEYS, answers, read_summary
from harness.record.verdicts import sound_rows
from harness.report.collect import Asked, AskedCell, spec_of
from harness.report.figures.data import shown_settings
from harness.report.one_run import differing, read_run, spec_on_record
from harness.spec.methods import Evaluation, Split
from harness.spec.run import RunSpec


@dataclass(frozen=True)
class Line:
    """Runs that differ in their seed alone.

    Attributes:
        spec: Of one of them.
        ablation: The settings that a sweep ablates with it; None for its main comparison, and for a run by itself.
        run_ids: In the order of their seeds.
        targets: The tasks that they are evaluated on.
        settings: What a sweep varies on its axes, in words; empty for nothing.
        evaluation: How a sweep wants that done; None for a run by itself, all of whose answers count.
    """

    spec: RunSpec
    ablation: str | None
    run_ids: tuple[str, ...]
    targets: tuple[str, ...]
    settings: str = ""
    evaluation: Evaluation | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """Method, settings and source, such as ``"grpo (beta=0.01) on counting"``."""
        method = f"{self.spec.method.type} ({self.settings})" if self.settings else self.spec.method.type
        return f"{method} on {self.spec.source}" if self.spec.source else method

    def as_json(self) -> dict[str, Any]:
        """The line as plain JSON values, its spec without the seed."""
        return {
            "label": self.label,
            "spec": self.spec.model_dump(mode="json", exclude={"seed"}),
            "ablation": self.ablation,
            "run_ids": list(self.run_ids),
            "targets": list(self.targets),
        }


def line_of_run(folder: RunFolder) -> Line:
    """A run by itself, with the targets that its summary holds.

    Raises:
        UserError: It was never started.
        DataError: Its `run.json` is none.
    """
    spec = spec_on_record(read_run(folder), folder.run_json)
    summary = read_summary(folder) or {}
    targets = dict.fromkeys(target for key in SUMMARY_KEYS.values() for target in summary.get(key, {}))
    return Line(spec, None, (folder.run_id,), tuple(targets))


def lines_of_sweep(results: str | Path, asked: Asked) -> list[Line]:
    """The lines of a sweep in its order.

    Args:
        results: The results folder.
        asked: From :func:`harness.report.collect.asked_by`. Of a sweep on record, the lines none of whose runs was
            started are left out: nothing tells their settings.

    Raises:
        DataError: A run folder that does not hold the spec of a run.
    """
    cells: dict[str, list[AskedCell]] = {}
    for cell in asked.cells:
        key = json.dumps([cell.ablation, cell.method, cell.source, dict(cell.settings)], sort_keys=True, default=str)
        cells.setdefault(key, []).append(cell)
    lines = []
    for of_line in cells.values():
        of_line.sort(key=lambda cell: cell.seed)
        spec = spec_of(results, of_line)
        if spec is None:
            continue
        run_ids = tuple(dict.fromkeys(cell.run_id for cell in of_line))
        whole = spec_on_record({"spec": spec}, RunFolder(results, run_ids[0]).run_json)
        targets = dict.fromkeys(target for cell in of_line for target in cell.targets)
        settings = shown_settings(of_line[0].settings)
        lines.append(Line(whole, of_line[0].ablation, run_ids, tuple(targets), settings, asked.evaluation))
    return lines


def matched(left: Sequence[Line], right: Sequence[Line]) -> tuple[list[tuple[Line, Line]], list[Line], list[Line]]:
    """Lines side by side: of one method and source, those with the fewest differing settings first.

    Lines of the main comparison go together before those of ablations do.

    Returns:
        The pairs in the order of the first side, then what is left of either.
    """
    ranked = sorted(
        (
            (one.ablation != other.ablation, len(differing(one.spec, other.spec, without=("seed",))), at, there)
            for at, one in enumerate(left)
            for there, other in enumerate(right)
            if (one.spec.method.type, one.spec.source) == (other.spec.method.type, other.spec.source)
        )
    )
    partner: dict[int, int] = {}
    for _, _, at, there in ranked:
        if at not in partner and there not in partner.values():
            partner[at] = there
    pairs = [(left[at], right[partner[at]]) for at in range(len(left)) if at in partner]
    only_left = [line for at, line in enumerate(left) if at not in partner]
    only_right = [line for there, line in enumerate(right) if there not in partner.values()]
    return pairs, only_left, only_right


def answered(results: str | Path, line: Line, target: str, split: Split) -> dict[str, list[dict[str, Any]]]:
    """By run id, what the runs of a line answered on a target.

    Runs that have not, or not as asked, are left out, and so are those whose file was damaged since.
    """
    found = {}
    for run_id in line.run_ids:
        folder = RunFolder(results, run_id)
        summary = read_summary(folder) or {}
        counted = summary.get(SUMMARY_KEYS[split], {}).get(target)
        if counted is None or (line.evaluation is not None and not answers(counted, line.evaluation, split)):
            continue
        rows = sound_rows(folder, target, split, summary)
        if rows is None:
            continue
        # Rows of old runs do not name their rule.
        about = {"protocol": counted.get("protocol")}
        found[run_id] = [about | row for row in rows[: line.evaluation.num(split) if line.evaluation else None]]
    return found


def seed_of(results: str | Path, run_id: str) -> int:
    """A started run's seed."""
    return int(read_json(RunFolder(results, run_id).run_json)["spec"]["seed"])
