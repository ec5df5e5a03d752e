"""Charts: answers recomputed from the bars, bars measured in the pixels, held-out pairs of colour and value."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from harness.tasks.base import Example, load_task
from harness.tasks.charts import COLOURS, KINDS, PHRASINGS, Chart, Charts, draw_chart, held_out, paint


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    task = Charts()
    return {split: [task.example(split, index) for index in range(1500)] for split in ("train", "test")}


def bars(example: Example) -> dict[str, int]:
    values = map(int, str(example.metadata["values"]).split())
    return dict(zip(str(example.metadata["colours"]).split(), values, strict=True))


def expected_answer(example: Example) -> int:
    heights, words = bars(example), str(example.metadata["words"]).split()
    match example.metadata["kind"]:
        case "value":
            return heights[words[0]]
        case "tallest":
            return sorted(heights.values())[-1]
        case "shortest":
            return sorted(heights.values())[0]
        case "above":
            return sum(value > int(words[0]) for value in heights.values())
        case "difference":
            return heights[words[0]] - heights[words[1]]
        case "sum":
            return heights[words[0]] + heights[words[1]]
        case "bars":
            return len(heights)
    raise AssertionError(example.metadata["kind"])


def test_first_examples_never_change() -> None:
    task = load_task("charts")
    found = [(e.question, e.answer, e.reasoning) for e in (task.example("train", index) for index in range(3))]
    assert found == GOLDEN_TRAIN
    last = task.example("test", 1999)
    assert (last.id, last.question, last.answer, last.reasoning) == GOLDEN_TEST


def test_an_index_always_gives_the_same_pixels() -> None:
    first, second = (Charts().example("pretrain", 123_456).image for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (first.mode, first.size) == ("RGB", (112, 112))


def test_splits_share_no_picture(examples: dict[str, list[Example]]) -> None:
    marks = {
        split: {hashlib.sha256(example.image.tobytes()).digest() for example in part}
        for split, part in examples.items()
    }
    assert len(marks["train"]) == len(marks["test"]) == 1500
    assert not marks["train"] & marks["test"]


def test_answers_follow_from_the_bars(examples: dict[str, list[Example]]) -> None:
    for example in (*examples["train"], *examples["test"]):
        assert int(example.answer) == expected_answer(example)
        assert re.findall(r"\w+", example.reasoning)[-1] == example.answer
        assert len(re.findall(r"\w+", example.reasoning)) <= 17
        for left, sign, right, result in re.findall(r"(\d+) ([-+]) (\d+) = (\d+)", example.reasoning):
            assert int(result) == int(left) + (1 if sign == "+" else -1) * int(right)
        for word in str(example.metadata["words"]).split():
            assert word in example.question.rstrip("?.").split()


def test_axis_and_bars_are_in_range(examples: dict[str, list[Example]]) -> None:
    for example in (*examples["train"], *examples["test"]):
        heights = bars(example)
        assert 3 <= len(heights) <= 6
        assert all(1 <= value <= int(example.metadata["top"]) for value in heights.values())
        if example.metadata["kind"] == "above":
            assert int(str(example.metadata["words"])) % int(example.metadata["step"]) == 0
        if example.metadata["kind"] == "difference":
            assert int(example.answer) > 0


def test_test_bars_have_held_out_pairs_only(examples: dict[str, list[Example]]) -> None:
    pairs = {split: {pair for e in part for pair in bars(e).items()} for split, part in examples.items()}
    assert all(held_out(*pair) for pair in pairs["test"])
    assert not any(held_out(*pair) for pair in pairs["train"])
    assert pairs["train"] | pairs["test"] == {(colour, value) for colour in COLOURS for value in range(1, 13)}


def test_every_kind_has_every_phrasing(examples: dict[str, list[Example]]) -> None:
    seen = {(e.metadata["kind"], e.metadata["phrasing"]) for e in examples["train"]}
    assert seen == {(kind, phrasing) for kind in KINDS for phrasing in range(3)}
    assert all(len(set(sentences)) == 3 for sentences in PHRASINGS.values())


def test_words_are_few_and_questions_short(examples: dict[str, list[Example]]) -> None:
    words = Counter(
        word for e in examples["train"] for word in re.findall(r"[a-z]+", f"{e.question} {e.reasoning}".lower())
    )
    assert len(words) < 60
    assert max(len(e.question.split()) for e in examples["train"]) <= 25


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_is_common(examples: dict[str, list[Example]], split: str) -> None:
    counts = Counter(e.answer for e in examples[split])
    assert counts.most_common(1)[0][1] <= 0.17 * 1500
    assert len(counts) >= 20


def test_bars_stand_in_the_picture_as_high_as_they_should() -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test") * 40:
        chart = draw_chart(rng, split)
        pixels = np.asarray(paint(rng, chart))
        heights, lefts = [], []
        for colour in chart.colours:
            rows, columns = np.nonzero((pixels == COLOURS[colour]).all(axis=-1))
            heights.append(int(rows.max() - rows.min() + 1))
            lefts.append(int(columns.min()))
            assert columns.max() - columns.min() + 1 >= 7
        assert lefts == sorted(lefts)
        # The top row of a bar lies on its grid line and the bottom row under the axis: heights are unit * value.
        unit = heights[0] / chart.values[0]
        assert unit == int(unit) >= 6
        assert heights == [unit * value for value in chart.values]
        rim = np.concatenate([pixels[0], pixels[:, -1]])
        assert (rim == rim[0]).all()


def test_grid_lines_stand_every_step() -> None:
    for step in (1, 2):
        chart = Chart(("red", "blue", "green"), (1, 2, 3), 8, step)
        pixels = np.asarray(paint(np.random.default_rng(5), chart)).astype(int)
        column = pixels[:, 10 : 112 - 14]
        gray = (np.abs(column - column[..., :1]).max(axis=-1) == 0) & (column[..., 0] >= 170) & (column[..., 0] < 206)
        lines = np.nonzero(gray.sum(axis=1) > 12)[0]
        assert len(lines) == 8 // step
        assert len(set(np.diff(lines))) == 1


GOLDEN_TRAIN = [
    (
        "What is the sum of the green bar and the yellow bar?",
        "5",
        "green is 3, yellow is 2, 3 + 2 = 5",
    ),
    (
        "How much are the green bar and the cyan bar together?",
        "17",
        "green is 5, cyan is 12, 5 + 12 = 17",
    ),
    (
        "Read the red bar.",
        "4",
        "red is 4",
    ),
]
GOLDEN_TEST = (
    "charts/test/1999",
    "Count the bars.",
    "5",
    "red blue cyan brown purple, count 5",
)
