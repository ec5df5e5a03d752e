"""A model without an adapter: transformers' own processor, `generate` and forward pass, with nothing shared.

Slower than an adapter, and any architecture: prompts, draws and log-probs mean what they mean for the other families
(tested on models that have both).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.errors import DataError, ModelError
from harness.policy.prompt import Grid, Prompt, PromptBatch

if TYPE_CHECKING:
    from harness.policy.policy import Policy
    from harness.policy.sampling import Completions

_VISION_TOKENS = tuple(f"{name}_token_{end}" for name in ("image", "video", "boi", "eoi") for end in ("id", "index"))
_VISION_TOKENS += ("vision_start_token_id", "vision_end_token_id")


def cost(model_type: str) -> str:
    """What it costs to have no adapter, in one sentence for the log."""
    return (
        f"models of type '{model_type}' have no adapter here and take the plain path, which is correct and slow: every "
        "completion carries its own copy of prompt and image, so a step reads G*(P+C) tokens instead of P+G*C, encodes "
        "each image G times and shares no cache"
    )


class Plain:
    """Any image-text-to-text model of transformers, seen from outside.

    Args:
        model: The transformers model.
        processor: Its processor, with a chat template.

    Attributes:
        text: Its text decoder.
        visual: Everything before the text decoder.
        lm_head: Its output head.
        image_token_id: -1: no token of a prompt stands for one of our image features.
        vision_token_ids: Ids that stand for pictures and so may never be sampled.
        checkpointing: Whether a layer's activations are made again in the backward pass instead of kept.

    Raises:
        ModelError: The model cannot be taken apart into hidden states and an output head, so that log-probs could not
            be had without all logits of all tokens.
    """

    image_token_id = -1

    def __init__(self, model: Any, processor: Any) -> None:
        self.model = model
        self.processor = processor
        self.checkpointing = False
        ids = (getattr(model.config, name, None) for name in _VISION_TOKENS)
        self.vision_token_ids: tuple[int, ...] = tuple(sorted({token for token in ids if isinstance(token, int)}))
        try:
            self.text: Any = model.get_decoder()
            self.visual = nn.ModuleList(part for part in model.base_model.children() if part is not self.text)
            self.lm_head: nn.Linear = model.get_output_embeddings()
            is_plain = self._has_plain_head()
        except (AttributeError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ModelError(f"models of type '{model.config.model_type}' need an adapter: {reason}") from error
        if not is_plain:
            raise ModelError(
                f"models of type '{model.config.model_type}' change their logits behind the output head, "
                "which the plain path cannot follow; they need an adapter"
            )

    @torch.no_grad()
    def _has_plain_head(self) -> bool:
        """Whether the logits of two tokens are the head's product with their last hidden states."""
        ids = torch.zeros((1, 2), dtype=torch.long, device=self.lm_head.weight.device)
        logits = self.model(input_ids=ids).logits.float()
        ours = self.lm_head(self.model.base_model(input_ids=ids).last_hidden_state).float()
        return logits.shape == ours.shape and torch.allclose(logits, ours, rtol=1e-4, atol=1e-5)

    def prompt(self, image: Image.Image, text: str, tokenizer: Any, image_processor: Any) -> Prompt:
        """One user turn, the image before the text, as the model's own processor reads it.

        Raises:
            DataError: The processor refuses it.
        """
        content = [{"type": "image", "image": image.convert("RGB")}, {"type": "text", "text": text}]
        try:
            inputs = self.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                add_generation_prompt=True,
                return_dict=True,
                return_tensors="pt",
            )
        except ValueError as error:
            raise DataError(f"the model's processor refuses a question: {str(error).splitlines()[0]}") from error
        tensors = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        ids = tensors["input_ids"][0]
        return Prompt(ids, torch.arange(len(ids))[None], torch.zeros(0), (0, 0, 0), tensors)

    def encode_images(self, pixels: Tensor, grids: Sequence[Grid]) -> Tensor:
        """No features [0, 1]: the model encodes the images itself, in each of its forward passes."""
        return torch.zeros((0, 1), device=pixels.device)

    @torch.no_grad()
    def sample(
        self,
        policy: Policy,
        batch: PromptBatch,
        *,
        max_new_tokens: int,
        uniforms: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Completions:
        """As :func:`harness.policy.sampling.sample`, by the model's own `generate`."""
        from harness.policy.sampling import Completions

        group_size = 1 if uniforms is None else uniforms.shape[1]
        shape = (len(batch), group_size, max_new_tokens)
        ids = torch.full(shape, policy.pad_token_id, device=batch.ids.device)
        log_probs = torch.zeros(shape, device=batch.ids.device)
        for rows in _stackable(batch):
            drawing = _Drawing(None if uniforms is None else uniforms[rows].flatten(0, 1), temperature, self)
            inputs = [batch.inputs[row] for row in rows for _ in range(group_size)]
            stacked = _stack(inputs, policy.pad_token_id, self.model, left=True)
            tokens = self._generate(policy, stacked, drawing, max_new_tokens)
            length = tokens.shape[1]
            ids[rows, :, :length] = tokens.view(len(rows), group_size, length)
            log_probs[rows, :, :length] = torch.stack(drawing.log_probs, dim=1).view(len(rows), group_size, length)
        ends = torch.isin(ids, torch.tensor(policy.end_token_ids, device=ids.device))
        finished = ends.any(dim=2)
        lengths = torch.where(finished, ends.int().argmax(dim=2) + 1, max_new_tokens)
        held = torch.arange(max_new_tokens, device=ids.device) < lengths[..., None]
        longest = int(lengths.max())
        return Completions(
            ids=ids.masked_fill(~held, policy.pad_token_id)[..., :longest],
            lengths=lengths,
            log_probs=log_probs.masked_fill(~held, 0.0)[..., :longest],
            finished=finished,
        )

    def _generate(self, policy: Policy, inputs: Mapping[str, Tensor], draw: _Drawing, max_new_tokens: int) -> Tensor:
        """New tokens [R, T]."""
        from transformers import GenerationConfig, LogitsProcessorList

        bare = GenerationConfig(
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(policy.end_token_ids),
            pad_token_id=policy.pad_token_id,
        )
        # What a configuration leaves open is taken from the model's own, which may hold a repetition penalty.
        own, self.model.generation_config = self.model.generation_config, bare
        try:
            whole: Tensor = self.model.generate(
                **inputs, generation_config=bare, logits_processor=LogitsProcessorList([draw])
            )
        finally:
            self.model.generation_config = own
        return whole[:, inputs["input_ids"].shape[1] :]

    def completion_log_probs(
        self,
        policy: Policy,
        batch: PromptBatch,
        ids: Tensor,
        lengths: Tensor,
        *,
        temperature: float = 1.0,
        with_entropy: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As :func:`harness.policy.log_probs.completion_log_probs`, by the model's own forward pass.

        Returns:
            Log-probs, and entropies where they are asked for.
        """
        from harness.policy.log_probs import token_log_probs

        _, group_size, longest = ids.shape
        sizes = lengths.tolist()
        hidden: list[Tensor] = []
        places: list[Tensor] = []
        for rows in _stackable(batch):
            members = [(row, member) for row in rows for member in range(group_size)]
            inputs = [
                _continued(batch.inputs[row], ids[row, member, : max(sizes[row][member] - 1, 0)].cpu())
                for row, member in members
            ]
            stacked = _stack(inputs, policy.pad_token_id, self.model, left=False)
            with self._checkpointed():
                states = self.model.base_model(**stacked, use_cache=False).last_hidden_state
            for number, (row, member) in enumerate(members):
                steps = torch.arange(sizes[row][member], device=ids.device)
                hidden.append(states[number, batch.inputs[row]["input_ids"].shape[1] - 1 + steps])
                places.append((row * group_size + member) * longest + steps)
        place = torch.cat(places)
        log_probs, entropy = token_log_probs(
            torch.cat(hidden),
            ids.flatten()[place],
            self.lm_head,
            self.vision_token_ids,
            temperature,
            with_entropy=with_entropy,
        )

        def laid_out(values: Tensor) -> Tensor:
            return values.new_zeros(ids.numel()).scatter(0, place, values).view(ids.shape)

        return laid_out(log_probs), None if entropy is None else laid_out(entropy)

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """Layers of transformers checkpoint themselves while they take themselves to be in training."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        if not (self.checkpointing and torch.is_grad_enabled()):
            yield
            return
        layers = [module for module in self.model.modules() if isinstance(module, GradientCheckpointingLayer)]
        if not layers:
            raise ModelError(f"models of type '{self.model.config.model_type}' cannot do gradient_checkpointing")
        before = [layer.training for layer in layers]
        # Only the layers themselves: dropout inside of them stays off.
        for layer in layers:
            layer.gradient_checkpointing = layer.training = True
            layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
        try:
            yield
        finally:
            for layer, training in zip(layers, before, strict=True):
                layer.gradient_checkpointing, layer.training = False, training


class _Drawing:
    """A logits processor of `generate` that leaves one token a row: the one that the row's uniform number picks.

    Args:
        uniforms: [R, T]; None to pick the likeliest.
        temperature: Logits are divided by it.
        family: Whose vision tokens have probability 0.
    """

    def __init__(self, uniforms: Tensor | None, temperature: float, family: Plain) -> None:
        self.uniforms = uniforms
        self.temperature = temperature
        self.banned = list(family.vision_token_ids)
        self.log_probs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        from harness.policy.drawing import draw

        logits = scores.float()
        logits[:, self.banned] = -torch.inf
        step = len(self.log_probs)
        uniform = None if self.uniforms is None else self.uniforms[:, step].to(logits.device)
        token, log_prob = draw(logits, uniform, self.temperature)
        self.log_probs.append(log_prob)
        return torch.full_like(logits, -torch.inf).scatter(1, token[:, None], 0.0)


def _by_token(inputs: Mapping[str, Tensor], name: str) -> bool:
    """Whether a tensor holds something for each token, as ids, masks and token types do."""
    return inputs[name].shape[:2] == inputs["input_ids"].shape


def _stackable(batch: PromptBatch) -> list[list[int]]:
    """The prompts in groups whose images have shapes that fit into one tensor, as the processor gave them."""
    groups: dict[Any, list[int]] = {}
    for row, inputs in enumerate(batch.inputs):
        key = tuple((name, inputs[name].shape[2 if _by_token(inputs, name) else 1 :]) for name in sorted(inputs))
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _continued(inputs: Mapping[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """A prompt's inputs with further tokens [C]; what else goes by token is repeated from the prompt's last."""
    tails = {
        name: inputs[name][:, -1:].expand(-1, len(ids), *inputs[name].shape[2:])
        for name in inputs
        if _by_token(inputs, name)
    } | {"input_ids": ids[None]}
    return {name: torch.cat([value, tails[name]], dim=1) if name in tails else value for name, value in inputs.items()}


def _stack(rows: Sequence[Mapping[str, Tensor]], pad_id: int, model: Any, *, left: bool) -> dict[str, Tensor]:
    """Inputs of several rows as one batch, padded on one side, where and in the type in which the model takes them."""
    longest = max(row["input_ids"].shape[1] for row in rows)
    parts: dict[str, list[Tensor]] = {name: [] for name in rows[0]}
    for row in rows:
        for name, value in row.items():
            if _by_token(row, name):
                shape = (1, longest - value.shape[1], *value.shape[2:])
                padding = value.new_full(shape, pad_id if name == "input_ids" else 0)
                value = torch.cat([padding, value] if left else [value, padding], dim=1)
            parts[name].append(value)
    whole = {name: torch.cat(values) for name, values in parts.items()}
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in whole.items()
    }
