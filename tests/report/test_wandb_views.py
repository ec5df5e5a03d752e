"""Workspaces and reports in W&B: their JSON, and what a server is sent; verbs included."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from typer.testing import CliRunner
from wandb_server import Server

from harness.cli import app
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.spec.sweep import load_sweep

# wandb-workspaces' own, at its import.
pytestmark = pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecatedSince20")

SWEEP = """\
name: small
axes: {method: [base, grpo, grpo_d], source: [counting, geometry], seed: [0, 1]}
base: {model: Qwen/Qwen2-VL-2B-Instruct}
blocks:
  - where: {method: grpo_d}
    axes: {schedule: [othink, linear], format_weight: [0.5, 1.0]}
targets: [counting, geometry]
"""


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    file = tmp_path / "small.yaml"
    file.write_text(SWEEP)
    return file


def verb(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["wandb", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def dry(kind: str, sweep: Path, *more: object) -> dict[str, Any]:
    code, text, _ = verb(kind, sweep, "--dry-run", "--results", sweep.parent / "results", *more)
    assert code == 0
    view: dict[str, Any] = json.loads(text)
    return view


def test_a_workspace_compares_methods_with_seeds_averaged(sweep: Path) -> None:
    view = dry("workspace", sweep, "--entity", "us", "--project", "ours")
    assert (view["entityName"], view["projectName"], view["displayName"]) == ("us", "ours", "small")
    section = view["spec"]["section"]
    panels = {one["name"]: [p["config"] for p in one["panels"]] for one in section["panelBankConfig"]["sections"]}
    assert list(panels) == [
        *("Method comparison", "Ablation: schedule", "Ablation: format_weight"),
        *("Validation", "Training", "Completions and evaluations"),
    ]
    bars = panels["Method comparison"]
    assert [bar["metrics"] for bar in bars] == [
        *(["test/counting/accuracy"], ["test/geometry/accuracy"], ["score/same_task"], ["score/cross_task"]),
    ]
    assert all((bar["groupAgg"], bar["groupArea"]) == ("mean", "stderr") for bar in bars + panels["Training"])
    assert all(line["xAxis"] == "step" for line in panels["Training"] + panels["Validation"])
    schedules, weights = panels["Ablation: schedule"], panels["Ablation: format_weight"]
    assert {panel["groupBy"] for panel in schedules} == {"method.value.schedule.type"}
    assert {(panel["xAxis"], panel["yAxis"]) for panel in weights} == {
        ("config:method.value.format_weight", f"summary:test/{target}/accuracy") for target in ("counting", "geometry")
    }
    (runs,) = section["runSets"]
    assert [key["name"] for key in runs["grouping"]] == [
        *("label.value", "method.value.schedule.type", "method.value.format_weight"),
    ]
    ids = {f"{run_id.split('-')[-2]}-g1" for run_id in load_sweep(sweep).runs}
    (picked,) = runs["filters"]["filters"]
    assert (picked["key"]["name"], picked["op"], set(picked["value"])) == ("name", "IN", ids)
    assert len(ids) == 1 + 4 + 16


def test_the_runs_are_picked_by_the_ids_they_have(sweep: Path) -> None:
    results = sweep.parent / "results"
    run = next(run for run in load_sweep(sweep).runs.values() if run.spec.method.type == "grpo")
    record = {"run_id": run.run_id, "spec": run.spec.model_dump(mode="json"), "attempts": [{"generation": 3}]}
    write_json(RunFolder(results, run.run_id).run_json, record)
    (picked,) = dry("workspace", sweep)["spec"]["section"]["runSets"][0]["filters"]["filters"]
    generations = sorted(name.partition("-")[2] for name in picked["value"])
    assert generations == ["g1"] * 20 + ["g3"]
    assert f"{run.run_id.split('-')[-2]}-g3" in picked["value"]


def test_a_report_holds_our_tables_and_an_ablation_of_each_group(sweep: Path) -> None:
    blocks = dry("report", sweep)["spec"]["blocks"]
    (text,) = (block["content"] for block in blocks if block["type"] == "markdown-block")
    assert "| grpo_d" in text and "Cross task" in text
    grids = {
        block["metadata"]["runSets"][0]["name"]: block["metadata"] for block in blocks if block["type"] == "panel-grid"
    }
    ablated = [name for name in grids if name.startswith("method.")]
    assert len(ablated) == 2 * 2 + 2 * 2  # per source: the schedules at each weight, the weights at each schedule
    assert all(name.split(": ")[1].startswith("grpo_d on ") for name in ablated)
    ids = [grid["runSets"][0]["id"] for grid in grids.values()]
    panels = [panel["__id__"] for grid in grids.values() for panel in grid["panelBankSectionConfig"]["panels"]]
    assert len(set(ids)) == len(ids) and len(set(panels)) == len(panels)
    for name in ablated:
        (picked,) = grids[name]["runSets"][0]["filters"]["filters"]
        points = 3 if name.startswith("method.schedule:") else 2  # plain GRPO is one of the schedules
        assert len(picked["value"]) == 2 * points, name


def test_the_json_is_the_same_each_time(sweep: Path) -> None:
    assert dry("workspace", sweep) == dry("workspace", sweep)
    assert dry("report", sweep) == dry("report", sweep)


@pytest.mark.parametrize("kind", ["workspace", "report"])
def test_what_is_saved_is_what_was_printed_and_is_saved_over(
    kind: str, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = dry(kind, sweep, "--entity", "someone")
    results = sweep.parent / "results"
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        wandb.teardown()
        for _ in range(2):
            code, text, _ = verb(kind, sweep, "--results", results)
            assert code == 0 and text.startswith(f"{kind} of small: {server.url}/someone/harness")
        first, second = server.views
        server.views.clear()  # deleted on the server
        assert verb(kind, sweep, "--results", results)[0] == 0
        wandb.teardown()
    assert server.unknown == []
    assert first["id"] == second["id"] != server.views[-1]["id"]
    assert json.loads(first["spec"]) == printed["spec"]
    assert [first[key] for key in ("entityName", "projectName", "displayName")] == [
        printed[key] for key in ("entityName", "projectName", "displayName")
    ]


@pytest.mark.parametrize("kind", ["workspace", "report"])
def test_what_the_server_refuses_is_one_sentence(kind: str, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        server.refuses.update({"UpsertView2", "upsertView"})
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        code, text, err = verb(kind, sweep, "--entity", "someone", "--results", sweep.parent / "results")
        wandb.teardown()
    assert (code, text) == (2, "")
    assert err.splitlines()[-1].startswith(f"W&B at {server.url}: ") and "not allowed" in err


@pytest.mark.parametrize("kind", ["workspace", "report", "sync"])
def test_without_a_login_it_is_one_sentence(kind: str, sweep: Path) -> None:
    code, text, err = verb(kind, sweep, "--results", sweep.parent / "results")
    assert (code, text) == (2, "")
    assert err == "not logged in to W&B: run `wandb login`, or set WANDB_API_KEY\n"


def test_an_unknown_sweep_is_one_sentence(sweep: Path) -> None:
    code, _, err = verb("workspace", "smal", "--dry-run", "--results", sweep.parent / "results")
    assert code == 2 and err.startswith("no sweep 'smal' on record")


def test_sync_tells_of_every_run(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    code, text, _ = verb("sync", sweep, "--results", sweep.parent / "results")
    assert code == 0
    *lines, last = text.splitlines()
    assert len(lines) == 21 and lines[0] == f"1/21 {next(iter(load_sweep(sweep).runs))}: not started"
    assert last == "21 runs: 21 not started; offline"
