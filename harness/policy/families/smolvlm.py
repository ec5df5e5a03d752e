"""SmolVLM and Idefics3: square tiles, pixel shuffle, and a Llama behind them (arXiv 2504.05299, 2408.12637)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from harness.errors import ModelError
from harness.policy.families.family import Family, check_one_image
from harness.policy.prompt import Grid, Prompt


class SmolVLM(Family):
    """An adapter around `SmolVLMForConditionalGeneration` and `Idefics3ForConditionalGeneration`.

    Args:
        model: The transformers model.

    Raises:
        ModelError: The text decoder is not a Llama.
    """

    def __init__(self, model: Any) -> None:
        parts = model.model
        kind = model.config.get_text_config().model_type
        if kind != "llama":
            raise ModelError(f"the text decoder of this {model.config.model_type} is of type '{kind}', not 'llama'")
        super().__init__(
            model, parts.text_model, nn.ModuleDict({"tower": parts.vision_model, "connector": parts.connector})
        )
        config = model.config
        self.image_token_id = config.image_token_id
        # Rows, columns and the marks around an image are ordinary embeddings: sampling one does no harm.
        self.vision_token_ids = (config.image_token_id,)
        self._patches_per_token: int = (config.vision_config.patch_size * config.scale_factor) ** 2

    def prompt(self, image: Image.Image, text: str, tokenizer: Any, image_processor: Any) -> Prompt:
        """One user turn; the image's single placeholder becomes its tiles, row by row, and the whole image at last.

        transformers' processor class does the same, but wants num2words and torchvision for the sake of videos.
        """
        from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

        inputs = image_processor(images=[image.convert("RGB")], return_row_col_info=True, return_tensors="pt")
        pixels = inputs["pixel_values"][0]
        placeholder = tokenizer.convert_ids_to_tokens(self.image_token_id)
        tiles = get_image_prompt_string(
            inputs["rows"][0][0],
            inputs["cols"][0][0],
            pixels.shape[-2] * pixels.shape[-1] // self._patches_per_token,
            fake_token_around_image=getattr(tokenizer, "fake_image_token", "<fake_token_around_image>"),
            image_token=placeholder,
            global_image_token=getattr(tokenizer, "global_image_token", "<global-img>"),
        )
        content = [{"type": "image"}, {"type": "text", "text": text}]
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        check_one_image(chat.count(placeholder), placeholder)
        ids = torch.tensor(tokenizer(chat.replace(placeholder, tiles), add_special_tokens=False)["input_ids"])
        return Prompt(ids, torch.arange(len(ids))[None], pixels, (len(pixels), 1, 1))

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """Features [sum of image tokens, D] of tiles [sum of tiles, 3, height, width]."""
        tower, connector = self.visual["tower"], self.visual["connector"]
        hidden = tower(pixel_values=pixels.to(tower.dtype)).last_hidden_state
        features: Tensor = connector(hidden)
        return features.flatten(0, 1)

    def rotation(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Llama's own, on one axis; its second half repeats the first."""
        half = self.head_dim // 2
        cos, sin = self.text.rotary_emb(like, positions[0])
        return cos[:, None, :, :half], sin[:, None, :, :half]
