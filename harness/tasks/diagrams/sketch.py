"""How a diagram is held and drawn.

A :class:`Sketch` is a figure in the plane (complex numbers, y upwards, any unit) with marks on it. :func:`render`
turns, mirrors and fits it into an image. Letters cannot be read at this size, so colour is the legend: angle 1 or
length a is red, 2 or b is blue, 3 or c is orange, and what is asked for is green.
"""

from __future__ import annotations

import cmath
import math
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw

SIDE_PX = 112
MARGIN_PX = 5
OVERSAMPLING = 3
ARC_PX = 15.0
FAN_ARC_PX = 22.0
ARC_FRAC = 0.45
"""The largest radius of an angle mark as a fraction of the shorter side."""

SQUARE_PX = 8.0

Colour = tuple[int, int, int]

INKS: tuple[Colour, ...] = ((222, 38, 38), (38, 84, 226), (244, 148, 0))
"""The colours of the first, second and third given number."""

ASKED: Colour = (38, 166, 66)
"""The colour of what is asked for."""

LINE_COLOURS: tuple[Colour, ...] = ((16, 16, 20), (62, 46, 78), (76, 52, 34), (30, 58, 74), (84, 84, 88))


def sweep(start: complex, end: complex) -> float:
    """The anticlockwise turn from one direction to another, in radians in [0, 2 pi)."""
    return cmath.phase(end / start) % math.tau


@dataclass
class Sketch:
    """A figure in the plane with its marks.

    Attributes:
        paths: Polylines of the figure itself.
        arcs: Vertex, direction to start from, direction to end at (anticlockwise) and colour of each marked angle.
        squares: Vertex and two directions of each right-angle mark.
        ticks: Ends of each side that carries an equal-side tick.
        lengths: Ends and colour of each marked length.
        dashed: Ends of each dashed line.
        arrows: Place and direction of each parallel mark.
        arc_px: Radius of the angle marks, in pixels of the finished image; short sides make it smaller.
    """

    paths: list[tuple[complex, ...]] = field(default_factory=list)
    arcs: list[tuple[complex, complex, complex, Colour]] = field(default_factory=list)
    squares: list[tuple[complex, complex, complex]] = field(default_factory=list)
    ticks: list[tuple[complex, complex]] = field(default_factory=list)
    lengths: list[tuple[complex, complex, Colour]] = field(default_factory=list)
    dashed: list[tuple[complex, complex, Colour]] = field(default_factory=list)
    arrows: list[tuple[complex, complex]] = field(default_factory=list)
    arc_px: float = ARC_PX

    def polygon(self, corners: list[complex]) -> None:
        """Adds a closed outline."""
        self.paths.append((*corners, corners[0]))

    def corner(self, corners: list[complex], index: int, colour: Colour) -> None:
        """Marks the inner angle of an anticlockwise polygon at one corner."""
        here, after = corners[index], corners[(index + 1) % len(corners)]
        self.arcs.append((here, after - here, corners[index - 1] - here, colour))

    def square(self, corners: list[complex], index: int) -> None:
        """Marks a polygon's corner as a right angle."""
        here, after = corners[index], corners[(index + 1) % len(corners)]
        self.squares.append((here, after - here, corners[index - 1] - here))

    def extent(self) -> list[complex]:
        """Every point that must lie inside the image."""
        ends = [point for start, end, _ in (*self.lengths, *self.dashed) for point in (start, end)]
        # The mark of a wide angle may reach beyond both of its sides.
        rims = [
            vertex
            + ARC_FRAC * min(abs(start), abs(end)) * start / abs(start) * cmath.rect(1.0, sweep(start, end) * part)
            for vertex, start, end, _ in self.arcs
            for part in (0.25, 0.5, 0.75)
        ]
        return [point for path in self.paths for point in path] + ends + rims


@dataclass(frozen=True)
class Look:
    """How a sketch is put on paper.

    Attributes:
        rotation: Degrees, anticlockwise.
        mirrored: Reflected before it is turned.
        size_px: The longer side of the figure's box, in pixels of the finished image.
        place: Where the box stands in the room that is left, two fractions in [0, 1].
        line: Colour of the figure.
        paper: Colour of the background.
    """

    rotation: int
    mirrored: bool
    size_px: int
    place: tuple[float, float]
    line: Colour
    paper: Colour


def random_look(rng: np.random.Generator, rotation: int) -> Look:
    """A look with everything but the rotation drawn from a random stream."""
    paper = rng.integers(228, 256, size=3)
    return Look(
        rotation=rotation,
        mirrored=bool(rng.integers(2)),
        size_px=int(rng.integers(80, SIDE_PX - 2 * MARGIN_PX + 1)),
        place=(float(rng.random()), float(rng.random())),
        line=LINE_COLOURS[int(rng.integers(len(LINE_COLOURS)))],
        paper=(int(paper[0]), int(paper[1]), int(paper[2])),
    )


def render(sketch: Sketch, look: Look) -> Image.Image:
    """The image of a sketch, RGB, ``SIDE_PX`` square."""
    pen = _Pen(sketch, look)
    for arc in sketch.arcs:
        pen.arc(*arc)
    for start, end, colour in sketch.dashed:
        pen.dashes(start, end, colour)
    for path in sketch.paths:
        pen.path(path)
    for start, end, colour in sketch.lengths:
        pen.segment(start, end, colour, 3.2)
    for square in sketch.squares:
        pen.square(*square)
    for start, end in sketch.ticks:
        pen.tick(start, end)
    for place, direction in sketch.arrows:
        pen.arrow(place, direction)
    return pen.image.reduce(OVERSAMPLING)


class _Pen:
    """Draws on an oversampled image in the sketch's coordinates; widths and mark sizes are finished pixels."""

    def __init__(self, sketch: Sketch, look: Look) -> None:
        self.look = look
        self.arc_px = sketch.arc_px
        self.turn = cmath.rect(1.0, math.radians(look.rotation))
        turned = [self._turned(point) for point in sketch.extent()]
        left, right = min(z.real for z in turned), max(z.real for z in turned)
        low, high = min(z.imag for z in turned), max(z.imag for z in turned)
        self.scale = look.size_px * OVERSAMPLING / max(right - left, high - low)
        room = (SIDE_PX - 2 * MARGIN_PX) * OVERSAMPLING
        margin = MARGIN_PX * OVERSAMPLING
        self.left = margin + (room - (right - left) * self.scale) * look.place[0] - left * self.scale
        self.top = margin + (room - (high - low) * self.scale) * look.place[1] + high * self.scale
        side = SIDE_PX * OVERSAMPLING
        self.image = Image.new("RGB", (side, side), look.paper)
        self.draw = ImageDraw.Draw(self.image)

    def _turned(self, point: complex) -> complex:
        return (point.conjugate() if self.look.mirrored else point) * self.turn

    def _at(self, point: complex) -> complex:
        """Position in the oversampled image, y downwards."""
        turned = self._turned(point) * self.scale
        return complex(self.left + turned.real, self.top - turned.imag)

    def _towards(self, direction: complex) -> complex:
        """Unit direction in the image, y downwards."""
        turned = self._turned(direction).conjugate()
        return turned / abs(turned)

    def _stroke(self, points: list[complex], colour: Colour, width: float) -> None:
        # Whole pixels, so that the last bit of a sine cannot move an edge.
        pixels = [(round(z.real), round(z.imag)) for z in points]
        self.draw.line(pixels, fill=colour, width=round(width * OVERSAMPLING), joint="curve")

    def path(self, points: tuple[complex, ...]) -> None:
        closed = len(points) > 2 and points[0] == points[-1]
        self._stroke([self._at(point) for point in (*points, *points[1 : 2 if closed else 1])], self.look.line, 1.8)

    def segment(self, start: complex, end: complex, colour: Colour, width: float) -> None:
        self._stroke([self._at(start), self._at(end)], colour, width)

    def dashes(self, start: complex, end: complex, colour: Colour) -> None:
        first, last = self._at(start), self._at(end)
        count = 2 * max(2, round(abs(last - first) / (9 * OVERSAMPLING))) + 1
        for dash in range(0, count, 2):
            ends = [first + (last - first) * (dash + step) / count for step in (0, 1)]
            self._stroke(ends, colour, 2.6)

    def arc(self, vertex: complex, start: complex, end: complex, colour: Colour) -> None:
        # A sharp angle is marked further out, where its sides leave room for the colour.
        wider = min(1.7, max(1.0, math.radians(50) / sweep(start, end)))
        radius = min(self.arc_px * wider * OVERSAMPLING, ARC_FRAC * self.scale * min(abs(start), abs(end)))
        centre = self._at(vertex)
        # Pillow's angles grow clockwise as seen, so an unmirrored sketch swaps start and end.
        from_, to = (start, end) if self.look.mirrored else (end, start)
        first, last = (round(math.degrees(cmath.phase(self._towards(z)))) for z in (from_, to))
        x, y, reach = round(centre.real), round(centre.imag), round(radius)
        box = (x - reach, y - reach, x + reach, y + reach)
        if colour == ASKED:
            self.draw.pieslice(box, first, last, fill=colour)
        else:
            self.draw.arc(box, first, last, fill=colour, width=round(3.0 * OVERSAMPLING))

    def square(self, vertex: complex, first: complex, second: complex) -> None:
        reach = min(SQUARE_PX * OVERSAMPLING, 0.3 * self.scale * min(abs(first), abs(second)))
        here, one, two = self._at(vertex), self._towards(first) * reach, self._towards(second) * reach
        self._stroke([here + one, here + one + two, here + two], self.look.line, 1.4)

    def tick(self, start: complex, end: complex) -> None:
        middle = self._at((start + end) / 2)
        across = self._towards(end - start) * 1j * 4.5 * OVERSAMPLING
        self._stroke([middle - across, middle + across], self.look.line, 1.8)

    def arrow(self, place: complex, direction: complex) -> None:
        tip, back = self._at(place), self._towards(direction) * 5 * OVERSAMPLING
        wings = [tip - back * cmath.rect(1.0, sign * 0.7) for sign in (1, -1)]
        self._stroke([wings[0], tip, wings[1]], self.look.line, 1.6)
