"""A loaded vision-language model, and the way from an image and a text to token ids and back."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from harness.errors import ModelError
from harness.policy.families import adapt
from harness.policy.families.plain import Plain, cost
from harness.policy.learning import add_saved_adapter
from harness.policy.processing import Processing, read_processing
from harness.policy.prompt import Prompt, PromptBatch, batch_prompts
from harness.spec.run import embedded_folder


class Policy:
    """A model with its tokenizer and image processor.

    Args:
        model: A transformers model; without an adapter in :mod:`harness.policy.families` it needs `processor`.
        tokenizer: Its tokenizer, with a chat template.
        image_processor: Its image processor.
        processor: Its own processor, where the family has no adapter.
        settings: What its processor_config.json says beside.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        processor: Any = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.processor = processor
        self.settings = dict(settings or {})
        self.family = adapt(model, processor)
        end = model.generation_config.eos_token_id if model.generation_config is not None else None
        ends = end if isinstance(end, list) else [tokenizer.eos_token_id if end is None else end]
        self.end_token_ids: tuple[int, ...] = tuple(ends)
        self.pad_token_id: int = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def prompt(self, image: Image.Image, text: str) -> Prompt:
        """One user turn, the image before the text, with the assistant's turn opened behind it."""
        return self.family.prompt(image, text, self.tokenizer, self.image_processor)

    def batch(self, prompts: Sequence[Prompt]) -> PromptBatch:
        """Prompts as one left-padded batch on the model's device."""
        return batch_prompts(prompts, self.device, self.pad_token_id)

    def encode_images(self, batch: PromptBatch) -> Tensor:
        """Image features [sum of image tokens, D] of a batch."""
        return self.family.encode_images(batch.pixels, batch.grids)

    def num_image_tokens(self, batch: PromptBatch) -> list[int]:
        """How many rows of a batch's image features belong to each prompt."""
        counts: list[int] = (batch.ids == self.family.image_token_id).sum(dim=1).tolist()
        return counts

    def completion_ids(self, text: str) -> list[int]:
        """A completion's token ids with the end of the turn behind it, as a target of supervised training."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.end_token_ids[0]]

    def completion_text(self, ids: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def frozen_copy(self) -> Policy:
        """A copy that never changes: the reference of the KL term."""
        model = copy.deepcopy(self.model).requires_grad_(False).eval()
        return Policy(model, self.tokenizer, self.image_processor, self.processor, self.settings)

    def save(self, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Writes weights (safetensors), configuration, tokenizer and image processor, as transformers reads them.

        With a LoRA adapter, the adapter alone is written, in peft's layout, with the name of the model it belongs to.

        Args:
            folder: Where to.
            weights: In place of the model's own state, by its names.
        """
        self.model.save_pretrained(folder, state_dict=None if weights is None else dict(weights))
        if self.processor is not None:
            self.processor.save_pretrained(folder)
        else:
            self.tokenizer.save_pretrained(folder)
            self.image_processor.save_pretrained(folder)
            if self.settings:
                (folder / "processor_config.json").write_text(json.dumps(self.settings, indent=2))
        # safetensors writes for the owner alone; a run's or a package's weights are there to be read.
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)


def load_policy(
    model: str,
    device: torch.device | str = "cpu",
    *,
    precision: str = "float32",
    max_pixels: int | None = None,
) -> Policy:
    """Loads a model: the embedded one, a folder, or a name of the hub (or its local cache).

    Only safetensors are read and no code from the model's repository is run. A folder with an adapter (LoRA) is read on
    top of the model that it names.

    Args:
        model: As in a run's spec.
        device: Where the weights go.
        precision: Of the weights, `float32` or `bf16`.
        max_pixels: Images are scaled down to this many pixels; None for the processor's own bound.

    Raises:
        ModelError: There is no such model, its files do not belong together, or its images have no such bound.
    """
    adapter = Path(model) / "adapter_config.json"
    if adapter.is_file():
        policy = load_policy(_base_of(adapter), device, precision=precision, max_pixels=max_pixels)
        add_saved_adapter(policy, Path(model))
        return policy
    source = str(embedded_folder()) if model == "embedded" else model
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    loaded, processing = _read(model, source, dtype)
    tokenizer = processing.tokenizer
    if tokenizer.chat_template is None:
        raise ModelError(f"the model '{model}' has no chat template; a base model cannot be asked a question")
    if max_pixels is not None:
        _bound(processing.image_processor, max_pixels, model)
    policy = Policy(
        loaded.to(device).eval(), tokenizer, processing.image_processor, processing.processor, processing.settings
    )
    if isinstance(policy.family, Plain):
        warnings.warn(cost(loaded.config.model_type), stacklevel=2)
        return policy
    turn = tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    if policy.family.image_token_id not in tokenizer(turn, add_special_tokens=False)["input_ids"]:
        raise ModelError(f"the tokenizer of '{model}' does not belong to its weights: it makes no image token")
    return policy


def _base_of(adapter: Path) -> str:
    """The model that an `adapter_config.json` names.

    Raises:
        ModelError: It names none, or a further adapter.
    """
    try:
        base = json.loads(adapter.read_text())["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str):
        raise ModelError(f"{adapter} does not name a model as its base_model_name_or_path")
    if (Path(base) / adapter.name).is_file():
        raise ModelError(f"{adapter} names {base}, which is an adapter too: name the model under both")
    return base


def _read(name: str, source: str, dtype: torch.dtype) -> tuple[Any, Processing]:
    """The model as transformers reads it, and what stands beside it."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        loaded, report = AutoModelForImageTextToText.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        processing = read_processing(source, config.model_type)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError(f"cannot load the model '{name}': {str(error).splitlines()[0]}") from error
    # transformers puts random numbers in the place of weights that are missing or of another shape.
    lost = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if lost:
        raise ModelError(f"the weights of '{name}' do not fit its config.json: {lost[0]}, {len(lost)} in all")
    return loaded, processing


def _bound(image_processor: Any, max_pixels: int, model: str) -> None:
    """Sets the most pixels of an image, where the processor counts pixels."""
    smallest = getattr(image_processor.size, "shortest_edge", None)
    if not hasattr(image_processor, "merge_size") or smallest is None:
        raise ModelError(f"max_pixels is {max_pixels}, but the images of '{model}' are not bounded by their pixels")
    if max_pixels < smallest:
        raise ModelError(f"max_pixels is {max_pixels}, but '{model}' takes no image below {smallest} pixels")
    image_processor.size = {"shortest_edge": smallest, "longest_edge": max_pixels}
