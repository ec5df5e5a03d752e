"""Angles of triangles, quadrilaterals and other polygons."""

from __future__ import annotations

import math

import numpy as np

from harness.tasks.diagrams.problem import Problem, direction, pick, pick_angle, split_angle, take_away
from harness.tasks.diagrams.sketch import ASKED, INKS, Sketch

REGULAR_SIDES = (3, 4, 5, 6, 8)
"""The regular polygons that have whole-degree angles and can be told apart at this size."""


def triangle_corners(first: float, second: float) -> list[complex]:
    """Anticlockwise corners of a triangle with a base of 1 and these angles at its two ends, in degrees."""
    third = 180 - first - second
    side = math.sin(math.radians(second)) / math.sin(math.radians(third))
    return [0j, 1 + 0j, direction(first) * side]


def regular_corners(num_sides: int) -> list[complex]:
    """Anticlockwise corners of a regular polygon on the unit circle, standing on a side."""
    return [direction(-90 + (index - 0.5) * 360 / num_sides) for index in range(num_sides)]


def triangle(rng: np.random.Generator) -> Problem:
    """The third angle of a triangle."""
    parts = split_angle(rng, 180, 3, 25)
    corners = triangle_corners(parts[0], parts[1])
    sketch = Sketch()
    sketch.polygon(corners)
    for index, colour in enumerate((INKS[0], INKS[1], ASKED)):
        sketch.corner(corners, index, colour)
    return Problem("angles_2", sketch, (parts[0], parts[1]), parts[2], take_away("triangle", 180, parts[:2]))


def right_triangle(rng: np.random.Generator) -> Problem:
    """An acute angle of a right triangle."""
    size = pick_angle(rng, 20, 70)
    corners = triangle_corners(90, size)
    sketch = Sketch()
    sketch.polygon(corners)
    sketch.square(corners, 0)
    sketch.corner(corners, 1, INKS[0])
    sketch.corner(corners, 2, ASKED)
    return Problem("angles_1", sketch, (size,), 90 - size, take_away("right triangle", 90, [size]))


def _isosceles(base: float) -> tuple[Sketch, list[complex]]:
    corners = triangle_corners(base, base)
    sketch = Sketch()
    sketch.polygon(corners)
    sketch.ticks = [(corners[0], corners[2]), (corners[1], corners[2])]
    return sketch, corners


def isosceles_apex(rng: np.random.Generator) -> Problem:
    """The apex of an isosceles triangle from a base angle."""
    base = pick_angle(rng, 25, 75)
    sketch, corners = _isosceles(base)
    sketch.corner(corners, 0, INKS[0])
    sketch.corner(corners, 2, ASKED)
    answer = 180 - 2 * base
    reasoning = f"equal sides, {base} + {base} = {2 * base}, 180 - {2 * base} = {answer}"
    return Problem("angles_1", sketch, (base,), answer, reasoning)


def isosceles_base(rng: np.random.Generator) -> Problem:
    """A base angle of an isosceles triangle from the apex."""
    apex = 2 * pick_angle(rng, 15, 60)
    answer = (180 - apex) // 2
    sketch, corners = _isosceles(answer)
    sketch.corner(corners, 2, INKS[0])
    sketch.corner(corners, 0, ASKED)
    reasoning = f"equal sides, 180 - {apex} = {180 - apex}, {180 - apex} / 2 = {answer}"
    return Problem("angles_1", sketch, (apex,), answer, reasoning)


def _exterior(parts: list[int]) -> tuple[Sketch, list[complex], tuple[complex, complex, complex]]:
    """A triangle with its base drawn on, and the outside angle there: vertex and two directions."""
    corners = triangle_corners(parts[0], parts[1])
    longer = 1 + 0.45 * max(1.0, abs(corners[2]))
    sketch = Sketch(paths=[(corners[1], complex(longer))])
    sketch.polygon(corners)
    return sketch, corners, (corners[1], complex(longer - 1), corners[2] - corners[1])


def exterior_sum(rng: np.random.Generator) -> Problem:
    """The outside angle of a triangle from the two far inside angles."""
    parts = split_angle(rng, 180, 3, 25)
    sketch, corners, outside = _exterior(parts)
    sketch.corner(corners, 0, INKS[0])
    sketch.corner(corners, 2, INKS[1])
    sketch.arcs.append((*outside, ASKED))
    answer = parts[0] + parts[2]
    reasoning = f"outside angle, {parts[0]} + {parts[2]} = {answer}"
    return Problem("angles_2", sketch, (parts[0], parts[2]), answer, reasoning)


def exterior_difference(rng: np.random.Generator) -> Problem:
    """A far inside angle of a triangle from the outside angle and the other far inside angle."""
    parts = split_angle(rng, 180, 3, 25)
    sketch, corners, outside = _exterior(parts)
    far = 2 * pick(rng, 0, 1)
    sketch.arcs.append((*outside, INKS[0]))
    sketch.corner(corners, far, INKS[1])
    sketch.corner(corners, 2 - far, ASKED)
    wide = parts[0] + parts[2]
    answer = parts[2 - far]
    reasoning = f"outside angle, {wide} - {parts[far]} = {answer}"
    return Problem("angles_2", sketch, (wide, parts[far]), answer, reasoning)


def _corners_with(rng: np.random.Generator, parts: list[int]) -> list[complex] | None:
    """Anticlockwise corners of a polygon with these inside angles; None where its sides would differ too much."""
    headings = [direction(180 * index - sum(parts[1 : index + 1])) for index in range(len(parts))]
    # The last two sides close the outline; dividing by a heading and comparing imaginary parts gives their lengths.
    before_last, last = headings[-2:]
    det = (before_last.conjugate() * last).imag
    if abs(det) < 0.2:
        return None
    for _ in range(6):
        free = [1.0, *(float(side) for side in rng.uniform(0.55, 1.6, size=len(parts) - 3))]
        gap = -sum(side * heading for side, heading in zip(free, headings, strict=False))
        sides = [*free, (gap.conjugate() * last).imag / det, (before_last.conjugate() * gap).imag / det]
        if all(0.5 < side < 1.7 for side in sides):
            steps = [side * heading for side, heading in zip(sides, headings, strict=True)]
            return [sum(steps[:index], 0j) for index in range(len(parts))]
    return None


def _last_angle(rng: np.random.Generator, name: str, num_sides: int, num_right: int) -> Problem:
    """The last angle of a polygon of which some angles are marked as right angles."""
    total = (num_sides - 2) * 180 - num_right * 90
    while True:
        parts = split_angle(rng, total, num_sides - num_right, 50)
        # Near 180 a corner cannot be seen.
        corners = None if max(parts) > 150 else _corners_with(rng, [90] * num_right + parts)
        if corners is not None:
            break
    sketch = Sketch()
    sketch.polygon(corners)
    for index in range(num_right):
        sketch.square(corners, index)
    given = parts[:-1]
    for place, colour in enumerate((*INKS[: len(given)], ASKED)):
        sketch.corner(corners, num_right + place, colour)
    reasoning = take_away(name, total, given)
    return Problem(f"angles_{len(given)}", sketch, tuple(given), parts[-1], reasoning)


def quadrilateral(rng: np.random.Generator) -> Problem:
    """The fourth angle of a quadrilateral."""
    return _last_angle(rng, "four sides", 4, 0)


def right_quadrilateral(rng: np.random.Generator) -> Problem:
    """The fourth angle of a quadrilateral with one right angle."""
    return _last_angle(rng, "four sides, right angle, 360 - 90 = 270", 4, 1)


def right_pentagon(rng: np.random.Generator) -> Problem:
    """The fifth angle of a pentagon with one right angle."""
    return _last_angle(rng, "five sides, 540 - 90 = 450", 5, 1)


def regular_inside(rng: np.random.Generator) -> Problem:
    """An inside angle of a regular polygon."""
    num_sides = REGULAR_SIDES[pick(rng, 0, len(REGULAR_SIDES) - 1)]
    corners = regular_corners(num_sides)
    sketch = Sketch()
    sketch.polygon(corners)
    sketch.corner(corners, pick(rng, 0, num_sides - 1), ASKED)
    total = (num_sides - 2) * 180
    answer = total // num_sides
    reasoning = f"{num_sides} sides, {num_sides - 2} * 180 = {total}, {total} / {num_sides} = {answer}"
    return Problem("regular", sketch, (), answer, reasoning, num_sides)


def regular_outside(rng: np.random.Generator) -> Problem:
    """An outside angle of a regular polygon, between one side drawn on and the next side."""
    num_sides = REGULAR_SIDES[pick(rng, 0, len(REGULAR_SIDES) - 1)]
    corners = regular_corners(num_sides)
    vertex, side = corners[1], abs(corners[1] - corners[0])
    onward = (corners[1] - corners[0]) / side * max(0.6, 0.5 * side)
    sketch = Sketch(paths=[(vertex, vertex + onward)])
    sketch.polygon(corners)
    sketch.arcs.append((vertex, onward, corners[2] - vertex, ASKED))
    answer = 360 // num_sides
    reasoning = f"outside angle, {num_sides} sides, 360 / {num_sides} = {answer}"
    return Problem("regular", sketch, (), answer, reasoning, num_sides)


def regular_centre(rng: np.random.Generator) -> Problem:
    """The angle under which one side of a regular polygon is seen from its centre."""
    num_sides = REGULAR_SIDES[pick(rng, 0, len(REGULAR_SIDES) - 1)]
    corners = regular_corners(num_sides)
    first = pick(rng, 0, num_sides - 1)
    ends = (corners[first - 1], corners[first])
    sketch = Sketch(paths=[(ends[0], 0j, ends[1])])
    sketch.polygon(corners)
    sketch.arcs.append((0j, ends[0], ends[1], ASKED))
    answer = 360 // num_sides
    reasoning = f"center, {num_sides} sides, 360 / {num_sides} = {answer}"
    return Problem("regular", sketch, (), answer, reasoning, num_sides)


def angle_sum(rng: np.random.Generator) -> Problem:
    """The sum of the inside angles of a convex polygon."""
    num_sides = pick(rng, 3, 8)
    least = 0.7 * 360 / num_sides
    cuts = np.sort(rng.uniform(0, 360 - num_sides * least, size=num_sides - 1))
    edges = np.cumsum(np.diff([0, *cuts, 360 - num_sides * least]) + least)
    squeeze = float(rng.uniform(0.75, 1.0))
    corners = [complex(direction(edge).real, squeeze * direction(edge).imag) for edge in map(float, edges)]
    sketch = Sketch()
    sketch.polygon(corners)
    answer = (num_sides - 2) * 180
    reasoning = f"{num_sides} sides, {num_sides} - 2 = {num_sides - 2}, {num_sides - 2} * 180 = {answer}"
    return Problem("angle_sum", sketch, (), answer, reasoning, num_sides)
