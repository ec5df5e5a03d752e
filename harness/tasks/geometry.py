"""Procedural geometry: the text gives numbers, the diagram decides the rule.

The text says "Angle 1 is 50 and angle 2 is 30. Find x."; whether x is what is left of a triangle, a straight line, a
right angle or a full turn, or the sum of the two, only the figure tells. Figures are true to their numbers.

Held out: `pretrain`, `train` and `validation` turn a figure by at most 60 degrees either way (condition A); `test`
turns it by 61 to 120 degrees either way (condition B). Kinds and numbers are the same in both. For figures with a
symmetry (a square, a regular polygon) the conditions overlap. Angles are multiples of 5 degrees and lengths are small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from harness.tasks.base import Draft, DrawnTask, Split
from harness.tasks.diagrams import angles, lengths, shapes
from harness.tasks.diagrams.problem import FORMS, Problem, pick
from harness.tasks.diagrams.sketch import random_look, render

SEEN_ROTATION = 60
HELD_OUT_ROTATION = 120

KINDS: Mapping[str, Callable[[np.random.Generator], Problem]] = {
    kind.__name__: kind
    for kind in (
        angles.straight_two,
        angles.straight_three,
        angles.straight_four,
        angles.corner_two,
        angles.corner_three,
        angles.point_three,
        angles.point_four,
        angles.vertical,
        angles.parallel_equal,
        angles.parallel_between,
        shapes.triangle,
        shapes.right_triangle,
        shapes.isosceles_apex,
        shapes.isosceles_base,
        shapes.exterior_sum,
        shapes.exterior_difference,
        shapes.quadrilateral,
        shapes.right_quadrilateral,
        shapes.right_pentagon,
        shapes.regular_inside,
        shapes.regular_outside,
        shapes.regular_centre,
        shapes.angle_sum,
        lengths.triangle_perimeter,
        lengths.square_perimeter,
        lengths.polygon_perimeter,
        lengths.square_area,
        lengths.half_square_area,
        lengths.two_squares_area,
        lengths.rectangle_perimeter,
        lengths.parallelogram_perimeter,
        lengths.isosceles_perimeter,
        lengths.rectangle_area,
        lengths.right_triangle_area,
        lengths.parallelogram_area,
        lengths.similar,
        lengths.line_whole,
        lengths.line_part,
    )
}
"""Every kind of diagram."""

HARD = frozenset(
    {
        "straight_four",
        "corner_three",
        "point_four",
        "quadrilateral",
        "right_quadrilateral",
        "right_pentagon",
        "half_square_area",
        "two_squares_area",
        "isosceles_perimeter",
        "similar",
        "line_whole",
        "line_part",
    }
)
"""Kinds with three numbers or an uncommon rule, three times rarer than the others; headroom for training."""

_FREQUENCIES = np.array([1 if kind in HARD else 3 for kind in KINDS])


class Geometry(DrawnTask):
    """Diagram questions with whole-number answers, 112 x 112 pixels.

    Metadata: ``kind``, ``phrasing``, ``form`` (the sentence it shares with other kinds), ``given_1`` to ``given_3``
    (the numbers of the text), ``num_sides`` where the rule counts sides, ``rotation`` in degrees and ``mirrored``.
    """

    name = "geometry"
    version = 1
    protocol = "r1v_geoqa"

    def draft(self, rng: np.random.Generator, split: Split) -> Draft:
        """Makes one question; the split decides how far the figure is turned."""
        kind = tuple(KINDS)[int(rng.choice(len(KINDS), p=_FREQUENCIES / _FREQUENCIES.sum()))]
        phrasing = pick(rng, 0, 2)
        problem = KINDS[kind](rng)
        look = random_look(rng, _rotation(rng, split))
        metadata: dict[str, str | int | float] = {"kind": kind, "phrasing": phrasing, "form": problem.form}
        metadata |= {f"given_{place}": number for place, number in enumerate(problem.given, start=1)}
        if problem.num_sides:
            metadata["num_sides"] = problem.num_sides
        metadata |= {"rotation": look.rotation, "mirrored": int(look.mirrored)}
        return Draft(
            image=render(problem.sketch, look),
            question=FORMS[problem.form][phrasing].format(*problem.given),
            answer=str(problem.answer),
            reasoning=problem.reasoning,
            metadata=metadata,
        )


def _rotation(rng: np.random.Generator, split: Split) -> int:
    if split != "test":
        return pick(rng, -SEEN_ROTATION, SEEN_ROTATION)
    return pick(rng, SEEN_ROTATION + 1, HELD_OUT_ROTATION) * (1 if pick(rng, 0, 1) else -1)
