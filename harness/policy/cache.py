"""Keys and values while decoding: each prompt's once, each completion's own, in memory that is laid out beforehand.

What a decoded token reads decides how long it takes. For Qwen2-VL-2B in bf16 (28 layers, 2 key-value heads of width
128) the weights are 3.1 GB and a token's keys and values 28 KiB. With prompts of 300 tokens, groups of 8 and
completions of 256 tokens, a step reads on top of the weights

    prompts   prompts' cache   (a copy per row)   completions' cache at the end   (in the mean)
          8          69 MB            550 MB                      470 MB             235 MB
         32         275 MB            2.2 GB                      1.9 GB             940 MB

so that a prompt's keys and values must be read once for its group, and rows that are over must leave the completions'
cache. Both are had by two layouts of the rows. At first they are a grid [N, G], and a prompt's G * h queries of a
key-value head are one product with its keys, without moving anything. Once rows have gone, the rest are [R, 1], each
with its own keys and values where they are, and only their queries are put in cells [N', G] and what comes back is
taken out of them: some KiB per row, in place of a prompt's cache per row. Prompts with no row left go too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.policy.attention import Attend, causal_mask, scaled_dot_product


@dataclass(frozen=True)
class CacheShape:
    """How much a cache holds at the most.

    Attributes:
        num_layers: Layers of the text stack.
        num_heads: Key-value heads (K).
        head_dim: Their width (d).
        num_prompts: Prompts (N).
        prompt_length: Slots of a prompt (P); prompts stand at their end.
        group_size: Completions per prompt (G).
        capacity: Slots of a completion (T).
    """

    num_layers: int
    num_heads: int
    head_dim: int
    num_prompts: int
    prompt_length: int
    group_size: int
    capacity: int


class KeyValueCache:
    """The cache of one batch; see the module for its layouts.

    Every tensor stays at its address, so that a captured graph can be replayed. Which rows there are is said by
    `num_prompts` (n), `rows_shape` (m, g), with (n, G) for the grid, and the two index tensors.

    Args:
        shape: What it holds.
        dtype: Of keys and values.
        device: Where they are.
    """

    def __init__(self, shape: CacheShape, dtype: torch.dtype, device: torch.device) -> None:
        self.shape = shape
        prompts = (shape.num_prompts, shape.num_heads, shape.prompt_length, shape.head_dim)
        num_rows = shape.num_prompts * shape.group_size
        self._row_numel = shape.num_heads * shape.capacity * shape.head_dim
        # Slots that nothing was written to have weight 0, and 0 times what happens to be in fresh memory may be nan.
        self._prompts = [torch.zeros((2, *prompts), dtype=dtype, device=device) for _ in range(shape.num_layers)]
        self._own = [
            torch.zeros((2, num_rows * self._row_numel), dtype=dtype, device=device) for _ in range(shape.num_layers)
        ]
        self._to_cells = torch.zeros(num_rows * shape.num_heads, dtype=torch.long, device=device)
        self._to_rows = torch.zeros(num_rows * shape.num_heads, dtype=torch.long, device=device)
        self.restart()

    def restart(self) -> None:
        """All prompts and rows are there again, as a grid."""
        self.num_prompts = self.shape.num_prompts
        self.rows_shape = (self.shape.num_prompts, self.shape.group_size)

    def prefill(self, prompts: Tensor, padding: Tensor) -> Attend:
        """Attention within some of the prompts, which keeps their keys and values.

        Args:
            prompts: Long [n], which.
            padding: Bool [n, P'], True at padded positions; P' is at most P.
        """
        mask = causal_mask(padding)
        start = self.shape.prompt_length - padding.shape[1]

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            self._prompts[layer][0, prompts, :, start:] = keys
            self._prompts[layer][1, prompts, :, start:] = values
            return scaled_dot_product(queries, keys, values, mask)

        return attend

    def decode(
        self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, slot: Tensor, length: int, bias: Tensor | None
    ) -> Tensor:
        """Attends from one new token a row to all before it and itself.

        Args:
            layer: Which.
            queries: [m, g, H, d].
            keys: [m, g, K, d], written to the rows' slot.
            values: [m, g, K, d], likewise.
            slot: Long [1], the slot of the new token, on the device.
            length: Slots of a completion that are read, the new token's among them.
            bias: [m, P + length] added to the scores, 0 or -inf; None where every slot counts.

        Returns:
            [m * g, H * d].
        """
        m, g, num_queries, width = queries.shape
        num_heads = self.shape.num_heads
        own_keys, own_values = self._written(layer, 0, keys, slot), self._written(layer, 1, values, slot)
        own_keys = own_keys[:, :, :, :length].flatten(0, 2)
        own_values = own_values[:, :, :, :length].flatten(0, 2)
        prompt_keys, prompt_values = self._prompts[layer][:, : self.num_prompts].flatten(1, 2)
        # The query heads that share a key-value head are so many queries to the same keys: [m * K * g, h, d].
        scaled = (queries * width**-0.5).view(m, g, num_heads, -1, width).transpose(1, 2)
        rows = scaled.reshape(m * num_heads * g, -1, width)
        to_prompt = self._by_row(torch.bmm(self._by_prompt(rows), prompt_keys.transpose(1, 2)))
        scores = torch.cat([to_prompt, torch.bmm(rows, own_keys.transpose(1, 2))], dim=-1)
        if bias is not None:
            scores = (scores.view(m, -1, scores.shape[-1]) + bias[:, None]).view(scores.shape)
        weights = scores.softmax(dim=-1)
        past = self.shape.prompt_length
        attended = self._by_row(torch.bmm(self._by_prompt(weights)[..., :past], prompt_values))
        attended = attended + torch.bmm(weights[..., past:], own_values)
        return attended.view(m, num_heads, g, -1, width).transpose(1, 2).reshape(m * g, num_queries * width)

    def keep(self, rows: Tensor, prompts: Tensor, places: Tensor, live: Tensor, length: int) -> None:
        """Goes on with some of the rows and prompts.

        Args:
            rows: Long [R], indices into the present rows (m * g of them).
            prompts: Long [n], indices into the present prompts.
            places: Long [R, 2], each row's new prompt and its place in the group.
            live: Bool [R], rows whose attention matters; the others fill up and share no cell with these.
            length: Slots of a completion that are written.
        """
        shape, device = self.shape, rows.device
        num_rows, num_prompts = len(rows), len(prompts)
        members, heads = self.rows_shape[1], torch.arange(shape.num_heads, device=device)
        for layer in range(shape.num_layers):
            kept = self._view(layer)[:, rows // members, :, rows % members, :length]
            self._prompts[layer][:, :num_prompts] = self._prompts[layer][:, prompts]
            own = self._own[layer][:, : num_rows * self._row_numel]
            # Advanced indices apart from one another put their axis first.
            own.view(2, num_rows, shape.num_heads, shape.capacity, -1)[:, :, :, :length] = kept.transpose(0, 1)
        self.num_prompts, self.rows_shape = num_prompts, (num_rows, 1)
        # Of a prompt's cells, those of rows that are gone repeat the first row, and nobody looks at what comes of it.
        spare = num_prompts * shape.group_size
        cell = torch.where(live, places[:, 0] * shape.group_size + places[:, 1], spare)
        row_of_cell = torch.zeros(spare + 1, dtype=torch.long, device=device)
        row_of_cell.scatter_(0, cell, torch.arange(num_rows, device=device))
        cells = row_of_cell[:spare].view(num_prompts, 1, -1) * shape.num_heads + heads[:, None]
        self._to_cells[: cells.numel()] = cells.flatten()
        of_row = (places[:, :1] * shape.num_heads + heads) * shape.group_size + places[:, 1:]
        self._to_rows[: of_row.numel()] = of_row.flatten()

    def _view(self, layer: int) -> Tensor:
        """The rows' own keys and values [2, m, K, g, T, d]."""
        (m, g), shape = self.rows_shape, self.shape
        own = self._own[layer][:, : m * g * self._row_numel]
        return own.view(2, m, shape.num_heads, g, shape.capacity, shape.head_dim)

    def _written(self, layer: int, which: int, states: Tensor, slot: Tensor) -> Tensor:
        """The rows' own keys or values [m, K, g, T, d] with the new token's [m, g, K, d] among them."""
        return self._view(layer)[which].index_copy_(3, slot, states.transpose(1, 2)[:, :, :, None])

    def _by_prompt(self, states: Tensor) -> Tensor:
        """[m * K * g, h, w] of the rows as [n * K, G * h, w] of the prompts."""
        if self._is_grid:
            return states.view(self.num_prompts * self.shape.num_heads, -1, states.shape[-1])
        num_cells = self.num_prompts * self.shape.num_heads * self.shape.group_size
        cells = states.index_select(0, self._to_cells[:num_cells])
        return cells.view(self.num_prompts * self.shape.num_heads, -1, states.shape[-1])

    def _by_row(self, states: Tensor) -> Tensor:
        """The way back."""
        num_cells = self.num_prompts * self.shape.num_heads * self.shape.group_size
        cells = states.view(num_cells, -1, states.shape[-1])
        if self._is_grid:
            return cells
        return cells.index_select(0, self._to_rows[: self.rows_shape[0] * self.shape.num_heads])

    @property
    def _is_grid(self) -> bool:
        return self.rows_shape == (self.num_prompts, self.shape.group_size)
