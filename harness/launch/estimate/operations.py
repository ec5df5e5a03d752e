"""How many operations a model takes for a prefill, a decoded token and an update, counted by hand.

Operations are those of matrix products, a multiplication and an addition counted as two; the others are fewer than a
hundredth. Attention is counted at the pairs of tokens that see each other: a kernel that computes a dense square and
masks it does more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """A Qwen2-VL's sizes.

    Attributes:
        layers, width, heads, key_value_heads, head_dim, mlp_width, vocabulary: Of the text stack.
        is_tied: Whether the output head is the embedding.
        tower_layers, tower_width, tower_mlp_width: Of the image tower.
        patch_width: Numbers of a patch: channels x frames x side x side.
        merge: Patches that become one image token.
    """

    layers: int
    width: int
    heads: int
    key_value_heads: int
    head_dim: int
    mlp_width: int
    vocabulary: int
    is_tied: bool
    tower_layers: int
    tower_width: int
    tower_mlp_width: int
    patch_width: int
    merge: int

    @staticmethod
    def of(config: Mapping[str, Any]) -> Sizes:
        """The sizes that a Qwen2-VL's `config.json` tells; what it leaves out is transformers' default of the tower.

        Args:
            config: Of transformers 5, or with the text stack's settings beside the others, as the first ones had it.

        Raises:
            KeyError: It is another kind of model's.
        """
        text, tower = config.get("text_config") or config, config["vision_config"]
        width, patch_side = tower.get("embed_dim", 1280), tower.get("patch_size", 14)
        frames = tower.get("temporal_patch_size", 2)
        return Sizes(
            layers=text["num_hidden_layers"],
            width=text["hidden_size"],
            heads=text["num_attention_heads"],
            key_value_heads=text["num_key_value_heads"],
            head_dim=text["hidden_size"] // text["num_attention_heads"],
            mlp_width=text["intermediate_size"],
            vocabulary=text["vocab_size"],
            is_tied=bool(config.get("tie_word_embeddings", False)),
            tower_layers=tower["depth"],
            tower_width=width,
            tower_mlp_width=int(width * tower.get("mlp_ratio", 4)),
            patch_width=tower.get("in_channels", 3) * frames * patch_side**2,
            merge=tower.get("spatial_merge_size", 2) ** 2,
        )

    @property
    def layer_parameters(self) -> int:
        """Of one text layer: q, k, v with biases, o, a gated MLP, two norms."""
        query, pair = self.heads * self.head_dim, 2 * self.key_value_heads * self.head_dim
        attention = (self.width + 1) * (query + pair) + query * self.width
        return attention + 3 * self.width * self.mlp_width + 2 * self.width

    @property
    def embedding_parameters(self) -> int:
        """A row per token; the output head has as many."""
        return self.vocabulary * self.width

    @property
    def tower_parameters(self) -> int:
        """Patch projection, layers of qkv, projection, two-matrix MLP and two norms with biases, and the merger."""
        wide, merged = self.tower_width, self.merge * self.tower_width
        attention = wide * 3 * wide + 3 * wide + wide * wide + wide
        mlp = 2 * wide * self.tower_mlp_width + self.tower_mlp_width + wide
        merger = 2 * wide + merged * merged + merged + merged * self.width + self.width
        return self.patch_width * wide + self.tower_layers * (attention + mlp + 4 * wide) + merger

    @property
    def decoded_parameters(self) -> int:
        """Those read for every decoded token: the layers, the last norm and the output head."""
        return self.layers * self.layer_parameters + self.width + self.embedding_parameters

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.decoded_parameters + self.tower_parameters + (0 if self.is_tied else self.embedding_parameters)

    @property
    def cache_elements(self) -> int:
        """Numbers of the key-value cache for one token."""
        return 2 * self.layers * self.key_value_heads * self.head_dim


@dataclass(frozen=True)
class Shapes:
    """The lengths of one step.

    Attributes:
        prompts: Tokens of each prompt [N], its image's included.
        completions: Tokens of each prompt's completions [N][G].
        patches: Patches of each prompt's image [N].
    """

    prompts: Sequence[int]
    completions: Sequence[Sequence[int]]
    patches: Sequence[int]

    @property
    def num_tokens(self) -> int:
        """Completion tokens."""
        return sum(sum(group) for group in self.completions)


def causal_pairs(tokens: int, before: int = 0) -> int:
    """Pairs (query, key) of tokens that see themselves, one another causally, and as many as `before` before them."""
    return tokens * before + tokens * (tokens + 1) // 2


def text_operations(sizes: Sizes, tokens: int, pairs: int, ends: int | None = None) -> int:
    """A forward pass of the text layers.

    2 * tokens * D * (H + 2K) d for q, k and v; 2 * tokens * (H d D + 3 D F) for o and the MLP; 4 * pairs * H d for
    scores and weighted values; each per layer.

    Args:
        sizes: The model's.
        tokens: Rows of the layers' matrix products.
        pairs: Queries and keys that meet, per layer.
        ends: Tokens that go through the last layer's o and MLP; None for all. Nothing asks for the others' states.
    """
    query = sizes.heads * sizes.head_dim
    ends = tokens if ends is None else ends
    inward = 2 * tokens * sizes.width * (query + 2 * sizes.key_value_heads * sizes.head_dim) * sizes.layers
    outward = 2 * (query * sizes.width + 3 * sizes.width * sizes.mlp_width) * (tokens * (sizes.layers - 1) + ends)
    return inward + outward + 4 * pairs * query * sizes.layers


def head_operations(sizes: Sizes, tokens: int) -> int:
    """The output head: 2 * tokens * D * V."""
    return 2 * tokens * sizes.embedding_parameters


def patch_operations(sizes: Sizes, patches: int) -> int:
    """The tower's first product, from pixels: 2 * patches * patch_width * Dv."""
    return 2 * patches * sizes.patch_width * sizes.tower_width


def tower_operations(sizes: Sizes, patches: Sequence[int]) -> int:
    """A forward pass of the image tower over images of so many patches, each attended to alone and in full.

    Per layer and patch 2 * (4 Dv^2 + 2 Dv Fv), per pair of an image's patches 4 Dv; and the merger,
    2 * ((M Dv)^2 + M Dv D) per image token of M patches.
    """
    total, wide, merged = sum(patches), sizes.tower_width, sizes.merge * sizes.tower_width
    linear = 2 * total * (4 * wide * wide + 2 * wide * sizes.tower_mlp_width) * sizes.tower_layers
    attention = 4 * wide * sum(count * count for count in patches) * sizes.tower_layers
    merger = 2 * (total // sizes.merge) * (merged * merged + merged * sizes.width)
    return patch_operations(sizes, total) + linear + attention + merger


def prefill_operations(sizes: Sizes, shapes: Shapes) -> int:
    """Images encoded, prompts run once each, one token's logits for each."""
    text = text_operations(sizes, sum(shapes.prompts), sum(map(causal_pairs, shapes.prompts)), ends=len(shapes.prompts))
    return tower_operations(sizes, shapes.patches) + text + head_operations(sizes, len(shapes.prompts))


def decode_operations(sizes: Sizes, shapes: Shapes) -> int:
    """All tokens of a rollout but each completion's first, which the prefill predicts; the last one is not run."""
    total = 0
    for prompt, group in zip(shapes.prompts, shapes.completions, strict=True):
        for length in group:
            run = max(length - 1, 0)
            total += text_operations(sizes, run, causal_pairs(run, prompt)) + head_operations(sizes, run)
    return total


def update_operations(sizes: Sizes, shapes: Shapes, *, is_shared: bool) -> int:
    """A forward and backward pass, a backward one counted as two forward ones.

    Args:
        sizes: The model's.
        shapes: The step's.
        is_shared: Whether a prompt is run once with its completions behind it, and its image is encoded before the
            update, whose share is the tower's backward pass alone (the harness); or everything once per completion, as
            a plain forward does. The pixels themselves get no gradient.
    """
    forward = tower = pixels = 0
    for prompt, group, patches in zip(shapes.prompts, shapes.completions, shapes.patches, strict=True):
        if is_shared:
            runs = [max(length - 1, 0) for length in group]
            pairs = causal_pairs(prompt) + sum(causal_pairs(run, prompt) for run in runs)
            forward += text_operations(sizes, prompt + sum(runs), pairs, ends=sum(group))
            tower += 2 * tower_operations(sizes, [patches])
            pixels += patch_operations(sizes, patches)
        else:
            for length in group:
                forward += text_operations(sizes, prompt + length, causal_pairs(prompt + length))
            tower += 3 * len(group) * tower_operations(sizes, [patches])
            pixels += len(group) * patch_operations(sizes, patches)
        forward += head_operations(sizes, sum(group))
    return 3 * forward + tower - pixels
