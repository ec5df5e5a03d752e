"""The three ways the text stack attends: under a mask, over a cache, and behind a shared prefix.

Each is a function of (layer, queries, keys, values) that a family's text stack calls once a layer, with queries
[R, H, L, d] and keys and values [R, K, L, d] already rotated; H query heads share K key-value heads.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def scaled_dot_product(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(queries keys^T / sqrt(d)) values, with key-value heads shared among query heads.

    torch's fused kernel, but for bf16 on a CPU, where its backward pass takes four times as long as plain products.

    Args:
        queries: [R, H, L, d].
        keys: [R, K, S, d] with K a divisor of H.
        values: [R, K, S, d].
        mask: Bool [R, 1, L, S], True where a query sees a key; None for everywhere.
    """
    rows, heads, length, width = queries.shape
    if queries.device.type != "cpu":
        # With a mask and shared heads torch falls back to a kernel that keeps all [L, S] scores of every head
        # (huggingface/transformers#39412); with a copy of the keys and values per head it need not.
        if keys.shape[1] != heads:
            keys, values = (states.repeat_interleave(heads // states.shape[1], dim=1) for states in (keys, values))
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    if queries.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, enable_gqa=True)
    shared = queries.reshape(rows, keys.shape[1], -1, length, width)
    scores = (shared * width**-0.5) @ keys[:, :, None].transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, :, None], -torch.inf)
    return (scores.softmax(dim=-1) @ values[:, :, None]).reshape(rows, heads, length, width)


def attend_masked(mask: Tensor) -> Attend:
    """Attention within a batch of sequences.

    Args:
        mask: Bool [R, 1, L, L], True where a query (third axis) sees a key (fourth). Every query must see a key.
    """

    def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return scaled_dot_product(queries, keys, values, mask)

    return attend


def causal_mask(padding: Tensor) -> Tensor:
    """The mask of left-padded sequences.

    A padded query sees itself alone, so that its softmax is defined; nothing else sees it.

    Args:
        padding: Bool [R, L], True at padded positions.

    Returns:
        Bool [R, 1, L, L].
    """
    length = padding.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=padding.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=padding.device)
    return ((causal & ~padding[:, None, :]) | itself)[:, None]


class KeyValueCache:
    """Keys and values of every layer: each prompt's once, and each completion's own.

    A prompt's are not copied for its group: a decoded token then reads them once per prompt, and reading the cache is
    most of what decoding costs. Prompts are left-padded and completions start together, so that all rows write the same
    slot.

    Args:
        prompt_padding: Bool [N, P], True at padded prompt positions.
        num_layers: Layers of the text stack.
        group_size: Completions per prompt (G); row n * G + g is completion g of prompt n.
        max_new_tokens: Slots of a completion.
    """

    def __init__(self, prompt_padding: Tensor, num_layers: int, group_size: int, max_new_tokens: int) -> None:
        self.num_prompts = prompt_padding.shape[0]
        self.group_size = group_size
        self.capacity = max_new_tokens
        self.length = 0
        self.prompt_keys: list[Tensor] = [prompt_padding.new_empty(0)] * num_layers
        self.prompt_values: list[Tensor] = [prompt_padding.new_empty(0)] * num_layers
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self._prompt_mask = causal_mask(prompt_padding)
        self._unseen = prompt_padding[:, None, None, :] if bool(prompt_padding.any()) else None
        self._rows: Tensor | None = None

    def prefill(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attends within the prompts, and keeps their keys and values."""
        self.prompt_keys[layer] = keys
        self.prompt_values[layer] = values
        return scaled_dot_product(queries, keys, values, self._prompt_mask)

    def start(self) -> None:
        """Ends the prefill: from here on each row is a completion of its own."""
        self.keys = [self._room(keys) for keys in self.prompt_keys]
        self.values = [self._room(values) for values in self.prompt_values]

    def decode(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Attends from one new token a row to all before it; :meth:`advance` moves to the next slot."""
        self.keys[layer][:, :, self.length] = keys[:, :, 0]
        self.values[layer][:, :, self.length] = values[:, :, 0]
        own_keys = self.keys[layer][:, :, : self.length + 1]
        own_values = self.values[layer][:, :, : self.length + 1]
        rows, heads, _, width = queries.shape
        # The query heads that share a key-value head are so many queries to the same keys: [R, K, H / K, d].
        shared = (queries * width**-0.5).view(rows, keys.shape[1], -1, width)
        to_prompt = self._by_prompt(shared) @ self.prompt_keys[layer].transpose(-1, -2)
        if self._unseen is not None:
            to_prompt = to_prompt.masked_fill(self._unseen, -torch.inf)
        to_prompt = self._by_row(to_prompt)
        scores = torch.cat([to_prompt, shared @ own_keys.transpose(-1, -2)], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype)
        on_prompt, on_own = weights.split([to_prompt.shape[-1], self.length + 1], dim=-1)
        attended = self._by_row(self._by_prompt(on_prompt) @ self.prompt_values[layer]) + on_own @ own_values
        return attended.reshape(rows, heads, 1, width)

    def advance(self) -> None:
        """One more token is in every row."""
        self.length += 1

    def keep(self, rows: Tensor) -> None:
        """Retires all rows but these.

        Args:
            rows: Long [R'], indices into the present rows.
        """
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self._rows = rows if self._rows is None else self._rows[rows]

    def _room(self, prompt_states: Tensor) -> Tensor:
        num_prompts, heads, _, width = prompt_states.shape
        return prompt_states.new_empty(num_prompts * self.group_size, heads, self.capacity, width)

    def _by_prompt(self, states: Tensor) -> Tensor:
        """[R, K, q, w] of the rows as [N, K, G * q, w] of the prompts; zeros for retired rows."""
        if self._rows is not None:
            whole = states.new_zeros(self.num_prompts * self.group_size, *states.shape[1:])
            states = whole.index_copy_(0, self._rows, states)
        grouped = states.view(self.num_prompts, self.group_size, *states.shape[1:])
        return grouped.transpose(1, 2).flatten(2, 3)

    def _by_row(self, states: Tensor) -> Tensor:
        """The way back."""
        grouped = states.unflatten(2, (self.group_size, -1)).transpose(1, 2).flatten(0, 1)
        return grouped if self._rows is None else grouped[self._rows]


def shared_prefix_mask(segments: Tensor) -> Tensor:
    """The mask of rows that hold one prompt and several completions behind it.

    A completion sees the prompt and itself; completions do not see one another. A padded position sees itself alone.

    Args:
        segments: Long [B, L]: 0 in the prompt, g + 1 in completion g, -1 at padding. Causal order is the row's order.

    Returns:
        Bool [B, 1, L, L].
    """
    length = segments.shape[1]
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=segments.device)
    visible = (key == 0) | ((key == query) & (key > 0))
    return ((visible & (query >= 0) & causal) | itself)[:, None]
