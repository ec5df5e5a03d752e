"""The media tables of a run in W&B: completions and evaluations, with the picture that each row is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import wandb
    from PIL.Image import Image


class Pictures(Protocol):
    """Finds the pictures of examples.

    Attributes:
        reason: Why one could not be found; None where all were.
    """

    reason: str | None

    def __call__(self, example_id: str, question: str | None) -> Image | None:
        """The picture of an example; None where it cannot be found."""


COMPLETION_COLUMNS = ("step", "id", "question", "completion", "reward", "accuracy", "format", "advantage")
EVALUATION_COLUMNS = ("id", "question", "completion", "extracted", "solution", "correct", "format", "num_tokens")

MAX_PICTURES = 64
"""Rows of an evaluation that are shown with their picture; each is a file to upload."""


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], pictures: Pictures | None) -> wandb.Table:
    """A W&B table of rows.

    Args:
        rows: Each with an `id`.
        columns: Those to show, in order; one that no row has is left out.
        pictures: For a first column `image`, which is left out where there is no picture. An example's picture is one
            file however many rows show it.
    """
    import wandb

    shown = [column for column in columns if any(column in row for row in rows)]
    data = [[row.get(column) for column in shown] for row in rows]
    if pictures is None:
        return wandb.Table(columns=list(shown), data=data)
    ids = list(dict.fromkeys(row["id"] for row in rows))[:MAX_PICTURES]
    questions = {row["id"]: row.get("question") for row in rows}
    found = {name: pictures(name, questions[name]) for name in ids}
    images = {name: wandb.Image(picture) for name, picture in found.items() if picture is not None}
    if not images:
        return wandb.Table(columns=list(shown), data=data)
    data = [[images.get(row["id"]), *cells] for row, cells in zip(rows, data, strict=True)]
    return wandb.Table(columns=["image", *shown], data=data)
