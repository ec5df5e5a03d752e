"""A loaded vision-language model, and the way from an image and a text to token ids and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from harness.errors import ModelError
from harness.policy.families import adapt
from harness.policy.prompt import Prompt, PromptBatch, batch_prompts
from harness.spec.run import embedded_folder


class Policy:
    """A model with its tokenizer and image processor.

    Args:
        model: A transformers model of a known family, see :mod:`harness.policy.families`.
        tokenizer: Its tokenizer, with a chat template.
        image_processor: Its image processor.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.family = adapt(model)
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
        return Policy(model, self.tokenizer, self.image_processor)

    def save(self, folder: Path) -> None:
        """Writes weights (safetensors), configuration, tokenizer and image processor, as transformers reads them."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        # safetensors writes for the owner alone; a run's or a package's weights are there to be read.
        for file in folder.glob("*.safetensors"):
            file.chmod(0o644)


def load_policy(model: str, device: torch.device | str = "cpu") -> Policy:
    """Loads a model with float32 weights: the embedded one, a folder, or a name of the hub (or its local cache).

    Only safetensors are read and no code from the model's repository is run.

    Raises:
        ModelError: There is no such model, or it has no adapter.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    source = str(embedded_folder()) if model == "embedded" else model
    try:
        config = AutoConfig.from_pretrained(source)
        loaded: Any
        loaded, report = AutoModelForImageTextToText.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            attn_implementation="sdpa",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(source)
        # The PIL backend: the other one needs torchvision.
        image_processor = Qwen2VLImageProcessorPil.from_pretrained(source)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"cannot load the model '{model}': {str(error).splitlines()[0]}") from error
    # transformers puts random numbers in the place of weights that are missing or of another shape.
    lost = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if lost:
        raise ModelError(f"the weights of '{model}' do not fit its config.json: {lost[0]}, {len(lost)} in all")
    if tokenizer.chat_template is None:
        raise ModelError(f"the model '{model}' has no chat template; a base model cannot be asked a question")
    policy = Policy(loaded.to(device).eval(), tokenizer, image_processor)
    turn = tokenizer.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}], tokenize=False)
    if policy.family.image_token_id not in tokenizer(turn, add_special_tokens=False)["input_ids"]:
        raise ModelError(f"the tokenizer of '{model}' does not belong to its weights: it makes no image token")
    return policy
