"""The `executor` section: which settings belong to which place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import SpecError
from harness.launch.executor import EXECUTORS
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import load_sweep

SWEEP = """\
name: small
axes: {method: [sft], source: [counting]}
targets: [counting]
executor: {type: slurm, partition: gpu, time_min: 30, slots: 8}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


def test_where_a_sweep_runs_is_no_part_of_its_runs(file: Path) -> None:
    sweep = load_sweep(file)
    assert sweep.executor == ExecutorSettings(type="slurm", partition="gpu", time_min=30, slots=8)
    file.write_text(SWEEP.replace("executor: {type: slurm, partition: gpu, time_min: 30, slots: 8}\n", ""))
    other = load_sweep(file)
    assert other.executor == ExecutorSettings() == ExecutorSettings(type="local", slots=None, grace_s=30.0)
    assert list(other.runs) == list(sweep.runs)


def test_every_type_has_an_executor() -> None:
    types = ExecutorSettings.model_json_schema()["properties"]["type"]["enum"]
    assert set(types) == set(EXECUTORS)


@pytest.mark.parametrize(
    "settings",
    [
        {"slots": 2, "grace_s": 5},
        {"type": "ray", "address": "auto", "cpus": 4, "memory_gib": 8, "slots": 2, "grace_s": 5},
        {
            "type": "slurm",
            "partition": "gpu",
            "account": "a",
            "qos": "q",
            "constraint": "c",
            "time_min": 60,
            "cpus": 4,
            "memory_gib": 8.5,
        },
    ],
    ids=lambda settings: settings.get("type", "local"),
)
def test_what_each_place_takes(settings: dict[str, Any]) -> None:
    made = ExecutorSettings(**settings)
    assert {name: getattr(made, name) for name in settings} == settings


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"partition": "gpu"}, "executor.partition belongs to slurm, but the type is local"),
        ({"address": "auto"}, "executor.address belongs to ray, but the type is local"),
        ({"cpus": 2}, "executor.cpus belongs to ray and slurm, but the type is local"),
        ({"type": "ray", "time_min": 5}, "executor.time_min belongs to slurm, but the type is ray"),
        ({"type": "slurm", "address": "auto"}, "executor.address belongs to ray, but the type is slurm"),
    ],
)
def test_a_setting_of_another_place_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValidationError, match=sentence):
        ExecutorSettings(**settings)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("executor.slots=0", "executor.slots must be greater than or equal to 1, not 0"),
        ("executor.grace_s=0", "executor.grace_s must be greater than 0, not 0"),
        ("executor.type=slrum", "did you mean 'slurm'?"),
        ("executor.partitoin=x", "did you mean 'executor.partition'?"),
        ("executor.address=auto", "executor.address belongs to ray, but the type is slurm"),
    ],
)
def test_what_cannot_be_is_one_sentence(file: Path, option: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep(file, [option])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
