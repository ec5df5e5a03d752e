"""Every family at a size for tests: transformers' own classes with random weights, in folders as the hub keeps them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from torch import Tensor

from harness.policy import Policy, Prompt, load_policy

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "smolvlm")
QUESTIONS = ("How many items are there?", "How many red cubes are there in the image?  Answer with a number.", "Why?")
SIZES = ((112, 112), (84, 140), (56, 84))

TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 2048,
}
"""Heads are wider than the hidden states are by their number, as in Qwen3."""

TILE = 32
"""Pixels of a SmolVLM tile's side."""

SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

QWEN3_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def random_model(config: Any, kind: Any, **special: Any) -> Any:
    """A model of a configuration with weights large enough that every part matters, in evaluation mode."""
    torch.manual_seed(0)
    model = kind._from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, 0.15)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
    for name, value in special.items():
        setattr(model.generation_config, name, value)
    return model.eval()


def tokenizer_with(donor: Any, tokens: list[str], template: str, **roles: Any) -> Any:
    """A tokenizer with the donor's merges and further special tokens."""
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(donor.backend_tokenizer.to_str())
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in tokens])
    return PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **roles)


def to_hub_layout(folder: Path, preprocessor: dict[str, Any], processor: dict[str, Any] | None = None) -> None:
    """What transformers saved, in the layout of its 4.x versions: the template twice, settings in their own files."""
    template = folder / "chat_template.jinja"
    held = {"chat_template": template.read_text()}
    template.unlink()
    (folder / "chat_template.json").write_text(json.dumps(held))
    tokens = folder / "tokenizer_config.json"
    tokens.write_text(json.dumps(json.loads(tokens.read_text()) | held))
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    if processor is not None:
        (folder / "processor_config.json").write_text(json.dumps(processor))


def qwen3_vl(folder: Path, donor: Any) -> None:
    """Qwen3-VL with two deepstack layers, in the layout of Qwen/Qwen3-VL-2B-Instruct."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    old = donor.model.config
    text = old.get_text_config()
    config = Qwen3VLConfig(
        text_config=TEXT
        | {
            "vocab_size": text.vocab_size,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
            },
            "eos_token_id": text.eos_token_id,
            "pad_token_id": text.pad_token_id,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": 32,
            "patch_size": 16,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=old.image_token_id,
        video_token_id=old.video_token_id,
        vision_start_token_id=old.vision_start_token_id,
        vision_end_token_id=old.vision_end_token_id,
    )
    ends = {"eos_token_id": text.eos_token_id, "pad_token_id": text.pad_token_id}
    random_model(config, Qwen3VLForConditionalGeneration, **ends).save_pretrained(folder)
    roles = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    tokenizer_with(donor.tokenizer, [], QWEN3_TEMPLATE, **roles).save_pretrained(folder)
    preprocessor = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "size": {"shortest_edge": 64 * 64, "longest_edge": 160 * 160},
        "patch_size": 16,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    to_hub_layout(folder, preprocessor)


def smolvlm(folder: Path, donor: Any, kind: str = "SmolVLM") -> None:
    """SmolVLM2, in the layout of HuggingFaceTB/SmolVLM2-500M-Video-Instruct; or Idefics3."""
    import transformers

    places = [f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)]
    marks = ["<global-img>", *places, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer = tokenizer_with(
        donor.tokenizer,
        marks,
        SMOLVLM_TEMPLATE,
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        extra_special_tokens={
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "image_token": "<image>",
        },
    )
    end, pad = tokenizer.convert_tokens_to_ids(["<end_of_utterance>", "<|im_end|>"])
    config = getattr(transformers, f"{kind}Config")(
        text_config=TEXT
        | {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": pad, "eos_token_id": end},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": TILE,
            "patch_size": 8,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=pad,
        scale_factor=2,
    )
    model_class = getattr(transformers, f"{kind}ForConditionalGeneration")
    random_model(config, model_class, eos_token_id=end, pad_token_id=pad).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor = {
        "image_processor_type": f"{kind}ImageProcessor",
        "processor_class": f"{kind}Processor",
        "do_image_splitting": True,
        "size": {"longest_edge": 3 * TILE},
        "max_image_size": {"longest_edge": TILE},
        "resample": 1,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    to_hub_layout(folder, preprocessor, {"processor_class": f"{kind}Processor", "image_seq_len": 4})


@pytest.fixture(scope="session")
def small() -> SimpleNamespace:
    """What small models are made of, for tests with architectures of their own."""
    return SimpleNamespace(TEXT=TEXT, random_model=random_model, tokenizer_with=tokenizer_with)


@pytest.fixture(scope="session")
def family_folder(
    tmp_path_factory: pytest.TempPathFactory, policy: Policy, policy_folder: Path, windowed_policy_folder: Path
) -> Callable[[str], Path]:
    """A folder with a small model of a family, made at its first use."""
    makers = {
        "qwen3_vl": qwen3_vl,
        "smolvlm": smolvlm,
        "idefics3": lambda folder, donor: smolvlm(folder, donor, "Idefics3"),
    }
    folders = {"qwen2_vl": policy_folder, "qwen2_5_vl": windowed_policy_folder}

    def find(family: str) -> Path:
        if family not in folders:
            folders[family] = tmp_path_factory.mktemp(family)
            makers[family](folders[family], policy)
        return folders[family]

    return find


@pytest.fixture(scope="session", params=FAMILIES)
def any_policy(request: pytest.FixtureRequest, policy: Policy, family_folder: Callable[[str], Path]) -> Policy:
    """Each family in turn, shared: tests leave its weights as they are."""
    return policy if request.param == "qwen2_vl" else load_policy(str(family_folder(request.param)))


@pytest.fixture(scope="session")
def pictures() -> Callable[[tuple[tuple[int, int], ...]], list[Image.Image]]:
    """Noise of given sizes, width and height in pixels."""

    def make(sizes: tuple[tuple[int, int], ...]) -> list[Image.Image]:
        rng = np.random.default_rng(0)
        return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in sizes]

    return make


@pytest.fixture(scope="session", params=["sizes differ", "sizes equal"])
def sizes(request: pytest.FixtureRequest) -> tuple[tuple[int, int], ...]:
    """Image sizes of three prompts."""
    return SIZES if request.param == "sizes differ" else ((112, 112),) * 3


@pytest.fixture(scope="session")
def make_prompts(pictures: Any) -> Callable[..., list[Prompt]]:
    """Three prompts of different length."""

    def make(policy: Policy, sizes: tuple[tuple[int, int], ...] = ((112, 112),) * 3) -> list[Prompt]:
        return [policy.prompt(image, text) for image, text in zip(pictures(sizes), QUESTIONS, strict=True)]

    return make


@pytest.fixture(scope="session")
def model_inputs() -> Callable[[Policy, Tensor, Sequence[Prompt]], dict[str, Tensor]]:
    """What transformers' own forward and `generate` take for rows of ids, one a prompt: none is padded unless told."""

    def build(policy: Policy, ids: Tensor, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if policy.model.config.model_type in ("smolvlm", "idefics3"):
            # transformers wants as many tiles in each row, and leaves out those that are all zeros.
            most = max(len(prompt.pixels) for prompt in prompts)
            tiles = torch.zeros(len(prompts), most, *prompts[0].pixels.shape[1:])
            for row, prompt in enumerate(prompts):
                tiles[row, : len(prompt.pixels)] = prompt.pixels
            return inputs | {"pixel_values": tiles}
        return inputs | {
            "pixel_values": torch.cat([prompt.pixels for prompt in prompts]),
            "image_grid_thw": torch.tensor([prompt.grid for prompt in prompts]),
            "mm_token_type_ids": (ids == policy.family.image_token_id).int(),
        }

    return build


@pytest.fixture(scope="session")
def plain_log_probs(model_inputs: Any) -> Callable[[Policy, Prompt, Tensor], Tensor]:
    """A completion's log-probs by transformers' own forward: one sequence at a time, nothing shared, full softmax."""

    def compute(policy: Policy, prompt: Prompt, ids: Tensor) -> Tensor:
        tokens = torch.cat([prompt.ids, ids])[None]
        logits = policy.model(**model_inputs(policy, tokens, [prompt])).logits[0]
        logits = logits.index_fill(1, torch.tensor(policy.family.vision_token_ids), -torch.inf)
        return logits.log_softmax(-1)[len(prompt.ids) - 1 : -1].gather(1, ids[:, None])[:, 0]

    return compute


@pytest.fixture
def uncompiled_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Tensor]:
    """torch's block-sparse kernel as plain operations: those have gradients on a CPU, the compiled ones have none."""
    from torch.nn.attention import flex_attention as flex

    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    monkeypatch.setattr(flex, "_validate_device", lambda query, key, value: None)
    kernel: Callable[..., Tensor] = flex.flex_attention
    return kernel
