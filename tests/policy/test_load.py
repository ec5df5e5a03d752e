from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.errors import ModelError
from harness.policy import Policy, completion_log_probs, load_policy, sample


@pytest.fixture
def folder(policy_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(policy_folder, tmp_path / "model")


def test_saving_and_loading_changes_nothing(any_policy: Policy, make_prompts: Any, tmp_path: Path) -> None:
    any_policy.save(tmp_path / "again")
    again = load_policy(str(tmp_path / "again"))
    state = again.model.state_dict()
    for name, value in any_policy.model.state_dict().items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], value), name
    assert (again.end_token_ids, again.pad_token_id) == (any_policy.end_token_ids, any_policy.pad_token_id)
    prompt, same = make_prompts(any_policy)[1], make_prompts(again)[1]
    assert torch.equal(prompt.ids, same.ids) and torch.equal(prompt.pixels, same.pixels)
    assert not again.model.training


def test_bf16_weights_are_near_float32(any_policy: Policy, make_prompts: Any, tmp_path: Path) -> None:
    any_policy.save(tmp_path)
    coarse = load_policy(str(tmp_path), precision="bf16")
    batch = any_policy.batch(make_prompts(any_policy))
    ids = torch.randint(0, 250, (3, 2, 5), generator=torch.Generator().manual_seed(1))
    lengths = torch.full((3, 2), 5)
    with torch.no_grad():
        exact = completion_log_probs(any_policy, batch, any_policy.encode_images(batch), ids, lengths)
        near = completion_log_probs(coarse, batch, coarse.encode_images(batch), ids, lengths)
    assert {parameter.dtype for parameter in coarse.model.parameters()} == {torch.bfloat16}
    assert near.dtype == torch.float32
    # bf16 keeps 8 bits: a relative error of 1/256 in each of some ten roundings on the way.
    assert (near - exact).abs().max() < 0.04 * exact.abs().max()


def test_the_embedded_policy_answers() -> None:
    policy = load_policy("embedded")
    from harness.tasks.base import load_task
    from harness.tasks.prompts import training_prompt

    example = load_task("counting").example("test", 0)
    batch = policy.batch([policy.prompt(example.image, training_prompt(example.question))])
    with torch.no_grad():
        answer = sample(policy, batch, policy.encode_images(batch), max_new_tokens=48)
    assert answer.finished.all()
    assert policy.completion_text(answer.ids[0, 0].tolist()).strip()


def test_a_frozen_copy_keeps_its_weights_when_the_model_learns(policy_folder: Path) -> None:
    policy = load_policy(str(policy_folder))
    reference = policy.frozen_copy()
    before = reference.model.lm_head.weight.clone()
    with torch.no_grad():
        policy.model.lm_head.weight.add_(1.0)
    assert torch.equal(reference.model.lm_head.weight, before)
    assert not any(parameter.requires_grad for parameter in reference.model.parameters())
    assert reference.family.lm_head is reference.model.lm_head
    assert reference.model.lm_head.weight is reference.model.get_input_embeddings().weight


def test_a_missing_model_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot load the model '.*nowhere'") as raised:
        load_policy(str(tmp_path / "nowhere"))
    assert "\n" not in str(raised.value)


def test_a_base_model_without_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="has no chat template"):
        load_policy(str(folder))


def test_a_family_without_adapter_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no_such_family"}))
    with pytest.raises(ModelError, match="cannot load the model"):
        load_policy(str(folder))


def test_damaged_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_policy(str(folder))


@pytest.mark.parametrize("rows", [0, 5])
def test_weights_that_lack_a_tensor_or_part_of_it_are_refused(folder: Path, rows: int) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("q_proj.weight"))
    whole = weights.pop(name)
    save_file(
        weights | ({name: whole[:rows].contiguous()} if rows else {}),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match=r"do not fit its config.json: .*q_proj\.weight, 1 in all"):
        load_policy(str(folder))


def test_a_missing_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"does not belong to its weights|cannot load the model"):
        load_policy(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"base_model_name_or_path": null}'])
def test_an_adapter_that_names_no_model_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    with pytest.raises(ModelError, match=r"adapter_config\.json does not name a model"):
        load_policy(str(tmp_path))


def test_an_adapter_of_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tmp_path)}))
    with pytest.raises(ModelError, match="which is an adapter too"):
        load_policy(str(tmp_path))
