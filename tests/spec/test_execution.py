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
