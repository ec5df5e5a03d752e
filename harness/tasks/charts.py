"""Bar charts: reading, comparing and adding the heights of coloured bars.

Held out: a bar's colour and value form a pair. Pairs with ``(colour index + value) % 3 == 0`` occur in `test` only and
all others in `pretrain`, `train` and `validation` only, so that a policy must read a colour and a height separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from harness.tasks.base import Draft, DrawnTask, Split

SIDE_PX = 112
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "blue": (40, 80, 214),
    "green": (40, 160, 60),
    "yellow": (240, 212, 30),
    "purple": (130, 50, 170),
    "cyan": (40, 196, 206),
    "gray": (130, 130, 130),
    "brown": (132, 80, 36),
}
TOPS = (8, 10, 12)
"""The largest value of the axis."""

PHRASINGS: Mapping[str, tuple[str, str, str]] = {
    "value": ("What is the value of the {0} bar?", "How tall is the {0} bar?", "Read the {0} bar."),
    "tallest": ("What is the value of the tallest bar?", "How tall is the tallest bar?", "Read the tallest bar."),
    "shortest": ("What is the value of the shortest bar?", "How tall is the shortest bar?", "Read the shortest bar."),
    "above": (
        "How many bars are above {0}?",
        "Count the bars taller than {0}.",
        "How many bars have a value above {0}?",
    ),
    "difference": (
        "How much taller is the {0} bar than the {1} bar?",
        "What is {0} minus {1}?",
        "What is the difference between the {0} bar and the {1} bar?",
    ),
    "sum": (
        "What is the sum of the {0} bar and the {1} bar?",
        "What is {0} plus {1}?",
        "How much are the {0} bar and the {1} bar together?",
    ),
    "bars": ("How many bars are there?", "Count the bars.", "What is the number of bars?"),
}


@dataclass(frozen=True)
class Chart:
    """What a chart shows.

    Attributes:
        colours: Names of the bars' colours, left to right, all different.
        values: Their heights, 1 to ``top``.
        top: Largest value of the axis.
        step: Distance between grid lines, 1 or 2; the numbers at the axis go up by 2 in both cases.
    """

    colours: tuple[str, ...]
    values: tuple[int, ...]
    top: int
    step: int


@dataclass(frozen=True)
class Asked:
    """A question about a chart: what goes into its sentence, the answer and the chain of thought."""

    words: tuple[str, ...]
    answer: int
    reasoning: str


def held_out(colour: str, value: int) -> bool:
    """Whether a bar of this colour and value belongs to the test split alone."""
    return (tuple(COLOURS).index(colour) + value) % 3 == 0


def draw_chart(rng: np.random.Generator, split: Split) -> Chart:
    """A chart of 3 to 6 bars, at least two of them of different heights, with the pairs of its split only."""
    top = TOPS[int(rng.integers(len(TOPS)))]
    step = int(rng.integers(1, 3))
    while True:
        places = rng.permutation(len(COLOURS))[: int(rng.integers(3, 7))]
        colours = tuple(tuple(COLOURS)[int(place)] for place in places)
        values = []
        for colour in colours:
            legal = [value for value in range(1, top + 1) if held_out(colour, value) == (split == "test")]
            values.append(legal[int(rng.integers(len(legal)))])
        if len(set(values)) > 1:
            return Chart(colours, tuple(values), top, step)


def _value(rng: np.random.Generator, chart: Chart) -> Asked:
    place = int(rng.integers(len(chart.values)))
    colour, value = chart.colours[place], chart.values[place]
    return Asked((colour,), value, f"{colour} is {value}")


def _tallest(rng: np.random.Generator, chart: Chart) -> Asked:
    return Asked((), max(chart.values), f"values {_listed(chart.values)}, tallest {max(chart.values)}")


def _shortest(rng: np.random.Generator, chart: Chart) -> Asked:
    return Asked((), min(chart.values), f"values {_listed(chart.values)}, shortest {min(chart.values)}")


def _above(rng: np.random.Generator, chart: Chart) -> Asked:
    lines = range(chart.step, chart.top, chart.step)
    line = lines[int(rng.integers(len(lines)))]
    over = [value for value in chart.values if value > line]
    reasoning = f"values {_listed(chart.values)}, above {line}: {_listed(over) or 'none'}, count {len(over)}"
    return Asked((str(line),), len(over), reasoning)


def _two_bars(rng: np.random.Generator, chart: Chart) -> tuple[tuple[str, str], int, int]:
    """Two bars of different heights, the taller one first."""
    pairs = [
        (one, two)
        for one in range(len(chart.values))
        for two in range(len(chart.values))
        if chart.values[one] > chart.values[two]
    ]
    one, two = pairs[int(rng.integers(len(pairs)))]
    return (chart.colours[one], chart.colours[two]), chart.values[one], chart.values[two]


def _difference(rng: np.random.Generator, chart: Chart) -> Asked:
    (first, second), high, low = _two_bars(rng, chart)
    reasoning = f"{first} is {high}, {second} is {low}, {high} - {low} = {high - low}"
    return Asked((first, second), high - low, reasoning)


def _sum(rng: np.random.Generator, chart: Chart) -> Asked:
    one, two = (int(place) for place in rng.permutation(len(chart.values))[:2])
    first, second = chart.colours[one], chart.colours[two]
    left, right = chart.values[one], chart.values[two]
    reasoning = f"{first} is {left}, {second} is {right}, {left} + {right} = {left + right}"
    return Asked((first, second), left + right, reasoning)


def _bars(rng: np.random.Generator, chart: Chart) -> Asked:
    return Asked((), len(chart.values), f"{' '.join(chart.colours)}, count {len(chart.values)}")


KINDS: Mapping[str, Callable[[np.random.Generator, Chart], Asked]] = {
    "value": _value,
    "tallest": _tallest,
    "shortest": _shortest,
    "above": _above,
    "difference": _difference,
    "sum": _sum,
    "bars": _bars,
}
"""Every kind of question; all are equally frequent."""


def _listed(values: tuple[int, ...] | list[int]) -> str:
    return " ".join(map(str, values))


# Digits three pixels wide and five high, a row of bits for each line; a font file would be another dependency and its
# rendering differs between builds.
_DIGITS = (
    (7, 5, 5, 5, 7),
    (2, 6, 2, 2, 7),
    (7, 1, 7, 4, 7),
    (7, 1, 7, 1, 7),
    (5, 5, 7, 1, 1),
    (7, 4, 7, 1, 7),
    (7, 4, 7, 5, 7),
    (7, 1, 1, 1, 1),
    (7, 5, 7, 5, 7),
    (7, 5, 7, 1, 7),
)


def _write(draw: ImageDraw.ImageDraw, number: int, right: int, middle: int) -> None:
    """Writes a number that ends left of ``right``, centred on the line ``middle``, in pixels."""
    text = str(number)
    for place, digit in enumerate(text):
        left = right - 4 * (len(text) - place)
        dots = [
            (left + column, middle - 2 + row)
            for row, bits in enumerate(_DIGITS[int(digit)])
            for column in range(3)
            if bits >> (2 - column) & 1
        ]
        draw.point(dots, fill=(20, 20, 20))


def paint(rng: np.random.Generator, chart: Chart) -> Image.Image:
    """The image of a chart, RGB, ``SIDE_PX`` square; size, place, paper and bar width come from the random stream."""
    paper = tuple(int(part) for part in rng.integers(232, 256, size=3))
    image = Image.new("RGB", (SIDE_PX, SIDE_PX), paper)
    draw = ImageDraw.Draw(image)
    unit = int(rng.integers(72 // chart.top, 100 // chart.top + 1))
    height = unit * chart.top
    floor = int(rng.integers(height + 5, SIDE_PX - 4))
    left = int(rng.integers(12, 17))
    right = int(rng.integers(SIDE_PX - 14, SIDE_PX - 3))
    shade = int(rng.integers(170, 206))
    for value in range(chart.step, chart.top + 1, chart.step):
        draw.line((left - 2, floor - value * unit, right, floor - value * unit), fill=(shade, shade, shade))
    for value in range(0, chart.top + 1, 2):
        _write(draw, value, left - 2, floor - value * unit)
    slot = (right - left - 2) / len(chart.values)
    gap = float(rng.uniform(0.15, 0.35)) * slot
    for place, (colour, value) in enumerate(zip(chart.colours, chart.values, strict=True)):
        start = left + 2 + place * slot
        box = (round(start + gap / 2), floor - value * unit, round(start + slot - gap / 2), floor)
        draw.rectangle(box, fill=COLOURS[colour])
    draw.line((left, floor - height, left, floor, right, floor), fill=(20, 20, 20))
    return image


class Charts(DrawnTask):
    """Bar chart questions with whole-number answers, 112 x 112 pixels.

    Metadata: ``kind``, ``phrasing``, ``colours`` and ``values`` of the bars from left to right (words with single
    spaces between them), ``top`` and ``step`` of the axis, and ``words`` (what the sentence names: colours, or the
    line that bars are compared with).
    """

    name = "charts"
    version = 1
    protocol = "r1v_counting"

    def draft(self, rng: np.random.Generator, split: Split) -> Draft:
        """Makes one question; the split decides which pairs of colour and value its bars may have."""
        kind = tuple(KINDS)[int(rng.integers(len(KINDS)))]
        phrasing = int(rng.integers(3))
        chart = draw_chart(rng, split)
        asked = KINDS[kind](rng, chart)
        return Draft(
            image=paint(rng, chart),
            question=PHRASINGS[kind][phrasing].format(*asked.words),
            answer=str(asked.answer),
            reasoning=asked.reasoning,
            metadata={
                "kind": kind,
                "phrasing": phrasing,
                "colours": " ".join(chart.colours),
                "values": _listed(chart.values),
                "top": chart.top,
                "step": chart.step,
                "words": " ".join(asked.words),
            },
        )
