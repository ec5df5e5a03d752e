"""Folders as repositories of the hub hold them, older ones and those of transformers 5, load to the same policy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.policy import Policy, load_policy

SIZES = ((112, 112), (84, 140), (56, 84))
TEMPLATE_FILES = ("chat_template.json", "tokenizer_config.json", "processor_config.json")


@pytest.fixture
def copy_of(family_folder: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A copy of a family's folder to change."""
    return lambda family: shutil.copytree(family_folder(family), tmp_path / "model")


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text())


def take_template(folder: Path) -> str:
    """The chat template, taken out of wherever it is."""
    jinja, legacy, tokens = (folder / name for name in ("chat_template.jinja", *TEMPLATE_FILES[:2]))
    template = jinja.read_text() if jinja.exists() else read(legacy)["chat_template"]
    jinja.unlink(missing_ok=True)
    legacy.unlink(missing_ok=True)
    tokens.write_text(json.dumps({key: value for key, value in read(tokens).items() if key != "chat_template"}))
    return template


def assert_same(policy: Policy, other: Policy, make_prompts: Any, model_inputs: Any) -> None:
    prompts, same = make_prompts(policy, SIZES), make_prompts(other, SIZES)
    for one, two in zip(prompts, same, strict=True):
        assert torch.equal(one.ids, two.ids) and torch.equal(one.pixels, two.pixels) and one.grid == two.grid
    assert (policy.end_token_ids, policy.pad_token_id) == (other.end_token_ids, other.pad_token_id)
    inputs = model_inputs(policy, prompts[0].ids[None], prompts[:1])
    with torch.no_grad():
        assert torch.equal(policy.model(**inputs).logits, other.model(**inputs).logits)


@pytest.mark.parametrize(
    ("family", "image_processor"),
    [
        ("qwen2_vl", "Qwen2VLImageProcessor"),
        ("qwen2_5_vl", "Qwen2VLImageProcessor"),
        ("qwen2_5_vl", "Qwen2_5_VLImageProcessor"),
    ],
)
def test_the_layout_of_transformers_4(
    family: str, image_processor: str, copy_of: Any, family_folder: Any, make_prompts: Any, model_inputs: Any
) -> None:
    """Qwen/Qwen2-VL-2B-Instruct's: a flat configuration, bounds as min_pixels and max_pixels, the template twice."""
    folder = copy_of(family)
    config = read(folder / "config.json")
    text = config.pop("text_config")
    text.pop("model_type")
    text.pop("layer_types")
    rope = text.pop("rope_parameters")
    text |= {
        "rope_theta": rope["rope_theta"],
        "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
        "torch_dtype": text.pop("dtype"),
    }
    vision = {key: value for key, value in config["vision_config"].items() if key not in ("rope_parameters", "dtype")}
    vision |= {"in_chans": vision.pop("in_channels"), "spatial_patch_size": 14}
    vision.pop("model_type")
    (folder / "config.json").write_text(json.dumps(config | text | {"vision_config": vision}))

    images = read(folder / "preprocessor_config.json")
    old = {key: images[key] for key in ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")}
    old |= {"min_pixels": images["size"]["shortest_edge"], "max_pixels": images["size"]["longest_edge"]}
    old |= {"image_processor_type": image_processor, "processor_class": image_processor.replace("Image", "")}
    (folder / "preprocessor_config.json").write_text(json.dumps(old))

    template = take_template(folder)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    tokens = read(folder / "tokenizer_config.json")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens | {"chat_template": template}))
    assert_same(load_policy(str(family_folder(family))), load_policy(str(folder)), make_prompts, model_inputs)


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
@pytest.mark.parametrize("place", ["chat_template.jinja", *TEMPLATE_FILES])
def test_the_chat_template_is_found_wherever_it_is(
    family: str, place: str, copy_of: Any, family_folder: Any, make_prompts: Any, model_inputs: Any
) -> None:
    folder = copy_of(family)
    template = take_template(folder)
    if place.endswith(".jinja"):
        (folder / place).write_text(template)
    else:
        held = read(folder / place) if (folder / place).exists() else {}
        (folder / place).write_text(json.dumps(held | {"chat_template": template}))
    assert_same(load_policy(str(family_folder(family))), load_policy(str(folder)), make_prompts, model_inputs)


@pytest.mark.parametrize("family", ["qwen3_vl", "smolvlm"])
def test_the_layout_of_transformers_5(
    family: str, copy_of: Any, family_folder: Any, make_prompts: Any, model_inputs: Any
) -> None:
    """All of a processor in processor_config.json."""
    folder = copy_of(family)
    (folder / "chat_template.jinja").write_text(take_template(folder))
    images = read(folder / "preprocessor_config.json")
    (folder / "preprocessor_config.json").unlink()
    file = folder / "processor_config.json"
    held = read(file) if file.exists() else {}
    file.write_text(json.dumps(held | {"image_processor": images, "processor_class": images["processor_class"]}))
    policy, other = load_policy(str(family_folder(family))), load_policy(str(folder))
    assert_same(policy, other, make_prompts, model_inputs)


def test_what_is_saved_is_a_model_of_plain_transformers(
    any_policy: Policy, make_prompts: Any, model_inputs: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    any_policy.save(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    prompts = make_prompts(any_policy, SIZES)
    inputs = model_inputs(any_policy, prompts[1].ids[None], prompts[1:2])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, any_policy.model(**inputs).logits)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == any_policy.tokenizer.chat_template
    assert model.generation_config.eos_token_id == any_policy.model.generation_config.eos_token_id
    if any_policy.model.config.model_type == "smolvlm":
        # Without it transformers' processor would put 169 tokens in the place of each tile.
        assert read(tmp_path / "processor_config.json")["image_seq_len"] == 4
