"""The last rows of a file that grows, without reading the rest."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

TAIL_BYTES = 32768
"""A row of metrics has some hundred bytes."""


def tail_rows(path: Path) -> list[dict[str, Any]]:
    """The last whole rows of a JSONL file, oldest first, without what is torn; none where it is missing."""
    try:
        with open(path, "rb") as stream:
            stream.seek(max(os.fstat(stream.fileno()).st_size - TAIL_BYTES, 0))
            lines = stream.read().splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:  # torn at either end
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
