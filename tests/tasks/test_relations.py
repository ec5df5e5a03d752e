"""Relation questions: what the words say agrees with where the objects stand, without near ties."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from harness.tasks.base import SPLITS, Split, load_task
from harness.tasks.relations import MARGIN, PHRASINGS, Relations
from harness.tasks.scene import COLORS, IMAGE_SIZE, SHAPES, Item, Puzzle, legal_looks, visible_areas

GOLDEN: dict[tuple[Split, int], tuple[str, str, str]] = {
    ("pretrain", 999999): ("How many items are there behind the yellow sphere?", "2", "behind of 5 objects, total 2"),
    ("train", 0): ("How many items are there to the left of the brown cube?", "4", "left of 5 objects, total 4"),
    ("train", 1): (
        "Count the other objects with the color of the blue sphere.",
        "1",
        "blue cubes 1, blue cylinders 0, total 1",
    ),
    ("validation", 3): ("How many objects are right of the red cylinder?", "5", "right of 6 objects, total 5"),
    ("test", 0): (
        "How many other objects have the same color as the brown cylinder?",
        "0",
        "brown cubes 0, brown spheres 0, total 0",
    ),
    ("test", 5): ("How many objects are right of the brown cylinder?", "3", "right of 4 objects, total 3"),
}
SPATIAL = {"left", "right", "front", "behind"}


def compose(split: Split, seed: int) -> Puzzle:
    return Relations().compose(np.random.default_rng(seed), split)


def reference_of(puzzle: Puzzle) -> Item:
    """The only object of the look that ends the question."""
    color, shape = puzzle.question.rstrip("?.").split()[-2:]
    (reference,) = [item for item in puzzle.scene.items if item.look == (color, shape)]
    return reference


def recount(puzzle: Puzzle) -> int:
    """The answer from the question's words and the scene alone."""
    items = puzzle.scene.items
    question = puzzle.question.lower()
    if " more " in question:
        values = [word.removesuffix("s") for word in re.findall(r"[a-z]+", question)]
        first, second = [value for value in values if value in (*COLORS, *SHAPES)]
        return sum(first in item.look for item in items) - sum(second in item.look for item in items)
    reference = reference_of(puzzle)
    x, y = reference.spot.x, reference.spot.y
    others = [item for item in items if item is not reference]
    tests = {
        "left of": lambda item: item.spot.x < x,
        "right of": lambda item: item.spot.x > x,
        "in front of": lambda item: item.spot.y > y,
        "behind": lambda item: item.spot.y < y,
        "color": lambda item: item.look.color == reference.look.color,
        "shape": lambda item: item.look.shape == reference.look.shape,
    }
    (test,) = [test for words, test in tests.items() if words in question]
    return sum(map(test, others))


@pytest.mark.parametrize(("split", "index"), GOLDEN)
def test_text_of_known_examples(split: Split, index: int) -> None:
    example = load_task("relations").example(split, index)
    assert (example.question, example.answer, example.reasoning) == GOLDEN[split, index]


def test_same_index_gives_same_pixels_and_words() -> None:
    for split in SPLITS:
        first, second = (Relations().example(split, 11) for _ in range(2))
        assert first.image.tobytes() == second.image.tobytes()
        assert first.image.mode == "RGB"
        assert first.image.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert (first.question, first.answer, first.metadata) == (second.question, second.answer, second.metadata)


def test_splits_and_indices_differ() -> None:
    pixels = {Relations().example(split, index).image.tobytes() for split in SPLITS for index in range(5)}
    assert len(pixels) == 5 * len(SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_looks_keep_to_the_condition_of_the_split(split: Split) -> None:
    condition = "B" if split == "test" else "A"
    seen = {item.look for seed in range(150) for item in compose(split, seed).scene.items}
    assert seen == set(legal_looks(condition))


@pytest.mark.parametrize("split", ["train", "test"])
def test_answer_and_reasoning_equal_a_recount_of_the_question(split: Split) -> None:
    for seed in range(400):
        puzzle = compose(split, seed)
        assert puzzle.answer == recount(puzzle)
        assert 0 <= puzzle.answer <= 5
        assert puzzle.metadata["num_objects"] == len(puzzle.scene.items)
        *parts, total = [int(word) for word in re.findall(r"\d+", puzzle.reasoning)]
        assert total == puzzle.answer
        kind = puzzle.metadata["kind"]
        if kind in SPATIAL:
            assert parts == [len(puzzle.scene.items)]
        else:
            assert (parts[0] - parts[1] if kind == "more" else sum(parts)) == puzzle.answer
        assert len(puzzle.reasoning.split()) <= 14
        assert len(puzzle.question.split()) <= 18


def test_no_object_is_level_with_the_reference() -> None:
    num_checked = 0
    for seed in range(300):
        puzzle = compose("train", seed)
        kind = puzzle.metadata["kind"]
        if kind not in SPATIAL:
            continue
        num_checked += 1
        reference = reference_of(puzzle)
        axis = "x" if kind in ("left", "right") else "y"
        for other in puzzle.scene.items:
            if other is not reference:
                gap = getattr(other.spot, axis) - getattr(reference.spot, axis)
                assert abs(gap) >= MARGIN
                if axis == "y":
                    ends = other.spot.box[3] - reference.spot.box[3]
                    assert np.sign(ends) == np.sign(gap)
    assert num_checked > 100


def test_metadata_names_the_wording() -> None:
    seen = set()
    for seed in range(400):
        puzzle = compose("train", seed)
        kind, phrasing = puzzle.metadata["kind"], puzzle.metadata["phrasing"]
        assert isinstance(kind, str)
        assert isinstance(phrasing, int)
        words = {name: puzzle.metadata.get(name) for name in ("ref", "first", "second")}
        assert puzzle.question == PHRASINGS[kind][phrasing].format(**words)
        seen.add((kind, phrasing))
    assert seen == {(kind, i) for kind in PHRASINGS for i in range(3)}


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_prevails(split: Split) -> None:
    answers = Counter(compose(split, seed).answer for seed in range(1000))
    assert set(answers) == set(range(6))
    assert max(answers.values()) < 0.3 * 1000


def test_every_object_can_be_seen() -> None:
    for seed in range(100):
        scene = compose("test", seed).scene
        seen, whole = visible_areas(scene), visible_areas(scene, alone=True)
        assert min(seen) >= 60
        assert min(a / b for a, b in zip(seen, whole, strict=True)) >= 0.6
