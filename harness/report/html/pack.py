"""How bulky data lies in a page: JSON, compressed, as text that a script unpacks when it is looked at."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from typing import Any


def pack(value: Any) -> str:
    """A JSON value, gzipped, in base64: nothing in it can be taken for markup. Equal values give equal text.

    Raises:
        ValueError: A number is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def data_uri(kind: str, content: bytes) -> str:
    """Content as an address of its own, such as ``"data:image/svg+xml;base64,..."``.

    Args:
        kind: The media type.
        content: Any bytes.
    """
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def rounded(values: Iterable[float]) -> list[float | None]:
    """Numbers to five significant digits, which no chart can show better; None for those that are none."""
    return [float(f"{value:.5g}") if value == value else None for value in map(float, values)]


class Numbering:
    """Distinct texts, each once, in the order of their first use."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, text: str | None) -> int:
        """The number of a text; -1 for none."""
        return -1 if text is None else self._numbers.setdefault(text, len(self._numbers))

    @property
    def texts(self) -> list[str]:
        """By number."""
        return list(self._numbers)
