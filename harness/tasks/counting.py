"""Counting: how many objects of a kind does a scene of solids hold?

The stand-in for the paper's counting task (R1-V's CLEVR questions), with SuperCLEVR's part played by a change of
condition: `pretrain`, `train` and `validation` are drawn from CLEVR-CoGenT's condition A, `test` from condition B (see
:mod:`harness.tasks.scene`). Departures: three of the four kinds of question ask for an attribute, and the number to be
counted is drawn first, so that no answer prevails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import numpy as np

from harness.tasks.base import Draft, DrawnTask, Split
from harness.tasks.scene import (
    COLORS,
    MAX_OBJECTS,
    SHAPES,
    Condition,
    Look,
    Puzzle,
    Scene,
    build,
    condition_of,
    draw_looks,
    draw_palette,
    legal_looks,
    place,
)

PHRASINGS: Mapping[str, tuple[str, str, str]] = {
    "all": (
        "How many items are there in the image?",
        "How many objects are there?",
        "Count the objects in the image.",
    ),
    "color": (
        "How many {color} objects are there in the image?",
        "How many items are {color}?",
        "Count the {color} objects.",
    ),
    "shape": (
        "How many {shape}s are there in the image?",
        "How many of the objects are {shape}s?",
        "Count the {shape}s.",
    ),
    "color_shape": (
        "How many {color} {shape}s are there in the image?",
        "How many of the {shape}s are {color}?",
        "Count the {color} {shape}s.",
    ),
}
"""Three wordings per kind; the first of ``all`` is R1-V's."""

_KIND_WEIGHTS = {"all": 0.4, "color": 0.2, "shape": 0.2, "color_shape": 0.2}
_MAX_COUNT = {"color": 6, "shape": 8, "color_shape": 5}
_MAX_COLORS = 5
"""Colors in one scene; bounds the length of the reasoning too."""


class Counting(DrawnTask):
    """Counts of all objects, or of those of a color, a shape, or both; answers 0 to 10."""

    name: ClassVar[str] = "counting"
    version: ClassVar[int] = 1
    protocol: ClassVar[str] = "r1v_counting"

    def draft(self, rng: np.random.Generator, split: Split) -> Draft:
        """One counting question with its picture."""
        return self.compose(rng, split).draft()

    def compose(self, rng: np.random.Generator, split: Split) -> Puzzle:
        """One counting question with the scene as objects instead of pixels."""
        condition = condition_of(split)
        kind = str(rng.choice(list(_KIND_WEIGHTS), p=list(_KIND_WEIGHTS.values())))
        legal = legal_looks(condition)
        if kind == "all":
            palette = draw_palette(rng, int(rng.integers(2, _MAX_COLORS + 1)))
            target = None
            looks = draw_looks(rng, [look for look in legal if look.color in palette], int(rng.integers(1, 11)))
        else:
            target = _draw_target(rng, kind, legal)
            looks = _draw_scene_looks(rng, kind, target, legal)
        spots = place(rng, len(looks))
        scene = build(rng, spots, [looks[i] for i in rng.permutation(len(looks))])
        return _ask(rng, kind, target, scene, condition)


def _draw_target(rng: np.random.Generator, kind: str, legal: Sequence[Look]) -> Look:
    """The look asked for; ``color`` and ``shape`` questions use that part of it only."""
    if kind == "color":
        return Look(list(COLORS)[int(rng.integers(len(COLORS)))], "sphere")
    if kind == "shape":
        return Look("gray", SHAPES[int(rng.integers(len(SHAPES)))])
    return draw_looks(rng, legal, 1)[0]


def _draw_scene_looks(rng: np.random.Generator, kind: str, target: Look, legal: Sequence[Look]) -> list[Look]:
    """Draws how many objects match the target first, then as many looks, then the looks of the others."""
    matches = _matcher(kind, target)
    num_matching = int(rng.integers(0, _MAX_COUNT[kind] + 1))
    num_others = int(rng.integers(1 if num_matching == 0 else 0, MAX_OBJECTS - num_matching + 1))
    palette = set(draw_palette(rng, int(rng.integers(3, _MAX_COLORS + 1))))
    pool = [look for look in legal if look.color in palette]
    matching = [look for look in pool if matches(look)] or [look for look in legal if matches(look)]
    # Objects that share one of two attributes with the target make the question more than a count of a color.
    near = [look for look in legal if kind == "color_shape" and target.color == look.color and not matches(look)]
    others = [look for look in pool if not matches(look)] + near
    if not others:
        others = [look for look in legal if not matches(look)]
    return draw_looks(rng, matching, num_matching) + draw_looks(rng, others, num_others)


def _matcher(kind: str, target: Look) -> Callable[[Look], bool]:
    if kind == "color":
        return lambda look: look.color == target.color
    if kind == "shape":
        return lambda look: look.shape == target.shape
    return lambda look: look == target


def _ask(rng: np.random.Generator, kind: str, target: Look | None, scene: Scene, condition: Condition) -> Puzzle:
    looks = [item.look for item in scene.items]
    phrasing = int(rng.integers(3))
    metadata: dict[str, str | int | float] = {
        "kind": kind,
        "phrasing": phrasing,
        "condition": condition,
        "num_objects": len(looks),
    }
    if target is None:
        question, answer = PHRASINGS[kind][phrasing], len(looks)
    else:
        question = PHRASINGS[kind][phrasing].format(color=target.color, shape=target.shape)
        answer = sum(map(_matcher(kind, target), looks))
        metadata |= {part: getattr(target, part) for part in kind.split("_")}
    return Puzzle(scene, question, answer, _reason(kind, target, looks, answer), metadata)


def _reason(kind: str, target: Look | None, looks: Sequence[Look], answer: int) -> str:
    """The count in parts: by shape, or by color where a shape is asked for."""
    if target is None:
        parts = [f"{shape}s {sum(look.shape == shape for look in looks)}" for shape in SHAPES]
    elif kind == "color":
        parts = [f"{target.color} {shape}s {looks.count(Look(target.color, shape))}" for shape in SHAPES]
    elif kind == "shape":
        counts = [(color, looks.count(Look(color, target.shape))) for color in COLORS]
        parts = [f"{color} {count}" for color, count in counts if count]
    else:
        same_shape = sum(look.shape == target.shape for look in looks)
        parts = [f"{target.shape}s {same_shape}", f"{target.color} {target.shape}s {answer}"]
    return ", ".join([*parts, f"total {answer}"])
