"""A sweep's saved workspace and its report in W&B: built, printed as JSON, or saved over what was saved before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.record.atomic import read_json, write_json
from harness.record.mirror.publication import Destination
from harness.report.figures.data import shown_settings
from harness.report.render import render_tables
from harness.report.tables import build_tables
from harness.report.wandb_panels import (
    CURVES,
    Shown,
    ablation_panels,
    columns,
    curve_panels,
    library,
    runs_filter,
    score_panels,
    stable_id,
    table_panels,
    validation_curves,
    what_is_shown,
)

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

Kind = Literal["workspace", "report"]

MAX_TITLE = 128
"""Characters of a report's title."""


def build_workspace(shown: Shown) -> Any:
    """The workspace: the sweep's runs in groups, and a section each for scores, ablations, curves and tables."""
    workspaces, _, expr = library()

    def section(name: str, panels: Any, *, is_open: bool = True, columns: int = 3) -> Any:
        layout = workspaces.SectionLayoutSettings(columns=columns, rows=2)
        return workspaces.Section(name=name, panels=list(panels), is_open=is_open, layout_settings=layout)

    ablated = [
        section(f"Ablation: {setting.rpartition('.')[2]}", ablation_panels(shown, setting))
        for setting in shown.ablations
    ]
    workspace = workspaces.Workspace(
        entity=shown.entity,
        project=shown.project,
        name=shown.name,
        sections=[
            section("Method comparison", score_panels(shown)),
            *ablated,
            section("Validation", curve_panels(shown, validation_curves(shown))),
            section("Training", curve_panels(shown, CURVES)),
            section("Completions and evaluations", table_panels(shown), is_open=False, columns=1),
        ],
        settings=workspaces.WorkspaceSettings(x_axis="step", max_runs=100, group_by_prefix="first"),
        runset_settings=workspaces.RunsetSettings(
            filters=runs_filter(shown),
            groupby=[expr.Config(key) for key in shown.groupby],
            order=[expr.Ordering(expr.Metric("Name"), ascending=True)],
            pinned_columns=columns(shown),
        ),
    )
    workspace._internal_runset_id = stable_id(shown.name, "runs")
    return workspace


def build_report(shown: Shown, results: Path, sweep: str | Path | Sweep) -> Any:
    """The report: our own tables as they stand, the same scores from W&B, each ablation by itself, and the curves."""
    _, reports, _ = library()

    def grid(name: str, panels: Any, run_ids: Any = None, groupby: tuple[str, ...] = shown.groupby) -> Any:
        runs = reports.Runset(
            name=name,
            filters=runs_filter(shown, run_ids),
            groupby=[f"config.{key}" for key in groupby],
            pinned_columns=columns(shown),
        )
        runs._id = stable_id(shown.name, "report", name)
        return reports.PanelGrid(runsets=[runs], panels=list(panels))

    blocks = [
        reports.H2("Same task and cross task"),
        reports.P("Computed from the run folders, with intervals over seeds and examples; a dash is what is missing."),
        reports.MarkdownBlock(render_tables(build_tables(results, sweep), "markdown")),
        reports.H2("Method comparison"),
        reports.P("Means over seeds with their standard error, from the runs in W&B."),
        grid(shown.name, score_panels(shown)),
    ]
    for setting, found in shown.ablations.items():
        blocks.append(reports.H2(f"Ablation: {setting.rpartition('.')[2]}"))
        for one in found:
            ids = [run_id for point in one.points for run_id in point.run_ids if run_id in shown.ids]
            fixed = shown_settings(one.fixed)
            name = f"{one.method} on {one.source}" + (f", {fixed}" if fixed else "")
            blocks += [
                reports.H3(name),
                grid(f"{setting}: {name}", ablation_panels(shown, setting, of=one), ids, ()),
            ]
    blocks += [
        reports.H2("Curves"),
        reports.P("A line per method, source and varied settings: the mean over seeds with its standard error."),
        grid(f"{shown.name} curves", curve_panels(shown, validation_curves(shown) | CURVES)),
    ]
    title = f"{shown.name}: same task, cross task and ablations"
    return reports.Report(
        entity=shown.entity,
        project=shown.project,
        title=title[:MAX_TITLE],
        description=f"{len(shown.ids)} runs of the sweep {shown.name}",
        blocks=blocks,
        width="fluid",
    )


def build(kind: Kind, results: Path, sweep: str | Path | Sweep, where: Destination) -> Any:
    """A sweep's workspace or report, not saved.

    Raises:
        UserError: There is no such sweep, or wandb-workspaces is not installed.
    """
    library()
    shown = what_is_shown(results, sweep, where)
    return build_workspace(shown) if kind == "workspace" else build_report(shown, results, sweep)


def as_json(built: Any) -> dict[str, Any]:
    """What is sent to W&B: the variables of its call, with the spec as an object.

    The library has no public way to it; `save` sends exactly this text.
    """
    model = built._to_model()
    spec = json.loads(model.spec.model_dump_json(by_alias=True, exclude_none=True))
    entity, project = built.entity or None, built.project
    return {"entityName": entity, "projectName": project, "displayName": model.display_name, "spec": spec}


def save(kind: Kind, built: Any, results: Path, name: str, where: Destination) -> str:
    """Saves a workspace or report, over the one that was saved for this sweep before if that is still there.

    Args:
        kind: What it is.
        built: From :func:`build`; without an entity, it goes to the user's own.
        results: The results folder; what was saved is kept in `wandb/<sweep>.json` in it.
        name: Of the sweep.
        where: The destination.

    Returns:
        The address of its page.
    """
    import wandb

    workspaces, reports, _ = library()
    if not built.entity:
        built.entity = wandb.Api(overrides={"base_url": where.server}).default_entity
    path = results / "wandb" / f"{name}.json"
    saved: dict[str, dict[str, str]] = read_json(path) if path.exists() else {}
    before = saved.get(where.name, {}).get(kind)
    if before is not None:
        built = _in_place_of(before, built, workspaces.Workspace if kind == "workspace" else reports.Report)
    url = str(built.save().url)
    write_json(path, saved | {where.name: {**saved.get(where.name, {}), kind: url}})
    return url


def _in_place_of(url: str, built: Any, type_: Any) -> Any:
    """What was saved before with the content of `built`; `built` itself where that was deleted."""
    try:
        before = type_.from_url(url)
    except (ValueError, TypeError):  # what the library makes of a view that is not there
        return built
    fields = ("sections", "settings", "runset_settings") if hasattr(built, "sections") else ("blocks", "description")
    for name in fields:
        setattr(before, name, getattr(built, name))
    return before
