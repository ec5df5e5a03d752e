"""The sheet holds the task's pictures, each with its question and answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Annotation
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.report.contact_sheet import contact_sheet, write_contact_sheet
from harness.tasks.base import Example, load_task


def test_pictures_questions_and_answers() -> None:
    examples = [load_task("counting").example("test", index) for index in range(5)]
    figure = contact_sheet(examples, "counting, test")
    assert len(figure.axes) == 5
    for index, (axes, example) in enumerate(zip(figure.axes, examples, strict=True)):
        np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(example.image))
        (caption,) = (text for text in axes.texts if isinstance(text, Annotation))
        said = " ".join(caption.get_text().split())
        assert said == f"{index}: {example.question} answer: {example.answer}"
    rows = {round(axes.get_position().y0, 4) for axes in figure.axes}
    assert len(rows) == 2


def test_a_long_question_is_cut_and_a_dollar_is_no_formula(tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 24))
    example = Example(image, "What do $x and $y_ cost? " * 20, "5", "", id="shop/test/0")
    figure = contact_sheet([example], "shop")
    (caption,) = (text for text in figure.axes[0].texts if isinstance(text, Annotation))
    lines = caption.get_text().splitlines()
    assert len(lines) == 7 and lines[5].endswith("…") and lines[6] == "answer: 5"
    assert not caption.get_parse_math()


def test_the_verb_writes_it(tmp_path: Path) -> None:
    file = tmp_path / "sheets" / "geometry.png"
    arguments = ["examples", "geometry", "--n", "2", "--split", "train", "--first", "7", "--out", str(file)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    with Image.open(file) as image:
        assert image.width > image.height


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"task": "countin"}, "did you mean 'counting'"),
        ({"first": 2000}, "counting has 2000 test examples: there is no number 2000"),
        ({"out": "sheet.txt"}, "is a .png, .svg or .pdf file"),
    ],
)
def test_mistakes(tmp_path: Path, options: dict[str, object], said: str) -> None:
    call = {"task": "counting", "first": 0, "out": "sheet.png"} | options
    with pytest.raises(UserError, match=said):
        write_contact_sheet(
            str(call["task"]), tmp_path / str(call["out"]), split="test", num_examples=1, first=int(str(call["first"]))
        )


def test_the_sheet_ends_with_the_split(tmp_path: Path) -> None:
    written = write_contact_sheet("counting", tmp_path / "end.png", split="test", num_examples=9, first=1999)
    with Image.open(written) as image:
        assert image.width == 400
