"""Relations: where do objects stand to one another, and what do they share?

A second family of questions on the scenes of :mod:`harness.tasks.scene`, after CLEVR's relate, same-attribute and
compare-integer questions (arXiv 1612.06890). Splits change condition as in :mod:`harness.tasks.counting`: A for
`pretrain`, `train` and `validation`, B for `test`. A reference such as "the red cube" is the only one of its look.
Left, right, in front and behind are as the viewer sees them, and every other object is at least :data:`MARGIN` away
from the reference along the axis asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from harness.tasks.base import Draft, DrawnTask, Split
from harness.tasks.scene import (
    COLORS,
    SHAPES,
    Item,
    Look,
    Puzzle,
    Scene,
    Spot,
    build,
    condition_of,
    draw_looks,
    draw_palette,
    legal_looks,
    place,
)

MARGIN = 6.0
"""Least distance (px of the image) between the base centres of the reference and any other object, along the axis.

Objects of unequal size that far apart in depth have their centres and lower ends in the same order as their bases.
"""

PHRASINGS: Mapping[str, tuple[str, str, str]] = {
    "left": (
        "How many objects are left of the {ref}?",
        "How many items are there to the left of the {ref}?",
        "Count the objects left of the {ref}.",
    ),
    "right": (
        "How many objects are right of the {ref}?",
        "How many items are there to the right of the {ref}?",
        "Count the objects right of the {ref}.",
    ),
    "front": (
        "How many objects are in front of the {ref}?",
        "How many items are there in front of the {ref}?",
        "Count the objects in front of the {ref}.",
    ),
    "behind": (
        "How many objects are behind the {ref}?",
        "How many items are there behind the {ref}?",
        "Count the objects behind the {ref}.",
    ),
    "same_color": (
        "How many other objects have the same color as the {ref}?",
        "How many other items share the color of the {ref}?",
        "Count the other objects with the color of the {ref}.",
    ),
    "same_shape": (
        "How many other objects have the same shape as the {ref}?",
        "How many other items share the shape of the {ref}?",
        "Count the other objects with the shape of the {ref}.",
    ),
    "more": (
        "How many more {first} than {second} are there?",
        "How many more {first} are there than {second} in the image?",
        "Count how many more {first} than {second} there are.",
    ),
}
"""Three wordings per kind."""

_KIND_WEIGHTS = {
    "left": 0.16,
    "right": 0.16,
    "front": 0.16,
    "behind": 0.16,
    "same_color": 0.12,
    "same_shape": 0.12,
    "more": 0.12,
}
_SPATIAL = ("left", "right", "front", "behind")
_NUM_OBJECTS = (3, 6)
_MAX_SAME = 3
_MAX_DIFFERENCE = 3
_NUM_COLORS = (3, 6)


class Relations(DrawnTask):
    """Spatial relations to a reference, shared attributes and differences of counts; answers 0 to 5."""

    name: ClassVar[str] = "relations"
    version: ClassVar[int] = 1
    protocol: ClassVar[str] = "r1v_counting"

    def draft(self, rng: np.random.Generator, split: Split) -> Draft:
        """One question about relations with its picture."""
        return self.compose(rng, split).draft()

    def compose(self, rng: np.random.Generator, split: Split) -> Puzzle:
        """One question about relations with the scene as objects instead of pixels."""
        condition = condition_of(split)
        kind = str(rng.choice(list(_KIND_WEIGHTS), p=list(_KIND_WEIGHTS.values())))
        phrasing = int(rng.integers(3))
        legal = legal_looks(condition)
        if kind in _SPATIAL:
            scene, words, answer, reasoning = _spatial(rng, kind, legal)
        elif kind == "more":
            scene, words, answer, reasoning = _more(rng, legal)
        else:
            scene, words, answer, reasoning = _same(rng, kind, legal)
        metadata: dict[str, str | int | float] = {
            "kind": kind,
            "phrasing": phrasing,
            "condition": condition,
            "num_objects": len(scene.items),
        }
        question = PHRASINGS[kind][phrasing].format(**words)
        return Puzzle(scene, question, answer, reasoning, metadata | words)


Parts = tuple[Scene, dict[str, str], int, str]
"""The scene, the words that a phrasing needs, the answer and the reasoning."""


def _spatial(rng: np.random.Generator, kind: str, legal: Sequence[Look]) -> Parts:
    num_objects = int(rng.integers(_NUM_OBJECTS[0], _NUM_OBJECTS[1] + 1))
    answer = int(rng.integers(num_objects))
    spots = _spots_with_rank(rng, kind, num_objects, answer)
    reference, *others = _looks_around_reference(rng, legal, num_objects - 1)
    # The scene is in drawing order, so the looks are put on the sorted spots and the reference is found by its look.
    scene = build(rng, spots, [*others[:answer], reference, *others[answer:]])
    chosen = next(item for item in scene.items if item.look == reference)
    hits = [item.look for item in scene.items if _offset(kind, chosen, item) > 0]
    return scene, {"ref": _name(reference)}, len(hits), f"{kind} of {num_objects} objects, total {len(hits)}"


def _spots_with_rank(rng: np.random.Generator, kind: str, num_spots: int, rank: int) -> list[Spot]:
    """Spots in the order of the relation, such that the one at the rank is clear of its neighbours by the margin."""
    while True:
        spots = sorted(place(rng, num_spots), key=lambda spot: _along(kind, spot), reverse=True)
        places = [_along(kind, spot) for spot in spots]
        gaps = [abs(places[i] - places[rank]) for i in (rank - 1, rank + 1) if 0 <= i < num_spots]
        if min(gaps) >= MARGIN:
            return spots


def _along(kind: str, spot: Spot) -> float:
    """How far a spot lies in the direction of the relation (px)."""
    return {"left": -spot.x, "right": spot.x, "front": spot.y, "behind": -spot.y}[kind]


def _offset(kind: str, reference: Item, other: Item) -> float:
    return _along(kind, other.spot) - _along(kind, reference.spot)


def _same(rng: np.random.Generator, kind: str, legal: Sequence[Look]) -> Parts:
    reference = draw_looks(rng, legal, 1)[0]
    part = kind.removeprefix("same_")
    pool = _pool(rng, [look for look in legal if look != reference], [reference.color])
    sharing = [look for look in pool if getattr(look, part) == getattr(reference, part)]
    if not sharing:
        sharing = [look for look in legal if look != reference and getattr(look, part) == getattr(reference, part)]
    differing = [look for look in pool if getattr(look, part) != getattr(reference, part)]
    answer = int(rng.integers(_MAX_SAME + 1))
    num_differing = int(rng.integers(1, _NUM_OBJECTS[1] - answer))
    looks = [reference, *draw_looks(rng, sharing, answer), *draw_looks(rng, differing, num_differing)]
    scene = _scatter(rng, looks)
    if kind == "same_color":
        counts = [(f"{reference.color} {s}s", Look(reference.color, s)) for s in SHAPES if s != reference.shape]
        parts = [f"{words} {looks.count(look)}" for words, look in counts]
    else:
        found = [(color, looks.count(Look(color, reference.shape))) for color in COLORS if color != reference.color]
        parts = [f"{color} {count}" for color, count in found if count]
    return scene, {"ref": _name(reference)}, answer, ", ".join([*parts, f"total {answer}"])


def _more(rng: np.random.Generator, legal: Sequence[Look]) -> Parts:
    part = "color" if rng.random() < 0.5 else "shape"
    values = [str(value) for value in rng.permutation(list(COLORS) if part == "color" else list(SHAPES))]
    first, second = values[:2]
    answer = int(rng.integers(_MAX_DIFFERENCE + 1))
    num_second = int(rng.integers(1 if answer == 0 else 0, (_NUM_OBJECTS[1] - answer) // 2 + 1))
    num_first = num_second + answer
    num_rest = int(rng.integers(0, _NUM_OBJECTS[1] - num_first - num_second + 1))
    pool = _pool(rng, legal, [value for value in (first, second) if part == "color"])
    groups = [_with(pool, legal, part, {first}), _with(pool, legal, part, {second})]
    rest = _with(pool, legal, part, set(values[2:]))
    looks = draw_looks(rng, groups[0], num_first) + draw_looks(rng, groups[1], num_second)
    scene = _scatter(rng, looks + draw_looks(rng, rest, num_rest))
    plural = "{} objects" if part == "color" else "{}s"
    words = {"first": plural.format(first), "second": plural.format(second)}
    reasoning = f"{words['first']} {num_first}, {words['second']} {num_second}, difference {answer}"
    return scene, words, answer, reasoning


def _with(pool: Sequence[Look], legal: Sequence[Look], part: str, values: set[str]) -> list[Look]:
    """Looks of the pool with one of the values; of all legal looks where the pool has none."""
    return [look for look in pool if getattr(look, part) in values] or [
        look for look in legal if getattr(look, part) in values
    ]


def _looks_around_reference(rng: np.random.Generator, legal: Sequence[Look], num_others: int) -> list[Look]:
    """A reference look first, then others that differ from it."""
    reference = draw_looks(rng, legal, 1)[0]
    pool = _pool(rng, [look for look in legal if look != reference], [reference.color])
    return [reference, *draw_looks(rng, pool, num_others)]


def _pool(rng: np.random.Generator, looks: Sequence[Look], wanted: Sequence[str]) -> list[Look]:
    """The looks in a few colors, the wanted ones among them."""
    palette = {*draw_palette(rng, int(rng.integers(_NUM_COLORS[0], _NUM_COLORS[1]))), *wanted}
    return [look for look in looks if look.color in palette]


def _scatter(rng: np.random.Generator, looks: Sequence[Look]) -> Scene:
    return build(rng, place(rng, len(looks)), [looks[i] for i in rng.permutation(len(looks))])


def _name(look: Look) -> str:
    return f"{look.color} {look.shape}"
