"""How much goes through the model at once: a budget of tokens, halved whenever memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from harness.errors import OutOfMemoryError
from harness.policy.decoding import forget_decoders

Result = TypeVar("Result")


class TokenBudget:
    """How many tokens a pass may hold.

    Args:
        tokens: At the start; None for as many as there are.
        halvings: How often that is halved before the first pass.
    """

    def __init__(self, tokens: int | None = None, halvings: int = 0) -> None:
        self.tokens = tokens
        self._halvings = halvings

    def split(self, sizes: Sequence[int]) -> list[list[int]]:
        """Places in order, in parts of at most the budget; what is larger alone makes a part of its own.

        Args:
            sizes: Tokens of each.
        """
        parts: list[list[int]] = []
        held = 0
        for place, size in enumerate(sizes):
            if not parts or (self.tokens is not None and held + size > self.tokens):
                parts.append([])
                held = 0
            parts[-1].append(place)
            held += size
        return parts

    def begin(self, largest: int, total: int) -> None:
        """Halves the budget as often as it shall be from the start, the first time that a pass's tokens are known."""
        if self._halvings:
            self.tokens = max(min(self.tokens or total, total) >> self._halvings, largest)
            self._halvings = 0

    def attempt(self, what: str, largest: int, total: int, work: Callable[[], Result]) -> Result:
        """Does some work again with half the budget, for as long as memory runs out.

        Args:
            what: The work, for the message.
            largest: Tokens of the largest piece, which cannot be split.
            total: Tokens of all pieces.
            work: Splits by this budget; what it made before memory ran out is dropped.

        Raises:
            OutOfMemoryError: The largest piece alone does not fit.
        """
        self.begin(largest, total)
        while True:
            try:
                return work()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Outside of the handler, whose traceback would keep the failed pass alive.
            forget_decoders()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            tokens = min(self.tokens or total, total)
            if tokens <= largest:
                raise OutOfMemoryError(what, largest, reason)
            self.tokens = max(tokens // 2, largest)
            print(f"out of memory in the {what}: going on with {self.tokens} tokens at a time", flush=True)


def _is_out_of_memory(error: RuntimeError) -> bool:
    # The CPU's allocator has no class of error of its own; its words depend on the system.
    words = ("can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)
