"""The errors of this project, and the exit code each one leads to.

HarnessError
+-- UserError            exit 2: the user's mistake; one sentence that names the place and the way out
|   +-- SpecError        a sweep file or a setting: knows its file and line
|   +-- DataError        a file or a row of data
|   +-- ModelError       a model name, folder or profile
+-- RunError             a run failed; the sweep goes on; exit 3 at the end
|   +-- NonFiniteError   a loss or gradient that is not a number
|   +-- OutOfMemoryError  what cannot be split further does not fit into memory
|   +-- FencedError      another process has taken the run over
|   +-- ProcessLostError  one of a run's processes has ended, which takes the others with it
+-- Interrupted          a run was asked to stop; it can be resumed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

_LISTED = 16
"""Legal words that a hint lists."""
_LONGEST = 200
"""Characters of a misspelt word that are compared."""


class HarnessError(Exception):
    """Base of every error that this project raises on purpose."""


class UserError(HarnessError):
    """A mistake of the user's, told in one sentence without a traceback: on one line, whatever it quotes."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class SpecError(UserError):
    """A setting that cannot be: unknown, of the wrong type, or impossible.

    Args:
        message: One sentence: what is wrong and what is allowed.
        file: The sweep file it stands in, where known.
        line: Its line, from 1.
    """

    def __init__(self, message: str, *, file: Path | str | None = None, line: int | None = None) -> None:
        self.message = message
        self.file = file
        self.line = line
        place = "" if file is None else f"{file}: " if line is None else f"{file}:{line}: "
        super().__init__(place + message)


class DataError(UserError):
    """A data file or row that cannot be used."""


class ModelError(UserError):
    """A model that cannot be found or loaded."""


class RunError(HarnessError):
    """A run that failed for a reason of its own."""


class NonFiniteError(RunError):
    """A loss or gradient that is not finite.

    Args:
        what: The quantity, such as ``"loss"``.
        step: The training step, from 0.
        example_ids: The ids of the examples in that step's batch.
    """

    def __init__(self, what: str, step: int, example_ids: Iterable[str]) -> None:
        self.step = step
        self.example_ids = tuple(example_ids)
        super().__init__(f"{what} is not finite at step {step}; examples: {', '.join(self.example_ids)}")


class OutOfMemoryError(RunError):
    """Memory ran out, and what it ran out in cannot be split further.

    Args:
        what: The work, such as ``"update"``.
        tokens: How many tokens it holds.
        reason: What the allocator said.
    """

    def __init__(self, what: str, tokens: int, reason: str) -> None:
        super().__init__(
            f"out of memory in the {what} with one piece of {tokens} tokens, which cannot be split: set "
            f"execution.gradient_checkpointing, lora_rank, a smaller max_pixels or shorter completions ({reason})"
        )


class FencedError(RunError):
    """The folder that was to be written to has another owner by now: this process has no more say in it."""


class ProcessLostError(RunError):
    """A run lost one of its processes, which takes the others with it."""


class Interrupted(HarnessError):  # noqa: N818 - not an error, but the way out of a loop
    """The run was asked to stop and has saved a checkpoint."""


def printable(text: str) -> str:
    """A text on one line: characters that break it, move the cursor or hide are written as their escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def shortened(text: str, most: int = 60) -> str:
    """A user's own words, to be quoted in a sentence: no more characters of them than `most`."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def nearest(word: str, legal: Iterable[str]) -> str:
    """A hint for a misspelt word.

    Returns:
        ``"did you mean 'x'?"`` where a legal word is near, else the list of legal words, of a long one the nearest.
    """
    words, word = sorted(legal), word[:_LONGEST]
    close = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    if len(words) <= _LISTED:
        return f"allowed: {', '.join(words)}"
    some = difflib.get_close_matches(word, words, n=_LISTED // 2, cutoff=0.0)
    return f"allowed: {', '.join(sorted(some))} and {len(words) - len(some)} more"
