"""Counting questions: what the words and the pixels say agrees with the scene, on every split."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from harness.tasks.base import SPLITS, Split, load_task
from harness.tasks.counting import PHRASINGS, Counting
from harness.tasks.scene import (
    COLORS,
    IMAGE_SIZE,
    MAX_OBJECTS,
    SHAPES,
    Item,
    Light,
    Look,
    Puzzle,
    Scene,
    Spot,
    draw,
    legal_looks,
    place,
    visible_areas,
)

PALETTES = {
    "A": {"cube": {"gray", "blue", "brown", "yellow"}, "cylinder": {"red", "green", "purple", "cyan"}},
    "B": {"cube": {"red", "green", "purple", "cyan"}, "cylinder": {"gray", "blue", "brown", "yellow"}},
}
GOLDEN: dict[tuple[Split, int], tuple[str, str, str]] = {
    ("pretrain", 999999): (
        "How many of the spheres are cyan?",
        "4",
        "spheres 5, cyan spheres 4, total 4",
    ),
    ("train", 0): (
        "Count the objects in the image.",
        "7",
        "cubes 4, spheres 1, cylinders 2, total 7",
    ),
    ("train", 1): (
        "How many items are there in the image?",
        "10",
        "cubes 3, spheres 4, cylinders 3, total 10",
    ),
    ("validation", 3): (
        "How many objects are there?",
        "6",
        "cubes 2, spheres 2, cylinders 2, total 6",
    ),
    ("test", 0): (
        "How many objects are there?",
        "2",
        "cubes 0, spheres 2, cylinders 0, total 2",
    ),
    ("test", 5): (
        "How many cubes are there in the image?",
        "4",
        "cyan 4, total 4",
    ),
}


def compose(split: Split, seed: int) -> Puzzle:
    return Counting().compose(np.random.default_rng(seed), split)


def numbers(text: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", text)]


@pytest.mark.parametrize(("split", "index"), GOLDEN)
def test_text_of_known_examples(split: Split, index: int) -> None:
    example = load_task("counting").example(split, index)
    assert (example.question, example.answer, example.reasoning) == GOLDEN[split, index]


def test_same_index_gives_same_pixels_and_words() -> None:
    for split in SPLITS:
        first, second = (Counting().example(split, 7) for _ in range(2))
        assert first.image.tobytes() == second.image.tobytes()
        assert first.image.mode == "RGB"
        assert first.image.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert (first.question, first.answer, first.metadata) == (second.question, second.answer, second.metadata)


def test_splits_and_indices_differ() -> None:
    pixels = {Counting().example(split, index).image.tobytes() for split in SPLITS for index in range(5)}
    assert len(pixels) == 5 * len(SPLITS)


@pytest.mark.parametrize("split", SPLITS)
def test_looks_keep_to_the_condition_of_the_split(split: Split) -> None:
    seen: set[Look] = set()
    for seed in range(200):
        puzzle = compose(split, seed)
        assert puzzle.metadata["condition"] == ("B" if split == "test" else "A")
        seen |= {item.look for item in puzzle.scene.items}
    palette = PALETTES["B" if split == "test" else "A"]
    assert {look.color for look in seen if look.shape == "cube"} == palette["cube"]
    assert {look.color for look in seen if look.shape == "cylinder"} == palette["cylinder"]
    assert {look.color for look in seen if look.shape == "sphere"} == set(COLORS)


def test_conditions_share_the_spheres_only() -> None:
    assert {look.shape for look in {*legal_looks("A")} & {*legal_looks("B")}} == {"sphere"}
    assert {*legal_looks("A")} | {*legal_looks("B")} == {Look(c, s) for c in COLORS for s in SHAPES}


@pytest.mark.parametrize("split", ["train", "test"])
def test_answer_and_reasoning_equal_a_recount_of_the_question(split: Split) -> None:
    for seed in range(400):
        puzzle = compose(split, seed)
        words = set(re.findall(r"[a-z]+", puzzle.question.lower()))
        colors = [color for color in COLORS if color in words]
        shapes = [shape for shape in SHAPES if f"{shape}s" in words]
        looks = [item.look for item in puzzle.scene.items]
        recount = sum(look.color in (colors or COLORS) and look.shape in (shapes or SHAPES) for look in looks)
        assert puzzle.answer == recount
        assert puzzle.metadata["num_objects"] == len(looks)
        *parts, total = numbers(puzzle.reasoning)
        assert total == recount
        assert (parts[1] if puzzle.metadata["kind"] == "color_shape" else sum(parts)) == recount
        assert len(puzzle.reasoning.split()) <= 14
        assert len(puzzle.question.split()) <= 18


def test_metadata_names_the_wording() -> None:
    seen = set()
    for seed in range(200):
        puzzle = compose("train", seed)
        kind, phrasing = puzzle.metadata["kind"], puzzle.metadata["phrasing"]
        assert isinstance(kind, str)
        assert isinstance(phrasing, int)
        color, shape = puzzle.metadata.get("color"), puzzle.metadata.get("shape")
        assert puzzle.question == PHRASINGS[kind][phrasing].format(color=color, shape=shape)
        seen.add((kind, phrasing))
    assert seen == {(kind, i) for kind in PHRASINGS for i in range(3)}
    assert PHRASINGS["all"][0] == "How many items are there in the image?"


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_prevails(split: Split) -> None:
    answers = Counter(compose(split, seed).answer for seed in range(1000))
    assert set(answers) == set(range(11))
    assert max(answers.values()) < 0.2 * 1000


def test_every_object_can_be_seen() -> None:
    for seed in range(100):
        scene = compose("train", seed).scene
        seen, whole = visible_areas(scene), visible_areas(scene, alone=True)
        assert min(seen) >= 60
        assert min(a / b for a, b in zip(seen, whole, strict=True)) >= 0.6


def test_full_scenes_can_always_be_placed() -> None:
    for seed in range(50):
        spots = place(np.random.default_rng(seed), MAX_OBJECTS)
        assert len(spots) == MAX_OBJECTS
        assert [spot.y for spot in spots] == sorted(spot.y for spot in spots)
        assert all(spot.x >= spot.radius and spot.x + spot.radius <= IMAGE_SIZE for spot in spots)


def test_a_nearer_object_hides_a_farther_one() -> None:
    light = Light(0.0, 1.0, (200, 200, 200))
    far = Item(Look("red", "sphere"), Spot(56.0, 60.0, 10.0), 0.5)
    near = Item(Look("blue", "cube"), Spot(62.0, 66.0, 10.0), 0.5)
    scene = Scene((far, near), light)
    far_seen, near_seen = visible_areas(scene)
    far_whole, near_whole = visible_areas(scene, alone=True)
    assert far_seen < far_whole
    assert near_seen == near_whole
    # A sphere of radius 9.2 px (0.92 of its spot) covers a disc of 266 square pixels.
    assert far_whole == pytest.approx(np.pi * 9.2**2, rel=0.05)


@pytest.mark.parametrize("shape", SHAPES)
def test_colors_are_told_apart_under_any_light(shape: str) -> None:
    """The mean of the pixels around an object's middle differs between any two colors by 25 of 255 in some channel."""
    for azimuth in (-1.1, 0.0, 1.1):
        for strength in (0.88, 1.1):
            middles = {}
            for color in COLORS:
                item = Item(Look(color, shape), Spot(56.0, 60.0, 10.0), 0.6)  # type: ignore[arg-type]
                image = draw(Scene((item,), Light(azimuth, strength, (190, 190, 190))))
                middles[color] = np.asarray(image.crop((52, 45, 60, 61)), dtype=float).mean(axis=(0, 1))
            pairs = [(a, b) for a in COLORS for b in COLORS if a < b]
            assert min(np.abs(middles[a] - middles[b]).max() for a, b in pairs) > 25
