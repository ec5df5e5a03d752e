"""Run identity: equal trainings have one name, different trainings different names."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.errors import ModelError
from harness.spec import Evaluation, Job, RunSpec
from harness.spec.run import NUM_SEEDS, AnySeed, model_identity

QWEN = "Qwen/Qwen2-VL-2B-Instruct"
GRPO: dict[str, Any] = {"model": QWEN, "method": {"type": "grpo"}, "source": "counting", "num_train": 100, "seed": 0}


def run_id(**changes: Any) -> str:
    return RunSpec.model_validate(GRPO | changes).run_id


def test_run_ids_are_readable() -> None:
    assert re.fullmatch(r"grpo-counting-s0-[0-9a-f]{10}-v1", run_id())
    assert re.fullmatch(r"base-[0-9a-f]{10}-v1", run_id(method="base"))


def test_equal_specs_have_equal_ids_however_they_are_written() -> None:
    assert run_id(method="grpo") == run_id()
    assert run_id(method={"type": "grpo", "lr": 1e-6, "format_weight": 1}) == run_id()
    assert run_id(method={"type": "grpo", "schedule": {"beta": 0.04}}) == run_id()
    assert RunSpec.model_validate_json(RunSpec.model_validate(GRPO).model_dump_json()).run_id == run_id()


def test_the_id_is_the_same_in_another_process() -> None:
    code = f"from harness.spec import RunSpec; print(RunSpec.model_validate({GRPO!r}).run_id)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == run_id()


SETTINGS = {
    "num_steps": 50,
    "prompts_per_step": 4,
    "lr": 2e-6,
    "lr_schedule": "cosine",
    "warmup_frac": 0.2,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "max_grad_norm": 0.5,
    "group_size": 4,
    "temperature": 0.7,
    "max_completion_length": 64,
    "clip_epsilon": 0.1,
    "updates_per_rollout": 2,
    "format_weight": 0.5,
    "advantage_scale": "none",
    "loss_normalizer": "constant",
    "kl_estimator": "k1",
    "schedule": {"type": "constant", "beta": 0.01},
}


def test_every_setting_of_the_method_changes_the_id() -> None:
    method = RunSpec.model_validate(GRPO).method
    assert SETTINGS.keys() == type(method).model_fields.keys() - {"type"}
    ids = {run_id(method={"type": "grpo", name: value}) for name, value in SETTINGS.items()}
    assert len(ids | {run_id()}) == len(SETTINGS) + 1


@pytest.mark.parametrize(
    "change",
    [
        {"model": "Qwen/Qwen2-VL-7B-Instruct"},
        {"method": {"type": "sft"}},
        {"source": "geometry"},
        {"num_train": 101},
        {"seed": 1},
        {"precision": "bf16"},
        {"max_pixels": 401408},
        {"vision": "frozen"},
        {"lora_rank": 8},
        {"lora_rank": 8, "lora_alpha": 8.0},
    ],
)
def test_every_other_field_of_the_run_changes_the_id(change: dict[str, Any]) -> None:
    assert run_id(**change) != run_id()


def test_fields_that_came_later_leave_the_ids_of_before_at_their_defaults() -> None:
    assert run_id(max_pixels=None, vision="trained", lora_rank=0, lora_alpha=16.0) == run_id()
    assert run_id(lora_rank=8, lora_alpha=32.0) == run_id(lora_rank=8) != run_id(lora_rank=8, lora_alpha=16.0)
    base = run_id(method="base")
    assert run_id(method="base", vision="frozen", lora_rank=8) == base != run_id(method="base", max_pixels=401408)


def test_where_and_how_a_run_is_looked_at_is_no_part_of_it() -> None:
    spec = RunSpec.model_validate(GRPO)
    jobs = [
        Job(spec=spec, targets=("counting",)),
        Job(spec=spec, targets=("counting", "geometry"), evaluation=Evaluation(num_examples=5), num_threads=1),
    ]
    assert {job.spec.run_id for job in jobs} == {run_id()}
    assert not RunSpec.model_fields.keys() & (Job.model_fields.keys() - {"spec"})


def test_base_has_no_source_no_data_and_no_seed() -> None:
    ids = {run_id(method="base", source=source, seed=s) for source in ("counting", "geometry") for s in (0, 1)}
    assert len(ids) == 1
    spec = RunSpec.model_validate(GRPO | {"method": "base", "seed": 3})
    assert (spec.source, spec.num_train, spec.seed) == (None, 0, 0)
    assert run_id(method="base", model="Qwen/Qwen2-VL-7B-Instruct") not in ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": "countin"}, "did you mean 'counting'"),
        ({"source": None}, "needs a source"),
        ({"num_train": 0}, "num_train must be at least 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"precision": "fp8"}, "float32"),
        ({"method": "ppo"}, "ppo"),
        ({"lr": 1}, "Extra inputs"),
    ],
)
def test_impossible_runs_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RunSpec.model_validate(GRPO | change)


def _folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_a_model_folder_is_known_by_its_content(tmp_path: Path) -> None:
    one, same = _folder(tmp_path / "one"), _folder(tmp_path / "same")
    assert run_id(model=str(one)) == run_id(model=str(same)) != run_id()
    before = run_id(model=str(one))
    (one / "model.safetensors").write_bytes(b"Weights")
    assert run_id(model=str(one)) != before
    (same / "config.json").write_text('{"a": 1}')
    assert run_id(model=str(same)) != before


def test_the_middle_of_a_large_file_may_differ_but_not_its_size_head_or_tail(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model", bytes(1 << 18))
    before = model_identity(str(folder))
    for place in (0, (1 << 18) - 1):
        changed = bytearray(1 << 18)
        changed[place] = 1
        (folder / "model.safetensors").write_bytes(changed)
        assert model_identity(str(folder)) != before
    (folder / "model.safetensors").write_bytes(bytes((1 << 18) + 1))
    assert model_identity(str(folder)) != before


def test_a_folder_without_weights_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        run_id(model=str(tmp_path))


def test_the_embedded_policy_is_known_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.spec.run.embedded_folder", lambda: tmp_path)
    with pytest.raises(ModelError, match="harness base build"):
        run_id(model="embedded")
    (tmp_path / "card.json").write_text(json.dumps({"sha256": "a" * 64}))
    first = run_id(model="embedded")
    (tmp_path / "card.json").write_text(json.dumps({"sha256": "b" * 64}))
    assert run_id(model="embedded") != first


@pytest.mark.parametrize(
    "change", [{}, {"method": "sft"}, {"source": "geometry", "max_pixels": 99, "lora_rank": 4}, {"vision": "frozen"}]
)
def test_runs_that_differ_in_their_seed_are_named_as_each_by_itself(change: dict[str, Any]) -> None:
    one = RunSpec.model_validate(GRPO | change | {"seed": 7})
    for seed in (0, 1, 12345, NUM_SEEDS - 1):
        spec = RunSpec.model_validate(GRPO | change | {"seed": seed})
        assert (AnySeed(one).spec(seed), AnySeed(one).run_id(seed)) == (spec, spec.run_id)
        # As the ids were first made: the digest of the whole spec in JSON, without later fields at their defaults.
        content = spec.model_dump(mode="json") | {"model": model_identity(spec.model)}
        late = {"max_pixels": None, "vision": "trained", "lora_rank": 0, "lora_alpha": 32.0}
        content = {key: value for key, value in content.items() if value != late.get(key, ...)}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest()[:10] == spec.run_id.split("-")[-2]
