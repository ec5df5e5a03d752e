"""What the examples of a task look like: pictures with their questions and answers on one sheet."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.errors import UserError
from harness.report.figures.style import SMALL_PT, save, style

if TYPE_CHECKING:
    from harness.tasks.base import Example, Split

NUM_COLUMNS = 4
_CELL_IN = 2.0
_CHARACTERS = 34
_MAX_LINES = 6
_LINE_IN = 0.125


def write_contact_sheet(task: str, out: str | Path, *, split: Split, num_examples: int, first: int = 0) -> Path:
    """Draws consecutive examples of a task.

    Args:
        task: The name of a task, or the path of stored rows.
        out: The picture to write: `.png`, `.svg` or `.pdf`.
        split: Of the examples.
        num_examples: How many; fewer where the split ends before.
        first: The index of the first one, from 0.

    Returns:
        The file.

    Raises:
        UserError: There is no such task or example, or the file cannot be written.
    """
    from harness.tasks.base import load_task

    path = Path(out)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"--out {path}: a contact sheet is a .png, .svg or .pdf file")
    loaded = load_task(task)
    size = loaded.num_examples[split]
    if not 0 <= first < size:
        raise UserError(f"{loaded.name} has {size} {split} examples: there is no number {first}")
    examples = [loaded.example(split, index) for index in range(first, min(first + num_examples, size))]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(contact_sheet(examples, f"{loaded.name}, {split}"), path)
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return path


@style()
def contact_sheet(examples: Sequence[Example], title: str) -> Figure:
    """The sheet: rows of :data:`NUM_COLUMNS` pictures, below each its index, question and answer.

    Args:
        examples: At least one.
        title: Above them.
    """
    captions = [_caption(example) for example in examples]
    num_columns = min(NUM_COLUMNS, len(examples))
    num_rows = -(-len(examples) // num_columns)
    depths = [
        _LINE_IN * max(len(caption) for caption in captions[row * num_columns : (row + 1) * num_columns]) + 0.12
        for row in range(num_rows)
    ]
    width, height = num_columns * _CELL_IN, sum(depths) + num_rows * _CELL_IN + 0.3
    figure = Figure(figsize=(width, height), dpi=200)
    figure.text(0.5, 1 - 0.18 / height, title, ha="center", va="center", parse_math=False)
    top = height - 0.3
    for row, depth in enumerate(depths):
        top -= _CELL_IN
        for column, example in enumerate(examples[row * num_columns : (row + 1) * num_columns]):
            place = (column * _CELL_IN + 0.06, top + 0.03, _CELL_IN - 0.12, _CELL_IN - 0.06)
            axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
            _draw(axes, example, captions[row * num_columns + column])
        top -= depth
    return figure


def _draw(axes: Axes, example: Example, caption: Sequence[str]) -> None:
    axes.imshow(example.image)
    # Pictures of any shape stand on one line, and so do the captions.
    axes.set_anchor("S")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[["top", "right"]].set_visible(True)
    for spine in axes.spines.values():
        spine.set_edgecolor("#b0b0b0")
    # A question may hold a dollar, which would begin a formula.
    axes.annotate(
        "\n".join(caption),
        (0, 0),
        (0, -4),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        fontsize=SMALL_PT,
        linespacing=1.15,
        annotation_clip=False,
        parse_math=False,
    )


def _caption(example: Example) -> list[str]:
    question = textwrap.wrap(f"{example.id.rpartition('/')[2]}: {example.question}", _CHARACTERS)
    if len(question) > _MAX_LINES:
        question = [*question[: _MAX_LINES - 1], question[_MAX_LINES - 1][: _CHARACTERS - 1] + "…"]
    answer = textwrap.shorten(f"answer: {example.answer}", _CHARACTERS, placeholder="…")
    return [*question, answer]
