"""What a kind of diagram gives back, and the sentences it is asked in.

Kinds share sentences on purpose: "Angle 1 is 50. Find x." stands under a right triangle, a straight line and six
other figures, so the text without the figure has no answer.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.tasks.diagrams.sketch import Sketch

FORMS: Mapping[str, tuple[str, str, str]] = {
    "angles_1": (
        "Angle 1 is {0}. Find x.",
        "In the figure, angle 1 is {0}. What is x?",
        "The red angle is {0}. Find the green angle.",
    ),
    "angles_2": (
        "Angle 1 is {0} and angle 2 is {1}. Find x.",
        "In the figure, angle 1 is {0} and angle 2 is {1}. What is x?",
        "The red angle is {0} and the blue angle is {1}. Find the green angle.",
    ),
    "angles_3": (
        "Angle 1 is {0}, angle 2 is {1} and angle 3 is {2}. Find x.",
        "In the figure, angle 1 is {0}, angle 2 is {1} and angle 3 is {2}. What is x?",
        "The red angle is {0}, the blue angle is {1} and the orange angle is {2}. Find the green angle.",
    ),
    "regular": (
        "All sides are equal. Find x.",
        "In the figure, all sides are equal. What is x?",
        "All sides are equal. Find the green angle.",
    ),
    "angle_sum": (
        "Find the sum of the inside angles.",
        "In the figure, what is the sum of the inside angles?",
        "What is the sum of all angles inside the figure?",
    ),
    "perimeter_1": (
        "Length a is {0}. Find the perimeter.",
        "In the figure, length a is {0}. What is the perimeter?",
        "The red line is {0}. Find the perimeter.",
    ),
    "perimeter_2": (
        "Length a is {0} and length b is {1}. Find the perimeter.",
        "In the figure, length a is {0} and length b is {1}. What is the perimeter?",
        "The red line is {0} and the blue line is {1}. Find the perimeter.",
    ),
    "area_1": (
        "Length a is {0}. Find the area.",
        "In the figure, length a is {0}. What is the area?",
        "The red line is {0}. Find the area.",
    ),
    "area_2": (
        "Length a is {0} and length b is {1}. Find the area.",
        "In the figure, length a is {0} and length b is {1}. What is the area?",
        "The red line is {0} and the blue line is {1}. Find the area.",
    ),
    "lengths_3": (
        "Length a is {0}, length b is {1} and length c is {2}. Find x.",
        "In the figure, length a is {0}, length b is {1} and length c is {2}. What is x?",
        "The red line is {0}, the blue line is {1} and the orange line is {2}. Find the green line.",
    ),
}


@dataclass(frozen=True)
class Problem:
    """A figure, the numbers its text gives, and the answer its rule leads to.

    Attributes:
        form: A key of :data:`FORMS`.
        sketch: The figure.
        given: The numbers of the text, in its order; degrees or length units.
        answer: Degrees, length units or square units.
        reasoning: The gold chain of thought.
        num_sides: How many sides the figure shows, where the rule counts them, else 0.
    """

    form: str
    sketch: Sketch
    given: tuple[int, ...]
    answer: int
    reasoning: str
    num_sides: int = 0


def direction(degrees: float) -> complex:
    """The unit vector at an angle from the x axis."""
    return cmath.rect(1.0, math.radians(degrees))


STEP = 5
"""Degrees: every angle is a multiple, so that the sums stay within reach of a small model."""


def split_angle(rng: np.random.Generator, total: int, count: int, least: int) -> list[int]:
    """Multiples of :data:`STEP` degrees that sum to a total, each at least ``least``, both multiples too."""
    room = (total - count * least) // STEP
    cuts = sorted(int(cut) for cut in rng.integers(0, room + 1, size=count - 1))
    edges = [0, *cuts, room]
    return [(after - before) * STEP + least for before, after in itertools.pairwise(edges)]


def pick_angle(rng: np.random.Generator, low: int, high: int) -> int:
    """A multiple of :data:`STEP` from low to high, both included and multiples too."""
    return STEP * pick(rng, low // STEP, high // STEP)


def pick(rng: np.random.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(rng.integers(low, high + 1))


def take_away(name: str, total: int, given: list[int]) -> str:
    """The chain of thought "name, sum of the given, total minus the sum"."""
    steps, running = [name], given[0]
    for number in given[1:]:
        steps.append(f"{running} + {number} = {running + number}")
        running += number
    steps.append(f"{total} - {running} = {total - running}")
    return ", ".join(steps)
