"""Rows and pictures as users have them, small ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image


@pytest.fixture(name="write_rows")
def _write_rows() -> Callable[..., Path]:
    return write_rows


@pytest.fixture(name="write_parquet")
def _write_parquet(datasets_cache: Path) -> Callable[..., Path]:
    return write_parquet


def write_rows(file: Path, num: int, **changes: Mapping[int, Any]) -> Path:
    """R1-V's training rows with a picture each; `changes` replaces a column's value in some rows (from 0)."""
    (file.parent / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for number in range(num):
        Image.new("RGB", (6, 4), (number, 0, 0)).save(file.parent / "images" / f"{number}.png")
        row = {
            "image": f"images/{number}.png",
            "problem": f"How many? ({number})",
            "solution": f"<answer> {number} </answer>",
        }
        rows.append(row | {column: values[number] for column, values in changes.items() if number in values})
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the `datasets` library keeps what it prepares, in the place of the user's own cache."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def write_parquet(file: Path, num: int, first: int = 0) -> Path:
    """Rows as the hub has them: the `Image` of the `datasets` library, bytes inside, and `thinking`."""
    import io

    import datasets

    def picture(number: int) -> dict[str, Any]:
        stream = io.BytesIO()
        Image.new("RGB", (5, 3), (number, 9, 9)).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": None}

    numbers = range(first, first + num)
    rows = {
        "image": [picture(number) for number in numbers],
        "thinking": [f"<think>one by one: {number}</think>" for number in numbers],
        "problem": [f"How many? ({number})" for number in numbers],
        "solution": [f"<answer> {number} </answer>" for number in numbers],
    }
    features = datasets.Features({name: datasets.Value("string") for name in rows} | {"image": datasets.Image()})
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(file))
    return file
