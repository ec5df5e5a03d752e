"""Scenes of coloured solids: what stands where, and how it is drawn.

The scenes follow CLEVR (arXiv 1612.06890) in small: cubes, spheres and cylinders in eight colors stand on a plane that
is seen from above at a slant. CLEVR-CoGenT's two conditions hold as there (section 4.7): in condition A cubes are gray,
blue, brown or yellow and cylinders are red, green, purple or cyan; in condition B the two palettes are swapped; spheres
may have any color. Departures: one material, sizes from a range, 1 to 10 objects instead of 3 to 10, and a drawn view
(parallel projection whose scale grows towards the viewer) instead of a rendered one.

Coordinates are pixels of the final image, x to the right and y down. An object stands at the point where its base
centre touches the plane, so a larger y is nearer to the viewer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from harness.tasks.base import Draft, Split

Color = Literal["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"]
Shape = Literal["cube", "sphere", "cylinder"]
Condition = Literal["A", "B"]

SHAPES: tuple[Shape, ...] = ("cube", "sphere", "cylinder")
COLORS: Mapping[Color, tuple[int, int, int]] = {
    "gray": (112, 112, 112),
    "red": (208, 42, 42),
    "blue": (48, 84, 222),
    "green": (36, 156, 52),
    "brown": (136, 82, 36),
    "purple": (150, 52, 200),
    "cyan": (48, 208, 212),
    "yellow": (240, 218, 48),
}
PALETTE_ONE: tuple[Color, ...] = ("gray", "blue", "brown", "yellow")
PALETTE_TWO: tuple[Color, ...] = ("red", "green", "purple", "cyan")

IMAGE_SIZE = 112
MAX_OBJECTS = 10
MAX_PAIR_OVERLAP = 0.22
"""Largest part of an object's box that one nearer object's box may cover."""
MAX_COVER = 0.34
"""Largest part of an object's box that all nearer boxes together may cover."""

_SUPERSAMPLING = 3
_X_RANGE = (12.0, 100.0)
_Y_RANGE = (26.0, 103.0)
_SIZE_RANGE = (7.0, 10.0)
_SCALE_RANGE = (0.8, 1.2)
_TILT = 0.42
"""How much a circle on the plane is flattened by the slanted view."""
_RISE = math.sqrt(1 - _TILT**2)
_LIGHT_HEIGHT = math.radians(50)
_EDGE_TONE = 0.38
"""Brightness of the dark edges that part overlapping objects of one color."""
_TRIES_PER_SPOT = 40

Tone = Callable[[float], int | tuple[int, int, int]]
"""Turns brightness, about 0.4 to 1.2 and more for a highlight, into the fill of a surface."""


class Look(NamedTuple):
    """A color and a shape."""

    color: Color
    shape: Shape


@dataclass(frozen=True)
class Spot:
    """A free place: the point on the plane (px) and the radius (px) that an object has there."""

    x: float
    y: float
    radius: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom (px) of a box that holds nearly all of an object of any shape."""
        return self.x - self.radius, self.y - 1.75 * self.radius, self.x + self.radius, self.y + 0.4 * self.radius


@dataclass(frozen=True)
class Item:
    """One object of a scene: what it looks like, where it stands, and its turn about the vertical (radians)."""

    look: Look
    spot: Spot
    yaw: float


@dataclass(frozen=True)
class Light:
    """Where the light comes from (radians from the viewer's side, positive is right), its strength, and the ground."""

    azimuth: float
    strength: float
    ground: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Objects from back to front, and their light."""

    items: tuple[Item, ...]
    light: Light


@dataclass(frozen=True)
class Puzzle:
    """A question about a scene, before the scene is drawn."""

    scene: Scene
    question: str
    answer: int
    reasoning: str
    metadata: Mapping[str, str | int | float]

    def draft(self) -> Draft:
        """The question with its picture."""
        return Draft(draw(self.scene), self.question, str(self.answer), self.reasoning, self.metadata)


def condition_of(split: Split) -> Condition:
    """The CoGenT condition of a split: B for the test split, A for the others."""
    return "B" if split == "test" else "A"


def legal_looks(condition: Condition) -> tuple[Look, ...]:
    """The sixteen looks that a condition allows (CLEVR-CoGenT, arXiv 1612.06890, section 4.7)."""
    cubes, cylinders = (PALETTE_ONE, PALETTE_TWO) if condition == "A" else (PALETTE_TWO, PALETTE_ONE)
    return (
        *(Look(color, "cube") for color in cubes),
        *(Look(color, "sphere") for color in COLORS),
        *(Look(color, "cylinder") for color in cylinders),
    )


def draw_looks(rng: np.random.Generator, pool: Sequence[Look], num_looks: int) -> list[Look]:
    """Looks from a pool with replacement: the shape uniform first, then one of its colors.

    Drawing the shape first keeps spheres, which have twice the colors, from being half of all objects.
    """
    by_shape = [group for shape in SHAPES if (group := [look for look in pool if look.shape == shape])]
    chosen = [by_shape[int(rng.integers(len(by_shape)))] for _ in range(num_looks)]
    return [group[int(rng.integers(len(group)))] for group in chosen]


def draw_palette(rng: np.random.Generator, num_colors: int) -> list[Color]:
    """Distinct colors, uniform. Few colors in a scene make repeated looks, and so larger counts, likely."""
    colors = list(COLORS)
    return [colors[i] for i in rng.permutation(len(colors))[:num_colors]]


def place(rng: np.random.Generator, num_spots: int) -> list[Spot]:
    """Spots from back to front that keep every object visible.

    Args:
        rng: The random stream.
        num_spots: 1 to :data:`MAX_OBJECTS`.

    Returns:
        Spots sorted by y. Nearer boxes cover at most :data:`MAX_COVER` of a box, and a single one at most
        :data:`MAX_PAIR_OVERLAP`.
    """
    while True:
        spots: list[Spot] = []
        for _ in range(num_spots):
            spot = next((spot for spot in _candidates(rng) if _fits(spot, spots)), None)
            if spot is None:
                break
            spots.append(spot)
        else:
            return sorted(spots, key=lambda spot: spot.y)


def build(rng: np.random.Generator, spots: Sequence[Spot], looks: Sequence[Look]) -> Scene:
    """Puts looks on spots in the given order, under a random light."""
    tint = rng.integers(-14, 15, size=3)
    level = int(rng.integers(176, 212))
    red, green, blue = (int(level + shift) for shift in tint)
    light = Light(float(rng.uniform(-1.1, 1.1)), float(rng.uniform(0.88, 1.1)), (red, green, blue))
    yaws = rng.uniform(0.2, math.pi / 2 - 0.2, size=len(spots))
    items = [Item(look, spot, float(yaw)) for look, spot, yaw in zip(looks, spots, yaws, strict=True)]
    return Scene(tuple(sorted(items, key=lambda item: item.spot.y)), light)


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene, RGB, :data:`IMAGE_SIZE` pixels square."""
    side = IMAGE_SIZE * _SUPERSAMPLING
    light = scene.light
    rows = [_tint(light.ground, light.strength * (0.84 + 0.2 * i / (IMAGE_SIZE - 1))) for i in range(IMAGE_SIZE)]
    column = Image.new("RGB", (1, IMAGE_SIZE))
    column.putdata(rows)
    canvas = column.resize((side, side), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(canvas)
    for item in scene.items:
        _paint_shadow(pen, item, light, rows)
    for item in scene.items:
        _paint(pen, item, light, _lit(COLORS[item.look.color], light.strength))
    return canvas.reduce(_SUPERSAMPLING)


def visible_areas(scene: Scene, *, alone: bool = False) -> list[float]:
    """How much of each object can be seen.

    Args:
        scene: The scene.
        alone: Measure each object as if nothing stood in front of it.

    Returns:
        One area per object in pixels of the final image, in the order of ``scene.items``.
    """
    side = IMAGE_SIZE * _SUPERSAMPLING
    groups = [[i] for i in range(len(scene.items))] if alone else [list(range(len(scene.items)))]
    areas: list[float] = []
    for group in groups:
        canvas = Image.new("L", (side, side), 0)
        pen = ImageDraw.Draw(canvas)
        for i in group:
            _paint(pen, scene.items[i], scene.light, _flat(i + 1))
        histogram = canvas.histogram()
        areas += [histogram[i + 1] / _SUPERSAMPLING**2 for i in group]
    return areas


def _candidates(rng: np.random.Generator) -> list[Spot]:
    spots = []
    for across, along, size in rng.random((_TRIES_PER_SPOT, 3)).tolist():
        scale = _between(_SCALE_RANGE, along)
        spots.append(Spot(_between(_X_RANGE, across), _between(_Y_RANGE, along), _between(_SIZE_RANGE, size) * scale))
    return spots


def _between(ends: tuple[float, float], part: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * part


def _fits(spot: Spot, others: Sequence[Spot]) -> bool:
    spots = [*others, spot]
    for other in others:
        far, near = (spot, other) if spot.y < other.y else (other, spot)
        if _cover(far, near) > MAX_PAIR_OVERLAP:
            return False
    return all(sum(_cover(far, near) for near in spots if near.y > far.y) <= MAX_COVER for far in spots)


def _cover(far: Spot, near: Spot) -> float:
    """The part of the far box that the near one covers, in [0, 1]."""
    left, top, right, bottom = far.box
    near_left, near_top, near_right, near_bottom = near.box
    width = min(right, near_right) - max(left, near_left)
    height = min(bottom, near_bottom) - max(top, near_top)
    return max(width, 0.0) * max(height, 0.0) / ((right - left) * (bottom - top))


def _tint(rgb: tuple[int, int, int], tone: float) -> tuple[int, int, int]:
    """A color at a brightness; above 1 it moves towards white so that it keeps its hue."""
    if tone <= 1:
        return int(rgb[0] * tone), int(rgb[1] * tone), int(rgb[2] * tone)
    white = min(tone - 1, 1.0)
    red, green, blue = (int(value + (255 - value) * white) for value in rgb)
    return red, green, blue


def _lit(rgb: tuple[int, int, int], strength: float) -> Tone:
    return lambda tone: _tint(rgb, tone * strength)


def _flat(value: int) -> Tone:
    return lambda tone: value


def _paint_shadow(pen: ImageDraw.ImageDraw, item: Item, light: Light, rows: Sequence[tuple[int, int, int]]) -> None:
    k = _SUPERSAMPLING
    radius = item.spot.radius * k
    x = item.spot.x * k - 0.35 * radius * math.sin(light.azimuth)
    y = item.spot.y * k
    fill = _tint(rows[min(int(item.spot.y), IMAGE_SIZE - 1)], 0.72)
    pen.ellipse((x - 1.05 * radius, y - 1.05 * _TILT * radius, x + 1.05 * radius, y + 1.05 * _TILT * radius), fill=fill)


def _paint(pen: ImageDraw.ImageDraw, item: Item, light: Light, tone: Tone) -> None:
    k = _SUPERSAMPLING
    spot = Spot(item.spot.x * k, item.spot.y * k, item.spot.radius * k)
    if item.look.shape == "cube":
        _paint_cube(pen, spot, item.yaw, light, tone)
    elif item.look.shape == "sphere":
        _paint_sphere(pen, spot, light, tone)
    else:
        _paint_cylinder(pen, spot, light, tone)


def _wall_tone(angle: float, light: Light) -> float:
    """Brightness of an upright surface that faces an angle (0 is right, pi/2 is the viewer)."""
    facing = math.cos(angle - (math.pi / 2 - light.azimuth)) * math.cos(_LIGHT_HEIGHT)
    return 0.5 + 0.55 * max(facing, 0.0)


def _paint_cube(pen: ImageDraw.ImageDraw, spot: Spot, yaw: float, light: Light, tone: Tone) -> None:
    edge = tone(_EDGE_TONE)
    half = 0.78 * spot.radius
    height = 2 * half * _RISE
    angles = [yaw + math.pi / 4 + i * math.pi / 2 for i in range(4)]
    reach = half * math.sqrt(2)
    base = [(spot.x + reach * math.cos(a), spot.y + reach * _TILT * math.sin(a)) for a in angles]
    top = [(x, y - height) for x, y in base]
    for i in range(4):
        normal = angles[i] + math.pi / 4
        if math.sin(normal) > 0:
            j = (i + 1) % 4
            pen.polygon([base[i], base[j], top[j], top[i]], fill=tone(_wall_tone(normal, light)), outline=edge)
    pen.polygon(top, fill=tone(1.12), outline=edge)


def _paint_sphere(pen: ImageDraw.ImageDraw, spot: Spot, light: Light, tone: Tone) -> None:
    radius = 0.92 * spot.radius
    middle = spot.y - _RISE * radius * 0.8
    towards_x = 0.42 * radius * math.sin(light.azimuth)
    towards_y = -0.42 * radius
    steps = ((1.0, 0.42), (0.93, 0.62), (0.86, 0.7), (0.74, 0.84), (0.56, 0.97), (0.36, 1.1), (0.16, 1.75))
    for part, brightness in steps:
        x, y, r = spot.x + towards_x * (1 - part), middle + towards_y * (1 - part), radius * part
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tone(brightness))


def _paint_cylinder(pen: ImageDraw.ImageDraw, spot: Spot, light: Light, tone: Tone) -> None:
    radius = 0.82 * spot.radius
    height = 1.6 * radius * _RISE
    num_strips = 8
    arc = [i * math.pi / num_strips for i in range(num_strips + 1)]
    rim = [(spot.x + radius * math.cos(a), spot.y + radius * _TILT * math.sin(a)) for a in arc]
    for i in range(num_strips):
        (x0, y0), (x1, y1) = rim[i], rim[i + 1]
        fill = tone(_wall_tone((arc[i] + arc[i + 1]) / 2, light))
        pen.polygon([(x0, y0), (x1, y1), (x1, y1 - height), (x0, y0 - height)], fill=fill)
    top = spot.y - height
    lid = (spot.x - radius, top - _TILT * radius, spot.x + radius, top + _TILT * radius)
    pen.ellipse(lid, fill=tone(1.12), outline=tone(_EDGE_TONE))
