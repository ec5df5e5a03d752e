"""A claim's differences and their intervals as a drawing that needs no script: positions along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.claims import ClaimAnswer, Verdict


@dataclass(frozen=True)
class Mark:
    """A difference on the axis, in percent of its width; the interval is None with fewer than three seeds."""

    place: str
    verdict: Verdict
    at: float
    low: float | None
    high: float | None
    text: str


@dataclass(frozen=True)
class Forest:
    """All differences of a report on one axis.

    Attributes:
        limit: Points at either end of the axis, in percentage points; 0 is in the middle.
        marks: Of each claim, in its order; a place without a difference has none.
    """

    limit: float
    marks: tuple[tuple[Mark, ...], ...]


def forest(answers: Sequence[ClaimAnswer]) -> Forest:
    """The drawing of some claims' answers."""
    ends = [
        abs(100 * end)
        for answer in answers
        for place in answer.places
        for end in (place.difference, place.ci_low, place.ci_high)
        if end is not None
    ]
    limit = float(-(-max(ends, default=1.0) // 5) * 5) or 5.0
    return Forest(limit, tuple(_marks(answer, limit) for answer in answers))


def _marks(answer: ClaimAnswer, limit: float) -> tuple[Mark, ...]:
    def at(difference: float) -> float:
        return round(50 + 50 * 100 * difference / limit, 2)

    return tuple(
        Mark(
            place=f"{place.source} to {place.target}",
            verdict=place.verdict,
            at=at(place.difference),
            low=None if place.ci_low is None else at(place.ci_low),
            high=None if place.ci_high is None else at(place.ci_high),
            text=f"{100 * place.difference:+.1f} points",
        )
        for place in answer.places
        if place.difference is not None
    )
