"""Imports point one way, and each room imports no more than it needs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import harness

PACKAGE = Path(harness.__file__).parent

LEGAL: dict[str, set[str]] = {
    "errors": set(),
    "pause": set(),
    "spec": {"errors", "pause"},
    "tasks": {"errors", "spec"},
    "policy": {"errors", "spec", "tasks"},
    "train": {"errors", "spec", "tasks", "policy"},
    "evaluate": {"errors", "spec", "tasks", "policy", "train"},
    "record": {"errors", "pause", "spec"},
    "launch": {"errors", "pause", "spec", "record"},
    "report": {"errors", "pause", "spec", "record", "tasks"},
    "worker": {"errors", "spec", "tasks", "policy", "train", "evaluate", "record"},
}
"""What each room may import, wherever in a file the import stands. The rest is the command line and its verbs."""

ON_TOP = {"__init__", "__main__", "cli", "doctor", "device_check", "base_build"}

HEAVY = ("torch", "transformers", "accelerate", "numpy", "pandas", "scipy", "wandb", "optuna", "datasets", "matplotlib")


def imported(file: Path) -> Iterator[str]:
    """Rooms of the package that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("harness.") and "__" not in name)


def rooms() -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        found.setdefault(file.relative_to(PACKAGE).parts[0].removesuffix(".py"), []).append(file)
    return found


def test_every_room_has_its_rule() -> None:
    assert rooms().keys() == LEGAL.keys() | ON_TOP


@pytest.mark.parametrize("room", LEGAL)
def test_imports_point_one_way(room: str) -> None:
    for file in rooms()[room]:
        assert set(imported(file)) <= LEGAL[room] | {room}, file


def loaded_by(module: str) -> set[str]:
    """The heavy libraries that importing a module brings into a fresh interpreter."""
    code = f"import sys, {module}; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module", ["harness", "harness.cli", "harness.spec", "harness.spec.sweep", "harness.launch.plan"]
)
def test_planning_imports_nothing_heavy(module: str) -> None:
    assert loaded_by(module) == set()


@pytest.mark.parametrize("module", ["harness.record", "harness.launch.driver", "harness.worker"])
def test_launching_and_recording_import_nothing_heavy(module: str) -> None:
    assert loaded_by(module) == set()


@pytest.mark.parametrize("module", ["harness.report.tables", "harness.report.collect"])
def test_reporting_imports_no_torch(module: str) -> None:
    assert not loaded_by(module) & {"torch", "transformers", "accelerate", "wandb", "datasets"}


@pytest.mark.parametrize("task", ["counting", "geometry", "relations", "charts", "data.published"])
def test_tasks_import_no_torch(task: str) -> None:
    assert loaded_by(f"harness.tasks.{task}") <= {"numpy"}


def test_training_needs_no_library_of_reporting_tracking_or_search() -> None:
    unwanted = {"wandb", "pandas", "optuna", "datasets", "matplotlib"}
    assert not loaded_by("harness.train.loop, harness.train.grpo, harness.train.sft, harness.evaluate") & unwanted
