"""One token for every row, over and over: the step of decoding, on tensors that stay where they are.

What changes from step to step is on the device, and the step asks the host for nothing: it is the same calls on the
same addresses whatever was drawn. So a CUDA device captures it as a graph for each number of rows and each length of
cache that is read, and replays it; a CPU calls it. A :class:`Pace` says what is rounded to what, and how often the host
looks which rows still run. How fast the graphs are has not been measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.policy.cache import CacheShape, KeyValueCache
from harness.policy.drawing import Drawing, draw
from harness.policy.families.family import Block, Family


@dataclass(frozen=True)
class Pace:
    """How decoding is cut into buckets, and how often the host looks at it.

    Attributes:
        look_every: Steps between two looks at how many rows run. Rows that have ended in between are still computed.
        is_late: Whether a look takes what the one before asked for, so that the host never waits for the device.
        length_multiple: Slots of a cache that are read are rounded up to it.
        retire_frac: Ended rows are dropped once they are this share; copying the cache for each one would cost more.
        halves: Whether rows are then kept in a number that is the first one halved several times, for graphs are
            captured per number.
    """

    look_every: int = 1
    is_late: bool = False
    length_multiple: int = 1
    retire_frac: float = 0.125
    halves: bool = False


EAGER_PACE = Pace()
"""Every step is looked at, and nothing is computed that is not needed."""

CAPTURED_PACE = Pace(look_every=8, is_late=True, length_multiple=64, halves=True)
"""As few graphs as may be: eight numbers of rows for 32 groups of 8, times four lengths for 256 tokens."""


class Decoder:
    """Decodes completions of prompts that its cache holds.

    Args:
        family: The model; only its parts are kept.
        shape: What the cache holds: also how many rows there are, and their longest completion.
        drawing: How tokens are chosen.
        pace: See there.

    Attributes:
        cache: Where prompts are put before :meth:`start`.
        ids: Long [N * G, T], padded behind each completion's end.
        log_probs: Float32 [N * G, T] of the tokens, 0 at padding.
    """

    def __init__(self, family: Family, shape: CacheShape, drawing: Drawing, pace: Pace) -> None:
        self.text, self.blocks, self.lm_head = family.text, family.blocks, family.lm_head
        self.drawing = drawing
        self.pace = pace
        weight = family.text.embed_tokens.weight
        device = weight.device
        self.cache = KeyValueCache(shape, weight.dtype, device)
        num_rows, length, width = shape.num_prompts * shape.group_size, shape.capacity, shape.head_dim
        self.ids = torch.zeros((num_rows, length), dtype=torch.long, device=device)
        self.log_probs = torch.zeros((num_rows, length), device=device)
        self._uniforms = torch.zeros((num_rows, length), device=device)
        self._ends = torch.tensor(drawing.end_token_ids, device=device)
        self._banned = torch.tensor(drawing.banned_token_ids, dtype=torch.long, device=device)
        # Per row of the batch, of which the first m * g are still there.
        self._rows = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._prompts = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._token = torch.zeros(num_rows, dtype=torch.long, device=device)
        self._running = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self._step = torch.zeros(1, dtype=torch.long, device=device)
        # Per first axis of the rows (m): a prompt at first, and then a row.
        self._cos = torch.zeros((num_rows, length, 1, width), dtype=weight.dtype, device=device)
        self._sin = torch.zeros_like(self._cos)
        self._bias = torch.zeros((num_rows, shape.prompt_length + length), dtype=weight.dtype, device=device)
        self._has_bias = True
        self._projections = [_Projection(block) for block in family.blocks]
        self._graphs: dict[tuple[int, int, int], torch.cuda.CUDAGraph] = {}
        self._late: tuple[Tensor, torch.cuda.Event | None] | None = None

    def start(self, hidden: Tensor, rotation: tuple[Tensor, Tensor], padding: Tensor, uniforms: Tensor | None) -> None:
        """Draws the first tokens of all completions.

        Args:
            hidden: [N, D] behind the prompts.
            rotation: Cosine and sine [N, 1, T, d / 2] at the places of the completions' tokens.
            padding: Bool [N, P'], True at padded positions; P' is at most P.
            uniforms: [N, G, T], or None where the likeliest token is taken.
        """
        shape = self.cache.shape
        num_prompts, group_size = shape.num_prompts, shape.group_size
        self.cache.restart()
        self.ids.fill_(self.drawing.pad_token_id)
        self.log_probs.zero_()
        if uniforms is not None:
            self._uniforms.copy_(uniforms.reshape(self._uniforms.shape))
        torch.arange(num_prompts * group_size, out=self._rows)
        self._prompts.copy_(self._rows // group_size)
        self._running.fill_(True)
        self._step.zero_()
        cos, sin = rotation
        # The rotation of a head's halves (a, b) by an angle: (a cos - b sin, b cos + a sin).
        self._cos[:num_prompts] = torch.cat([cos, cos], dim=-1).transpose(1, 2)
        self._sin[:num_prompts] = torch.cat([-sin, sin], dim=-1).transpose(1, 2)
        start = shape.prompt_length - padding.shape[1]
        self._bias.fill_(-torch.inf)
        self._bias[:num_prompts, start : shape.prompt_length].masked_fill_(~padding, 0.0)
        self._has_bias = self.pace.length_multiple > 1 or bool(padding.any())
        for projection in self._projections:
            projection.refresh()
        self._late = None
        self._draw(hidden.repeat_interleave(group_size, dim=0))

    def run(self) -> int:
        """Decodes until every completion has ended or is as long as it may be.

        Returns:
            Tokens of the longest, or a few more.
        """
        capacity = self.cache.shape.capacity
        for step in range(1, capacity):
            if (step - 1) % self.pace.look_every == 0:
                num_running = self._look()
                if num_running == 0:
                    return step
                self._retire(num_running, step - 1)
            length = min(math.ceil(step / self.pace.length_multiple) * self.pace.length_multiple, capacity)
            if self.ids.is_cuda:
                self._replay(length)
            else:
                self.step(length)
        return capacity

    def step(self, length: int) -> None:
        """Runs the tokens drawn last, and draws the next.

        Args:
            length: Slots of the completions' cache that are read; the last token's own is among them.
        """
        m, g = self.cache.rows_shape
        cos = self._cos[:m].index_select(1, self._step)
        sin = self._sin[:m].index_select(1, self._step)
        bias = None
        if self._has_bias:
            own = self._bias[:, self.cache.shape.prompt_length :]
            own.index_fill_(1, self._step, 0.0)
            bias = self._bias[:m, : self.cache.shape.prompt_length + length]
        hidden = self.text.embed_tokens(self._token[: m * g])
        for layer, block in enumerate(self.blocks):
            inner = block.layer
            turned, values = self._projections[layer](_normed(inner.input_layernorm, hidden))
            turned, values = turned.unflatten(0, (m, g)), values.unflatten(0, (m, g))
            turned = turned * cos + turned.roll(block.head_dim // 2, dims=-1) * sin
            queries, keys = turned.split([turned.shape[2] - values.shape[2], values.shape[2]], dim=2)
            attended = self.cache.decode(layer, queries, keys, values, self._step, length, bias)
            hidden = hidden + inner.self_attn.o_proj(attended)
            hidden = hidden + inner.mlp(_normed(inner.post_attention_layernorm, hidden))
        self._step += 1
        self._draw(_normed(self.text.norm, hidden))

    def _draw(self, hidden: Tensor) -> None:
        """Draws a token of every row from the states behind it."""
        num_rows = len(hidden)
        rows, running = self._rows[:num_rows], self._running[:num_rows]
        logits = self.lm_head(hidden).float().index_fill_(1, self._banned, -torch.inf)
        uniform = None if self.drawing.temperature is None else self._uniforms[rows, self._step]
        token, log_prob = draw(logits, uniform, self.drawing.temperature)
        self.ids[rows, self._step] = token.masked_fill(~running, self.drawing.pad_token_id)
        self.log_probs[rows, self._step] = log_prob.masked_fill(~running, 0.0)
        self._token[:num_rows] = token
        running &= (token[:, None] != self._ends).all(dim=1)

    def _look(self) -> int:
        """How many rows run, or ran at the last look; all of them at a first late look."""
        m, g = self.cache.rows_shape
        count = self._running[: m * g].sum()
        if not self.pace.is_late:
            return int(count)
        before, self._late = self._late, _sent(count)
        if before is None:
            return m * g
        if before[1] is not None:
            before[1].synchronize()
        return int(before[0])

    def _retire(self, num_running: int, length: int) -> None:
        """Drops ended rows from the batch where that is worth it.

        Args:
            num_running: Rows that run, at the most.
            length: Slots of the completions' cache that are written.
        """
        m, g = self.cache.rows_shape
        num_rows = num_running
        if self.pace.halves:
            num_rows = len(self._rows)
            while num_rows // 2 >= num_running:
                num_rows //= 2
        if num_rows > m * g * (1 - self.pace.retire_frac):
            return
        # What runs comes first, in order; sorting, unlike looking for what is true, has a result of known size.
        kept = _first(self._running[: m * g], num_rows)
        rows, prompts, running = self._rows[kept], self._prompts[kept], self._running[kept]
        group_size, num_prompts = self.cache.shape.group_size, self.cache.num_prompts
        held = torch.zeros(num_prompts, dtype=torch.long, device=kept.device)
        held.scatter_add_(0, prompts, running.long())
        num_kept = min(num_prompts, num_rows) if self.pace.is_late else int((held > 0).sum())
        kept_prompts = _first(held > 0, num_kept)
        place = torch.zeros_like(held)
        place[kept_prompts] = torch.arange(num_kept, device=kept.device)
        places = torch.stack([place[prompts], rows % group_size], dim=1)
        self.cache.keep(kept, kept_prompts, places, running, length)
        for of_rows, value in ((self._rows, rows), (self._prompts, place[prompts]), (self._running, running)):
            of_rows[:num_rows] = value
        self._token[:num_rows] = self._token[kept]
        for of_first_axis in (self._cos, self._sin, self._bias):
            of_first_axis[:num_rows] = of_first_axis[kept // g]

    def _replay(self, length: int) -> None:
        """A step as a graph; the first of its kind is run as it is, and captured for those to come."""
        key = (*self.cache.rows_shape, length)
        if key in self._graphs:
            self._graphs[key].replay()
            return
        self.step(length)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._graphs.values()), None)
        # Other threads may use the device meanwhile: only what this one does is recorded.
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            self.step(length)
        self._graphs[key] = graph


_KEPT: WeakKeyDictionary[Family, tuple[object, Decoder]] = WeakKeyDictionary()


def forget_decoders() -> None:
    """Frees the decoders that are kept between batches, with their caches and graphs."""
    _KEPT.clear()


@contextmanager
def decoder(family: Family, shape: CacheShape, drawing: Drawing) -> Iterator[Decoder]:
    """A decoder for one batch: a new one on a CPU, one kept with its graphs on CUDA.

    A kept one is used again if nothing of what its graphs hold has changed, down to the addresses of the weights, and
    freed otherwise, or if decoding fails. Its memory is the cache's, for the model and numbers of
    :mod:`harness.policy.cache` 2.2 GB with 32 prompts.
    """
    if family.lm_head.weight.device.type != "cuda":
        yield Decoder(family, shape, drawing, EAGER_PACE)
        return
    multiple = CAPTURED_PACE.length_multiple
    shape = replace(shape, prompt_length=math.ceil(shape.prompt_length / multiple) * multiple)
    modules = [*family.text.modules(), *family.lm_head.modules()]
    addresses = [parameter.data_ptr() for module in modules for parameter in module.parameters(recurse=False)]
    adapters = [getattr(module, "disable_adapters", None) for module in modules]
    key = (shape, drawing, addresses, adapters)
    kept = _KEPT.pop(family, None)
    if kept is None or kept[0] != key:
        del kept
        kept = key, Decoder(family, shape, drawing, CAPTURED_PACE)
    with torch.cuda.device(family.lm_head.weight.device), _any_algorithm():
        yield kept[1]
    _KEPT[family] = kept


@contextmanager
def _any_algorithm() -> Iterator[None]:
    """Lets torch write at indices without sorting them first, which is for indices that come twice; here none does."""
    strict = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=only_warns)


class _Projection:
    """Queries, keys and values of a layer, in one product where they are plain linear layers.

    Their weights are then put side by side in memory of their own: 176 MB for Qwen2-VL-2B in bf16.

    Args:
        block: The layer.
    """

    def __init__(self, block: Block) -> None:
        self.block = block
        attention = block.layer.self_attn
        self.parts: tuple[Any, ...] = (attention.q_proj, attention.k_proj, attention.v_proj)
        is_plain = all(type(part) is nn.Linear for part in self.parts)
        is_plain &= len({part.bias is None for part in self.parts}) == 1
        size = sum(part.out_features for part in self.parts)
        like = self.parts[0].weight
        self.weight = like.new_empty((size, like.shape[1])) if is_plain else None
        self.bias = like.new_empty(size) if is_plain and self.parts[0].bias is not None else None

    def refresh(self) -> None:
        """Takes the weights as they are now, at the same address."""
        for whole, name in ((self.weight, "weight"), (self.bias, "bias")):
            if whole is not None:
                torch.cat([getattr(part, name) for part in self.parts], out=whole)

    def __call__(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        """Queries beside keys [R, H + K, d], and values [R, K, d], of states [R, D]."""
        by_head = (len(normed), -1, self.block.head_dim)
        if self.weight is None:
            queries, keys, values = (part(normed).view(by_head) for part in self.parts)
            both = torch.cat([queries, keys], dim=1)
        else:
            num_heads = self.parts[1].out_features // self.block.head_dim
            joint = F.linear(normed, self.weight, self.bias).view(by_head)
            both, values = joint.split([joint.shape[1] - num_heads, num_heads], dim=1)
        if self.block.query_norm is None:
            return both, values
        queries, keys = both.split([both.shape[1] - values.shape[1], values.shape[1]], dim=1)
        normed_queries, normed_keys = _normed(self.block.query_norm, queries), _normed(self.block.key_norm, keys)
        return torch.cat([normed_queries, normed_keys], dim=1), values


def _normed(norm: Any, states: Tensor) -> Tensor:
    """As :func:`harness.policy.norm.rms_norm`, by torch's kernel on a CPU too: nothing goes back through it."""
    return F.rms_norm(states, norm.weight.shape, norm.weight, norm.variance_epsilon)


def _first(flags: Tensor, num: int) -> Tensor:
    """Indices [num]: of what is true in order, then of what is not."""
    return torch.argsort((~flags).int(), stable=True)[:num]


def _sent(count: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """A number on its way to the host, and what tells that it has arrived."""
    if not count.is_cuda:
        return count, None
    held = torch.empty_like(count, device="cpu", pin_memory=True)
    held.copy_(count, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return held, event
