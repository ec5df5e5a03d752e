"""Perimeters, areas and lengths."""

from __future__ import annotations

import numpy as np

from harness.tasks.diagrams.problem import Problem, direction, pick
from harness.tasks.diagrams.shapes import regular_corners
from harness.tasks.diagrams.sketch import ASKED, INKS, Sketch


def _two_lengths(rng: np.random.Generator, low: int, high: int) -> tuple[int, int]:
    """Two different lengths of which neither is more than two and a half times the other."""
    while True:
        first, second = pick(rng, low, high), pick(rng, low, high)
        if first != second and max(first, second) <= 2.5 * min(first, second):
            return first, second


def _rectangle(width: float, height: float) -> list[complex]:
    return [0j, complex(width), complex(width, height), complex(0, height)]


def _equal_sides(rng: np.random.Generator, name: str, num_sides: int) -> Problem:
    corners = regular_corners(num_sides)
    first = pick(rng, 0, num_sides - 1)
    sketch = Sketch(lengths=[(corners[first - 1], corners[first], INKS[0])])
    sketch.polygon(corners)
    sketch.ticks = [(corners[index - 1], corners[index]) for index in range(num_sides)]
    length = pick(rng, 2, 12)
    answer = num_sides * length
    reasoning = f"{name}, {num_sides} * {length} = {answer}"
    return Problem("perimeter_1", sketch, (length,), answer, reasoning, num_sides)


def triangle_perimeter(rng: np.random.Generator) -> Problem:
    """Three equal sides."""
    return _equal_sides(rng, "triangle", 3)


def square_perimeter(rng: np.random.Generator) -> Problem:
    """Four equal sides."""
    return _equal_sides(rng, "square", 4)


def polygon_perimeter(rng: np.random.Generator) -> Problem:
    """Five or six equal sides."""
    num_sides = pick(rng, 5, 6)
    return _equal_sides(rng, f"{num_sides} sides", num_sides)


def square_area(rng: np.random.Generator) -> Problem:
    """The square of a side."""
    length = pick(rng, 2, 9)
    corners = _rectangle(1, 1)
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0])])
    sketch.polygon(corners)
    sketch.ticks = [(corners[index - 1], corners[index]) for index in range(4)]
    sketch.square(corners, 3)
    return Problem("area_1", sketch, (length,), length * length, f"square, {length} * {length} = {length * length}")


def half_square_area(rng: np.random.Generator) -> Problem:
    """A right triangle with two equal legs."""
    length = 2 * pick(rng, 1, 5)
    corners = [0j, 1 + 0j, 1j]
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0])])
    sketch.polygon(corners)
    sketch.ticks = [(corners[0], corners[1]), (corners[0], corners[2])]
    sketch.square(corners, 0)
    whole = length * length
    reasoning = f"half square, {length} * {length} = {whole}, {whole} / 2 = {whole // 2}"
    return Problem("area_1", sketch, (length,), whole // 2, reasoning)


def two_squares_area(rng: np.random.Generator) -> Problem:
    """Two squares side by side."""
    length = pick(rng, 2, 9)
    corners = _rectangle(2, 1)
    sketch = Sketch(paths=[(1 + 0j, 1 + 1j)], lengths=[(0j, 1 + 0j, INKS[0])])
    sketch.polygon(corners)
    sketch.square(corners, 3)
    sketch.ticks = [(0j, 1 + 0j), (1 + 0j, 2 + 0j), (0j, 1j)]
    whole = length * length
    reasoning = f"two squares, {length} * {length} = {whole}, 2 * {whole} = {2 * whole}"
    return Problem("area_1", sketch, (length,), 2 * whole, reasoning)


def rectangle_perimeter(rng: np.random.Generator) -> Problem:
    """Twice the sum of two sides of a rectangle."""
    first, second = _two_lengths(rng, 2, 9)
    corners = _rectangle(first, second)
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0]), (corners[1], corners[2], INKS[1])])
    sketch.polygon(corners)
    sketch.square(corners, 3)
    return _twice_the_sum("rectangle", sketch, first, second)


def parallelogram_perimeter(rng: np.random.Generator) -> Problem:
    """Twice the sum of two sides of a parallelogram."""
    first, second = _two_lengths(rng, 2, 9)
    slant = direction(pick(rng, 45, 70)) * second
    corners = [0j, complex(first), first + slant, slant]
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0]), (corners[1], corners[2], INKS[1])])
    sketch.polygon(corners)
    return _twice_the_sum("parallelogram", sketch, first, second)


def _twice_the_sum(name: str, sketch: Sketch, first: int, second: int) -> Problem:
    total = first + second
    reasoning = f"{name}, {first} + {second} = {total}, 2 * {total} = {2 * total}"
    return Problem("perimeter_2", sketch, (first, second), 2 * total, reasoning)


def isosceles_perimeter(rng: np.random.Generator) -> Problem:
    """Two sides of length a (ticked) and one of length b."""
    while True:
        leg, base = _two_lengths(rng, 2, 9)
        # A flat or needle-like triangle hides its ticks.
        if 0.5 * leg <= base <= 1.7 * leg:
            break
    height = (leg * leg - base * base / 4) ** 0.5
    corners = [0j, complex(base), complex(base / 2, height)]
    sketch = Sketch(lengths=[(corners[0], corners[2], INKS[0]), (corners[0], corners[1], INKS[1])])
    sketch.polygon(corners)
    sketch.ticks = [(corners[0], corners[2]), (corners[1], corners[2])]
    reasoning = f"equal sides, 2 * {leg} = {2 * leg}, {2 * leg} + {base} = {2 * leg + base}"
    return Problem("perimeter_2", sketch, (leg, base), 2 * leg + base, reasoning)


def rectangle_area(rng: np.random.Generator) -> Problem:
    """The product of two sides of a rectangle."""
    first, second = _two_lengths(rng, 2, 9)
    corners = _rectangle(first, second)
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0]), (corners[1], corners[2], INKS[1])])
    sketch.polygon(corners)
    sketch.square(corners, 3)
    reasoning = f"rectangle, {first} * {second} = {first * second}"
    return Problem("area_2", sketch, (first, second), first * second, reasoning)


def right_triangle_area(rng: np.random.Generator) -> Problem:
    """Half the product of the legs."""
    while True:
        first, second = _two_lengths(rng, 2, 9)
        if first * second % 2 == 0:
            break
    corners = [0j, complex(first), complex(0, second)]
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0]), (corners[0], corners[2], INKS[1])])
    sketch.polygon(corners)
    sketch.square(corners, 0)
    whole = first * second
    reasoning = f"right triangle, {first} * {second} = {whole}, {whole} / 2 = {whole // 2}"
    return Problem("area_2", sketch, (first, second), whole // 2, reasoning)


def parallelogram_area(rng: np.random.Generator) -> Problem:
    """The base times the height, which is a dashed line inside."""
    first, second = _two_lengths(rng, 2, 9)
    lean = first * float(rng.uniform(0.25, 0.5))
    corners = [0j, complex(first), complex(first + lean, second), complex(lean, second)]
    foot = complex(lean)
    sketch = Sketch(lengths=[(corners[0], corners[1], INKS[0])], dashed=[(foot, corners[3], INKS[1])])
    sketch.polygon(corners)
    sketch.squares.append((foot, complex(first), 1j * second))
    reasoning = f"parallelogram, {first} * {second} = {first * second}"
    return Problem("area_2", sketch, (first, second), first * second, reasoning)


def similar(rng: np.random.Generator) -> Problem:
    """Two triangles of one shape: a and c on the small one, b and x at the same places on the large one."""
    factor = pick(rng, 2, 3)
    base, other = _two_lengths(rng, 4, 15)
    opening = pick(rng, 45, 95)
    small = [0j, complex(base), direction(opening) * other]
    width = max(z.real for z in small) - min(z.real for z in small)
    shift = width + 0.35 * base - factor * min(z.real for z in small)
    large = [factor * corner + shift for corner in small]
    sketch = Sketch()
    for corners, colours in ((small, (INKS[0], INKS[2])), (large, (INKS[1], ASKED))):
        sketch.polygon(corners)
        sketch.lengths.append((corners[0], corners[1], colours[0]))
        sketch.lengths.append((corners[0], corners[2], colours[1]))
    answer = factor * other
    reasoning = f"same shape, {factor * base} / {base} = {factor}, {factor} * {other} = {answer}"
    return Problem("lengths_3", sketch, (base, factor * base, other), answer, reasoning)


def _cut_line(parts: list[int], marks: list[tuple[int, int, int]]) -> Sketch:
    """A line cut into three parts; a mark is (first cut, last cut, ink or -1 for asked), whole lines drawn above."""
    cuts = [complex(sum(parts[:index])) for index in range(4)]
    whole = cuts[3].real
    notch = 0.05j * whole
    sketch = Sketch(paths=[(cuts[0], cuts[3]), *((cut - notch, cut + notch) for cut in cuts)])
    for first, last, ink in marks:
        above = 0.28j * whole if last - first == 3 else 0j
        colour = ASKED if ink < 0 else INKS[ink]
        sketch.lengths.append((cuts[first] + above, cuts[last] + above, colour))
        if above:
            sketch.paths += [(cut + above - notch, cut + above + notch) for cut in (cuts[first], cuts[last])]
    return sketch


def line_whole(rng: np.random.Generator) -> Problem:
    """The whole of a line cut into three."""
    parts = [pick(rng, 4, 15) for _ in range(3)]
    if pick(rng, 0, 1):
        # Half the texts could stand under similar triangles too: b is a multiple of a.
        parts[0] = pick(rng, 4, 8)
        parts[1] = pick(rng, 2, 3) * parts[0]
    sketch = _cut_line(parts, [(0, 1, 0), (1, 2, 1), (2, 3, 2), (0, 3, -1)])
    first = parts[0] + parts[1]
    reasoning = f"whole line, {parts[0]} + {parts[1]} = {first}, {first} + {parts[2]} = {first + parts[2]}"
    return Problem("lengths_3", sketch, (parts[0], parts[1], parts[2]), sum(parts), reasoning)


def line_part(rng: np.random.Generator) -> Problem:
    """One part of a line cut into three, from the whole (b) and the other two parts (a, c)."""
    first, second, asked = (pick(rng, 4, 15) for _ in range(3))
    if pick(rng, 0, 1):
        # Half the texts could stand under similar triangles too: b is a multiple of a.
        first = pick(rng, 8, 15)
        rest = (pick(rng, 2, 3) - 1) * first
        second = pick(rng, 4, rest - 4)
        asked = rest - second
    known, whole = first + second, first + second + asked
    order = [int(index) for index in rng.permutation(3)]
    parts = [(first, second, asked)[index] for index in order]
    inks = [(0, 2, -1)[index] for index in order]
    sketch = _cut_line(parts, [(0, 3, 1), *((place, place + 1, ink) for place, ink in enumerate(inks))])
    reasoning = f"part line, {first} + {second} = {known}, {whole} - {known} = {asked}"
    return Problem("lengths_3", sketch, (first, whole, second), asked, reasoning)
