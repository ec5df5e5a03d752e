"""How a repository's own files turn questions and images into numbers: tokenizer, chat template, image processor.

Repositories keep these in several layouts, by the version of transformers that wrote them; all of them are read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.policy.families import FAMILIES


@dataclass(frozen=True)
class Processing:
    """What stands beside a model's weights.

    Attributes:
        tokenizer: With the chat template, wherever it was.
        image_processor: In its PIL backend.
        processor: transformers' processor, where the family has no adapter of ours.
        settings: What processor_config.json says beside, such as SmolVLM's `image_seq_len`; transformers' processor of
            a saved checkpoint needs it.
    """

    tokenizer: Any
    image_processor: Any
    processor: Any
    settings: Mapping[str, Any]


def read_processing(source: str, model_type: str) -> Processing:
    """Reads a folder, or a repository of the hub or its local cache.

    Args:
        source: The folder or name.
        model_type: Of its configuration.

    Raises:
        OSError: A file is missing.
        ValueError: A file does not say what transformers can read.
        ImportError: The model's own processor needs a package that is not installed.
    """
    from transformers import AutoProcessor, AutoTokenizer
    from transformers.processing_utils import ProcessorMixin

    if model_type not in FAMILIES:
        processor = AutoProcessor.from_pretrained(source, trust_remote_code=False)
        if processor.tokenizer.chat_template is None:
            processor.tokenizer.chat_template = processor.chat_template
        return Processing(processor.tokenizer, processor.image_processor, processor, {})
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    settings: dict[str, Any] = ProcessorMixin.get_processor_dict(source)[0]
    # Many repositories keep the template in chat_template.json, where only processor classes look.
    tokenizer.chat_template = settings.get("chat_template") or tokenizer.chat_template
    plain = {key: value for key, value in settings.items() if key != "chat_template" and not isinstance(value, dict)}
    return Processing(tokenizer, _image_processor(source), None, plain)


def _image_processor(source: str) -> Any:
    """In its PIL backend: the other one needs torchvision."""
    from transformers import AutoImageProcessor
    from transformers.image_processing_base import ImageProcessingMixin
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    settings, _ = ImageProcessingMixin.get_image_processor_dict(source)
    # What the first Qwen2.5-VL repositories name is gone from transformers; it was Qwen2-VL's under another name.
    if settings.get("image_processor_type") == "Qwen2_5_VLImageProcessor":
        return Qwen2VLImageProcessorPil.from_pretrained(source)
    return AutoImageProcessor.from_pretrained(source, backend="pil", trust_remote_code=False)
