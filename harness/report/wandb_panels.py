"""What a sweep's workspace and report in W&B show: which runs, which panels, and what their groups are averaged over.

Runs are picked by their ids, so that runs shared with another sweep are there and stale generations are not. A group is
a method on a source with the settings that the sweep varies; its runs differ in their seed alone, and panels show their
mean with the standard error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.mirror.publication import (
    Destination,
    attempt_generation,
    next_generation,
    publications,
    wandb_id,
)
from harness.report.collect import Asked, asked_by

if TYPE_CHECKING:
    from harness.report.figures.ablated import Ablation
    from harness.spec.sweep import Sweep

EXTRA = "wandb-workspaces"

CURVES = {
    "rollout/reward": "Reward",
    "rollout/accuracy": "Accuracy of completions",
    "rollout/format": "Format of completions",
    "rollout/length": "Length of completions",
    "rollout/zero_signal_frac": "Groups without signal",
    "train/loss": "Loss",
    "train/kl": "KL to the reference",
    "train/beta": "Beta",
    "train/grad_norm": "Gradient norm",
}
"""Metrics of every training, with their titles; one that a method lacks has no line."""


@dataclass(frozen=True)
class Shown:
    """What is shown of a sweep.

    Attributes:
        asked: Its cells.
        entity: Of W&B; empty where it is not known.
        project: Of W&B.
        ids: Run id -> id in W&B; that of a run which is not published yet is the one it will get.
        ablations: By setting.
        groupby: The configuration keys that make a group.
    """

    asked: Asked
    entity: str
    project: str
    ids: Mapping[str, str]
    ablations: Mapping[str, Sequence[Ablation]]
    groupby: tuple[str, ...]

    @property
    def name(self) -> str:
        """The sweep's."""
        return self.asked.name

    @property
    def targets(self) -> tuple[str, ...]:
        """All tasks that runs are evaluated on."""
        return tuple(dict.fromkeys(target for cell in self.asked.cells for target in cell.targets))


def what_is_shown(results: Path, sweep: str | Path | Sweep, where: Destination) -> Shown:
    """Looks up what a sweep asks for and where its runs are.

    Raises:
        UserError: There is no such sweep.
    """
    from harness.report.figures.ablated import ablations

    asked = asked_by(results, sweep)
    ids, specs, entity = {}, {}, where.entity or ""
    for run_id in dict.fromkeys(cell.run_id for cell in asked.cells):
        folder = RunFolder(results, run_id)
        record: dict[str, Any] = read_json(folder.run_json) if folder.run_json.exists() else {}
        known = publications(folder).get(where.name)
        ids[run_id] = wandb_id(run_id, next_generation(known, attempt_generation(record)))
        entity = entity or (known.entity if known is not None else None) or ""
        if record:
            specs[run_id] = record["spec"]
    found = ablations(asked, specs)
    keys = tuple(config_key(setting) for setting in found)
    return Shown(asked, entity, where.project, ids, found, ("label", *keys))


def config_key(setting: str) -> str:
    """Where W&B's configuration has a setting of a sweep: a schedule's type stands under its own key."""
    return f"{setting}.type" if setting in ("method", "method.schedule") else setting


def library() -> tuple[Any, Any, Any]:
    """The modules of wandb-workspaces: workspaces, reports and filter expressions.

    Raises:
        UserError: It is not installed.
    """
    try:
        import wandb_workspaces.expr as expr
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise UserError(f"wandb-workspaces is not installed: pip install 'grpo-d-harness[{EXTRA}]'") from None
    return workspaces, reports, expr


def runs_filter(shown: Shown, run_ids: Sequence[str] | None = None) -> Any:
    """The filter that picks runs by their ids in W&B; all of the sweep by default."""
    _, _, expr = library()
    wanted = shown.ids if run_ids is None else run_ids
    return expr.And(expr.Metric("ID").isin([shown.ids[run_id] for run_id in wanted]))


def score_panels(shown: Shown, groupby: str | None = None) -> Iterator[Any]:
    """A bar per group: accuracy on each target, then on the task trained on and on the others.

    Args:
        shown: The sweep.
        groupby: The configuration key that makes a group; the runs' own grouping by default.
    """
    _, reports, _ = library()
    titles = {f"test/{target}/accuracy": f"Accuracy on {target}" for target in shown.targets}
    titles |= {"score/same_task": "Same task", "score/cross_task": "Cross task: mean over the other targets"}
    for key, title in titles.items():
        yield _placed(
            reports.BarPlot(
                title=title,
                metrics=[key],
                groupby=None if groupby is None else reports.Config(groupby),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
                max_bars_to_show=50,
            ),
            shown,
            f"{key} {groupby}",
        )


def curve_panels(shown: Shown, metrics: Mapping[str, str]) -> Iterator[Any]:
    """A line per group over training steps, for each metric."""
    _, reports, _ = library()
    for key, title in metrics.items():
        yield _placed(
            reports.LinePlot(
                title=title,
                x="step",
                y=[key],
                title_x="step",
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
                max_runs_to_show=100,
            ),
            shown,
            key,
        )


def validation_curves(shown: Shown) -> dict[str, str]:
    """The metrics of the evaluations during training, with their titles."""
    return {f"eval/{target}/accuracy": f"Validation accuracy on {target}" for target in shown.targets}


def ablation_panels(shown: Shown, setting: str, *, of: Ablation | None = None) -> Iterator[Any]:
    """Accuracy on each target by a setting: a point per run where its values are numbers, else a bar per value."""
    _, reports, _ = library()
    key = config_key(setting)
    one = of or shown.ablations[setting][0]
    for target in one.targets:
        name = f"test/{target}/accuracy"
        title = f"Accuracy on {target} by {setting.rpartition('.')[2]}"
        if one.ordered:
            panel = reports.ScatterPlot(
                title=title, x=reports.Config(key), y=reports.SummaryMetric(name), running_ymean=True
            )
        else:
            panel = reports.BarPlot(
                title=title,
                metrics=[name],
                groupby=reports.Config(key),
                groupby_aggfunc="mean",
                groupby_rangefunc="stderr",
            )
        group = "" if of is None else f"{of.method} {of.source} {dict(of.fixed)}"
        yield _placed(panel, shown, f"{setting} {target} {group}")


def table_panels(shown: Shown) -> Iterator[Any]:
    """The completions and the evaluations with their pictures."""
    _, reports, _ = library()
    for name in ("completions", *(f"test/{target}/examples" for target in shown.targets)):
        panel = reports.WeavePanelSummaryTable(table_name=name, layout=reports.Layout(w=24, h=14))
        yield _placed(panel, shown, name)


def columns(shown: Shown) -> list[str]:
    """The columns that a table of the runs shows, as W&B calls them."""
    scores = [f"summary:test/{target}/accuracy" for target in shown.targets]
    return [*scores, "summary:score/same_task", "summary:score/cross_task"]


def stable_id(*words: str) -> str:
    """An id that is the same whenever the same thing is built; the library would draw one."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:12]


def _placed(panel: Any, shown: Shown, about: str) -> Any:
    panel._id = stable_id(shown.name, about)
    return panel
