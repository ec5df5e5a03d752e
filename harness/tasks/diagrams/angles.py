"""Angles at one point and between lines."""

from __future__ import annotations

import numpy as np

from harness.tasks.diagrams.problem import Problem, direction, pick, pick_angle, split_angle, take_away
from harness.tasks.diagrams.sketch import ASKED, FAN_ARC_PX, INKS, Sketch


def _fan(rng: np.random.Generator, name: str, total: int, count: int, least: int) -> Problem:
    """Rays from one point that split a straight line, a right angle or a full turn."""
    parts = split_angle(rng, total, count, least)
    asked = pick(rng, 0, count - 1)
    colours = iter(INKS)
    given: list[int] = []
    sketch = Sketch(arc_px=FAN_ARC_PX)
    start = 0
    for index, part in enumerate(parts):
        sketch.paths.append((0j, direction(start)))
        colour = ASKED if index == asked else next(colours)
        if index != asked:
            given.append(part)
        sketch.arcs.append((0j, direction(start), direction(start + part), colour))
        start += part
    sketch.paths.append((0j, direction(total)))
    if total == 90:
        sketch.squares.append((0j, 1 + 0j, 1j))
    form = f"angles_{count - 1}"
    return Problem(form, sketch, tuple(given), parts[asked], take_away(name, total, given))


def straight_two(rng: np.random.Generator) -> Problem:
    """Two angles on a straight line."""
    return _fan(rng, "straight line", 180, 2, 20)


def straight_three(rng: np.random.Generator) -> Problem:
    """Three angles on a straight line."""
    return _fan(rng, "straight line", 180, 3, 20)


def straight_four(rng: np.random.Generator) -> Problem:
    """Four angles on a straight line."""
    return _fan(rng, "straight line", 180, 4, 25)


def corner_two(rng: np.random.Generator) -> Problem:
    """Two angles inside a right angle."""
    return _fan(rng, "right angle", 90, 2, 20)


def corner_three(rng: np.random.Generator) -> Problem:
    """Three angles inside a right angle."""
    return _fan(rng, "right angle", 90, 3, 20)


def point_three(rng: np.random.Generator) -> Problem:
    """Three angles around a point; one of them may be larger than a straight angle."""
    return _fan(rng, "full turn", 360, 3, 30)


def point_four(rng: np.random.Generator) -> Problem:
    """Four angles around a point."""
    return _fan(rng, "full turn", 360, 4, 30)


def vertical(rng: np.random.Generator) -> Problem:
    """Two lines cross; the asked angle stands opposite the given one."""
    size = pick_angle(rng, 25, 155)
    ray = direction(size)
    sketch = Sketch(paths=[(-1 + 0j, 1 + 0j), (-ray, ray)])
    sketch.arcs = [(0j, 1 + 0j, ray, INKS[0]), (0j, -1 + 0j, -ray, ASKED)]
    return Problem("angles_1", sketch, (size,), size, f"opposite angles are equal, {size}")


def _parallel(slope: int, upper: int, lower: int) -> Sketch:
    """Two parallel lines and a line across them, with one quarter marked at each crossing.

    Args:
        slope: Degrees between the lines.
        upper: Quarter of the given angle, 0 to 3 anticlockwise from the right.
        lower: Quarter of the asked angle.
    """
    across = direction(slope)
    reach = 0.5 / across.imag
    crossings = (across * reach, -across * reach)
    sketch = Sketch(paths=[(-across * reach * 1.9, across * reach * 1.9)])
    rays = (1 + 0j, across, -1 + 0j, -across)
    for crossing, quarter, colour in zip(crossings, (upper, lower), (INKS[0], ASKED), strict=True):
        sketch.paths.append((crossing - 1, crossing + 1))
        sketch.arcs.append((crossing, rays[quarter] * 0.9, rays[(quarter + 1) % 4] * 0.9, colour))
        sketch.arrows.append((crossing + 0.85, 1 + 0j))
    return sketch


def parallel_equal(rng: np.random.Generator) -> Problem:
    """Alternate or corresponding angles."""
    slope = pick_angle(rng, 35, 145)
    upper, lower = ((2, 0), (3, 1), (0, 0), (1, 1), (2, 2), (3, 3))[pick(rng, 0, 5)]
    size = slope if upper % 2 == 0 else 180 - slope
    sketch = _parallel(slope, upper, lower)
    return Problem("angles_1", sketch, (size,), size, f"parallel lines, equal angles, {size}")


def parallel_between(rng: np.random.Generator) -> Problem:
    """Co-interior angles: both between the parallel lines, on the same side of the line across."""
    slope = pick_angle(rng, 35, 145)
    upper, lower = ((2, 1), (3, 0))[pick(rng, 0, 1)]
    size = slope if upper % 2 == 0 else 180 - slope
    return Problem(
        "angles_1", _parallel(slope, upper, lower), (size,), 180 - size, take_away("parallel lines", 180, [size])
    )
