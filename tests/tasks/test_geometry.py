"""Geometry: answers by an independent table, figures true to their numbers, text that cannot answer alone."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from harness.tasks.base import Example, load_task
from harness.tasks.diagrams.problem import FORMS
from harness.tasks.diagrams.sketch import ASKED, INKS, Look, Sketch, render, sweep
from harness.tasks.geometry import KINDS, Geometry

RULES = {
    "straight_two": lambda a: 180 - a,
    "straight_three": lambda a, b: 180 - a - b,
    "straight_four": lambda a, b, c: 180 - a - b - c,
    "corner_two": lambda a: 90 - a,
    "corner_three": lambda a, b: 90 - a - b,
    "point_three": lambda a, b: 360 - a - b,
    "point_four": lambda a, b, c: 360 - a - b - c,
    "vertical": lambda a: a,
    "parallel_equal": lambda a: a,
    "parallel_between": lambda a: 180 - a,
    "triangle": lambda a, b: 180 - a - b,
    "right_triangle": lambda a: 90 - a,
    "isosceles_apex": lambda a: 180 - 2 * a,
    "isosceles_base": lambda a: (180 - a) / 2,
    "exterior_sum": lambda a, b: a + b,
    "exterior_difference": lambda a, b: a - b,
    "quadrilateral": lambda a, b, c: 360 - a - b - c,
    "right_quadrilateral": lambda a, b: 270 - a - b,
    "right_pentagon": lambda a, b, c: 450 - a - b - c,
    "regular_inside": lambda n: 180 - 360 / n,
    "regular_outside": lambda n: 360 / n,
    "regular_centre": lambda n: 360 / n,
    "angle_sum": lambda n: 180 * n - 360,
    "triangle_perimeter": lambda a, n: 3 * a,
    "square_perimeter": lambda a, n: 4 * a,
    "polygon_perimeter": lambda a, n: n * a,
    "square_area": lambda a: a**2,
    "half_square_area": lambda a: a**2 / 2,
    "two_squares_area": lambda a: 2 * a**2,
    "rectangle_perimeter": lambda a, b: 2 * a + 2 * b,
    "parallelogram_perimeter": lambda a, b: 2 * a + 2 * b,
    "isosceles_perimeter": lambda a, b: a + a + b,
    "rectangle_area": lambda a, b: a * b,
    "right_triangle_area": lambda a, b: a * b / 2,
    "parallelogram_area": lambda a, b: a * b,
    "similar": lambda a, b, c: c * b / a,
    "line_whole": lambda a, b, c: a + b + c,
    "line_part": lambda a, b, c: b - a - c,
}


@pytest.fixture(scope="module")
def examples() -> dict[str, list[Example]]:
    task = Geometry()
    return {split: [task.example(split, index) for index in range(1200)] for split in ("train", "test")}


def numbers(example: Example) -> list[int]:
    keys = ("given_1", "given_2", "given_3", "num_sides")
    return [int(example.metadata[key]) for key in keys if key in example.metadata]


def test_first_examples_never_change() -> None:
    task = load_task("geometry")
    found = [(e.question, e.answer, e.reasoning) for e in (task.example("train", index) for index in range(3))]
    assert found == GOLDEN_TRAIN
    last = task.example("test", 1999)
    assert (last.id, last.question, last.answer, last.reasoning) == GOLDEN_TEST


def test_an_index_always_gives_the_same_pixels() -> None:
    first, second = (Geometry().example("validation", 7).image for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert (first.mode, first.size) == ("RGB", (112, 112))


def test_splits_share_no_picture(examples: dict[str, list[Example]]) -> None:
    marks = {
        split: {hashlib.sha256(example.image.tobytes()).digest() for example in part}
        for split, part in examples.items()
    }
    assert len(marks["train"]) == len(marks["test"]) == 1200
    assert not marks["train"] & marks["test"]


def test_answers_follow_from_the_kind_and_the_numbers(examples: dict[str, list[Example]]) -> None:
    assert set(RULES) == set(KINDS)
    for example in (*examples["train"], *examples["test"]):
        assert int(example.answer) == RULES[str(example.metadata["kind"])](*numbers(example)) > 0
        given = numbers(example)[: len(numbers(example)) - ("num_sides" in example.metadata)]
        assert [int(word) for word in re.findall(r"is (\d+)", example.question)] == given


def test_reasoning_is_short_true_arithmetic_that_ends_in_the_answer(examples: dict[str, list[Example]]) -> None:
    for example in (*examples["train"], *examples["test"]):
        words = re.findall(r"\w+", example.reasoning)
        assert words[-1] == example.answer
        assert len(words) <= 14
        steps = re.findall(r"(\d+) ([-+*/]) (\d+) = (\d+)", example.reasoning)
        assert len(steps) == example.reasoning.count("=")
        for left, sign, right, result in steps:
            one, two = int(left), int(right)
            assert {"+": one + two, "-": one - two, "*": one * two, "/": one / two}[sign] == int(result)


def test_every_kind_has_every_phrasing_of_its_form(examples: dict[str, list[Example]]) -> None:
    seen = {(e.metadata["kind"], e.metadata["phrasing"]) for part in examples.values() for e in part}
    assert seen == {(kind, phrasing) for kind in KINDS for phrasing in range(3)}
    assert all(len(set(sentences)) == 3 for sentences in FORMS.values())


def test_words_are_few_and_questions_short(examples: dict[str, list[Example]]) -> None:
    words = Counter(
        word for e in examples["train"] for word in re.findall(r"[a-z]+", f"{e.question} {e.reasoning}".lower())
    )
    assert len(words) < 80
    assert max(len(e.question.split()) for e in examples["train"]) <= 25


def test_rotations_of_the_test_split_are_held_out(examples: dict[str, list[Example]]) -> None:
    train = [abs(int(e.metadata["rotation"])) for e in examples["train"]]
    test = [abs(int(e.metadata["rotation"])) for e in examples["test"]]
    assert (min(train), max(train)) == (0, 60)
    assert (min(test), max(test)) == (61, 120)


@pytest.mark.parametrize("split", ["train", "test"])
def test_no_answer_is_common(examples: dict[str, list[Example]], split: str) -> None:
    counts = Counter(e.answer for e in examples[split])
    assert counts.most_common(1)[0][1] <= 0.08 * 1200
    assert len(counts) > 60


@pytest.mark.parametrize(
    ("form", "num_answers"),
    [
        ("angles_1", 4),
        ("angles_2", 3),
        ("angles_3", 2),
        ("regular", 7),
        ("perimeter_1", 3),
        ("perimeter_2", 2),
        ("area_1", 3),
        ("area_2", 2),
        ("lengths_3", 3),
    ],
)
def test_the_text_alone_has_no_answer(form: str, num_answers: int) -> None:
    rng = np.random.default_rng(0)
    kinds: defaultdict[tuple[int, ...], set[str]] = defaultdict(set)
    answers: defaultdict[tuple[int, ...], set[int]] = defaultdict(set)
    shared = [kind for kind, make in KINDS.items() if make(rng).form == form]
    for kind in shared:
        for _ in range(2500):
            problem = KINDS[kind](rng)
            kinds[problem.given].add(kind)
            answers[problem.given].add(problem.answer)
    assert len(shared) >= 3
    assert max(len(found) for found in answers.values()) >= num_answers
    assert max(len(found) for found in kinds.values()) >= (2 if form == "angles_3" else 3)


@pytest.mark.parametrize("kind", list(KINDS))
def test_marked_angles_measure_what_the_text_says(kind: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        problem = KINDS[kind](rng)
        measured = {colour: math.degrees(sweep(start, end)) for _, start, end, colour in problem.sketch.arcs}
        for _, first, second in problem.sketch.squares:
            assert (first.conjugate() * second).real == pytest.approx(0, abs=1e-9)
        if problem.form.startswith(("angles", "regular")):
            expected = dict(zip(INKS, problem.given, strict=False)) | {ASKED: problem.answer}
            assert measured == pytest.approx(expected, abs=1e-6)
        else:
            assert not measured


@pytest.mark.parametrize("kind", [kind for kind, make in KINDS.items() if make.__module__.endswith("lengths")])
def test_marked_lengths_have_the_ratios_of_the_numbers(kind: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        problem = KINDS[kind](rng)
        sketch = problem.sketch
        drawn = {colour: abs(end - start) for start, end, colour in (*sketch.lengths, *sketch.dashed)}
        expected = dict(zip(INKS, problem.given, strict=False))
        if problem.form == "lengths_3":
            expected[ASKED] = problem.answer
        unit = drawn[INKS[0]] / problem.given[0]
        assert {colour: length / unit for colour, length in drawn.items()} == pytest.approx(expected)
        for start, end in sketch.ticks:
            assert abs(end - start) == pytest.approx(drawn[INKS[0]])


def test_the_colours_of_the_text_are_in_the_picture_and_nothing_is_cut_off(examples: dict[str, list[Example]]) -> None:
    for example in (*examples["train"][:400], *examples["test"][:400]):
        pixels = np.asarray(example.image).astype(int)
        form = str(example.metadata["form"])
        asked = form.startswith(("angles", "regular", "lengths"))
        for place, colour in enumerate((*INKS, ASKED), start=1):
            wanted = asked if colour == ASKED else f"given_{place}" in example.metadata
            count = int((np.abs(pixels - colour).max(axis=-1) <= 12).sum())
            assert count >= 4 if wanted else count == 0, example.id
        rim = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        # The end of a tick may touch the rim; a side or a mark that was cut off would leave more.
        assert (rim != rim[0]).any(axis=1).sum() <= 4, example.id


def test_kinds_look_different_in_the_same_place() -> None:
    look = Look(rotation=10, mirrored=False, size_px=95, place=(0.5, 0.5), line=(16, 16, 20), paper=(255, 255, 255))
    rng = np.random.default_rng(3)
    pictures = {kind: render(make(rng).sketch, look).tobytes() for kind, make in KINDS.items()}
    assert len(set(pictures.values())) == len(KINDS)


def test_a_quarter_turn_and_a_mirror_move_the_pixels_as_they_should() -> None:
    sketch = Sketch()
    sketch.polygon([0j, 4 + 0j, 3j])
    sketch.corner([0j, 4 + 0j, 3j], 1, INKS[0])
    base = {"size_px": 90, "place": (0.5, 0.5), "line": (0, 0, 0), "paper": (255, 255, 255)}

    def red(rotation: int, mirrored: bool) -> tuple[float, float]:
        pixels = np.asarray(render(sketch, Look(rotation=rotation, mirrored=mirrored, **base))).astype(int)
        rows, columns = np.nonzero(np.abs(pixels - INKS[0]).max(axis=-1) < 40)
        return float(columns.mean()), float(rows.mean())

    # The marked corner is at the right end of the base, and the base is the lower side of the figure.
    right, low = red(0, False)
    assert right > 75 and low > 75
    left, still_low = red(180, True)
    assert left == pytest.approx(111 - right, abs=2) and still_low == pytest.approx(low, abs=2)
    top_right = red(90, False)
    assert top_right[0] == pytest.approx(low, abs=2) and top_right[1] == pytest.approx(111 - right, abs=2)


GOLDEN_TRAIN = [
    ("In the figure, angle 1 is 50. What is x?", "80", "equal sides, 50 + 50 = 100, 180 - 100 = 80"),
    ("Length a is 5. Find the area.", "25", "square, 5 * 5 = 25"),
    ("Angle 1 is 55. Find x.", "55", "opposite angles are equal, 55"),
]
GOLDEN_TEST = (
    "geometry/test/1999",
    "In the figure, length a is 7 and length b is 6. What is the perimeter?",
    "20",
    "equal sides, 2 * 7 = 14, 14 + 6 = 20",
)
