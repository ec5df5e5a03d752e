from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.spec import Execution
from harness.spec.sweep import load_sweep

SWEEP = """\
name: small
axes: {method: [sft], source: [counting]}
targets: [counting]
execution: {devices: 2, sharding: fsdp}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SWEEP)
    return path


def test_devices_are_no_part_of_a_run(file: Path) -> None:
    sweep = load_sweep(file)
    assert sweep.execution == Execution(devices=2, sharding="fsdp")
    other = load_sweep(file, ["execution.devices=4", "execution.sharding=none"])
    assert other.execution == Execution(devices=4)
    assert list(other.runs) == list(sweep.runs)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("execution.devices=1", "execution.sharding 'fsdp' divides up a model, so execution.devices must be above 1"),
        ("execution.device=cuda:1", "execution.device 'cuda:1' is one device, but execution.devices is 2"),
        ("execution.devices=0", "execution.devices must be greater than or equal to 1, not 0"),
        ("execution.sharding=fdsp", "did you mean 'fsdp'?"),
    ],
)
def test_what_cannot_be_is_one_sentence(file: Path, option: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep(file, [option])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_driver_does_with_a_lost_worker_is_no_part_of_a_run(file: Path) -> None:
    sweep = load_sweep(file, ["execution.lease_s=5", "execution.max_lost=2", "execution.max_out_of_memory=0"])
    assert (sweep.execution.lease_s, sweep.execution.max_lost, sweep.execution.max_out_of_memory) == (5.0, 2, 0)
    assert list(sweep.runs) == list(load_sweep(file).runs)
    assert Execution() == Execution(halvings=0, lease_s=60.0, max_lost=5, max_out_of_memory=3)


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("execution.lease_s=0.1", "execution.lease_s must be greater than or equal to 0.5, not 0.1"),
        ("execution.max_lost=0", "execution.max_lost must be greater than or equal to 1, not 0"),
        ("execution.max_out_of_memory=-1", "execution.max_out_of_memory must be greater than or equal to 0, not -1"),
        ("execution.halvings=21", "execution.halvings must be less than or equal to 20, not 21"),
        ("execution.max_lsot=1", "did you mean 'execution.max_lost'?"),
    ],
)
def test_limits_that_cannot_be_are_one_sentence(file: Path, option: str, sentence: str) -> None:
    with pytest.raises(SpecError) as caught:
        load_sweep(file, [option])
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
