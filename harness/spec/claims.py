"""Claims: sentences about a sweep's answers, which its runs support, contradict or leave open.

    claims:
      - name: same_task_over_sft           # a word of its own
        says: GRPO-D beats SFT on the task trained on
        better: {method: grpo_d}           # selects runs by their settings: one value or a list under each key
        than: {method: sft}                # `base` may stand on either side
        on: same_task                      # or cross_task
        where: {source: counting, target: counting}   # narrows both sides, and the targets
        metric: accuracy                   # or format; accuracy without it
        published: 0.1168                  # the relative improvement that a paper states; never part of a verdict
        reference: Table 1, 2B             # where it states it
      - name: interior_maximum_of_beta
        says: Accuracy over a constant beta rises, then falls
        interior_maximum_over: beta        # in the place of better and than: a number that the sweep varies
        where: {method: grpo, source: geometry}
        on: same_task

A claim is about every source and target of its table for which the sweep has both sides, all at once; each is a place
with numbers of its own. A run is selected by all of its settings, defaults too. A side has one run per seed: where it
selects several, the claim must say which. A condition of `where` on a setting that a run lacks (the `format_weight` of
`sft`, the `source` of `base`) leaves that run in.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from harness.errors import UserError, nearest
from harness.spec.data import task_name
from harness.spec.keys import Value, shown
from harness.spec.parts import Part, Place, full_name_at, settings_of

ClaimTable = Literal["same_task", "cross_task"]
Metric = Literal["accuracy", "format"]

_SIDES = ("better", "than")
_OVER = "interior_maximum_over"
_REQUIRED = ("name", "says", "on")
_KEYS = ("name", "says", *_SIDES, _OVER, "on", "where", "metric", "published", "reference")


@dataclass(frozen=True)
class Condition:
    """A setting and the values that it may have.

    Attributes:
        key: The setting's full name, or `target`.
        values: At least one.
        place: Where it stands.
    """

    key: str
    values: tuple[Value, ...]
    place: Place = field(repr=False, compare=False)


@dataclass(frozen=True)
class Claim:
    """One claim, as the file states it.

    Attributes:
        name: A word, one claim's alone.
        says: The claim in words.
        on: The table that it is about.
        better: What the side that should be ahead is selected by; empty for an interior maximum.
        than: What the other side is selected by; empty for an interior maximum.
        over: The setting, by full name, that should be best between its ends; None for `better` and `than`.
        where: What narrows every side; `target` is among its keys.
        metric: What is compared: the share of right answers or of answers in the right form.
        published: A paper's relative improvement, 0.1 for ten percent; None where not given.
        reference: Where the paper states it; None where not given.
        place: Where the claim stands.
    """

    name: str
    says: str
    on: ClaimTable
    better: tuple[Condition, ...] = ()
    than: tuple[Condition, ...] = ()
    over: str | None = None
    where: tuple[Condition, ...] = ()
    metric: Metric = "accuracy"
    published: float | None = None
    reference: str | None = None
    place: Place = field(default=Place(None, None), repr=False, compare=False)


def read_claims(part: Part) -> tuple[Claim, ...]:
    """Reads a `claims:` section.

    Raises:
        SpecError: With file and line.
    """
    claims: list[Claim] = []
    for element in part.elements():
        claim = _claim(element)
        if any(claim.name == other.name for other in claims):
            raise claim.place.error(f"two claims are named '{claim.name}': give each a name of its own")
        claims.append(claim)
    return tuple(claims)


def _claim(part: Part) -> Claim:
    parts = dict(part.items(_KEYS))
    lacking = [key for key in _REQUIRED if key not in parts]
    if lacking:
        raise part.place.error(f"the claim has no '{lacking[0]}': {', '.join(_REQUIRED)} are required")
    given = [key for key in (*_SIDES, _OVER) if key in parts]
    if given not in ([*_SIDES], [_OVER]):
        raise part.place.error(f"a claim has `better` and `than`, or `{_OVER}` in their place")
    over = parts.get(_OVER)
    if over is not None and not isinstance(over.value, str):
        raise over.place.error(f"{_OVER} must name a setting, not {shown(over.value)}")
    return Claim(
        name=_word(parts["name"]),
        says=_text(parts["says"]),
        on=_one_of(parts["on"], get_args(ClaimTable)),
        better=_selection(parts["better"]) if "better" in parts else (),
        than=_selection(parts["than"]) if "than" in parts else (),
        over=None if over is None else full_name_at(over.value, over.place),
        where=_selection(parts["where"], is_where=True) if "where" in parts else (),
        metric=_one_of(parts["metric"], get_args(Metric)) if "metric" in parts else "accuracy",
        published=_published(parts["published"]) if "published" in parts else None,
        reference=_text(parts["reference"]) if "reference" in parts else None,
        place=part.place,
    )


def _selection(part: Part, *, is_where: bool = False) -> tuple[Condition, ...]:
    conditions = []
    for key, entry in part.items():
        several = entry.elements() if isinstance(entry.value, list) else [entry]
        if not several:
            raise entry.place.error(f"{_last(part)}.{key} is empty: give it a value or a list of values")
        if key == "target":
            if not is_where:
                raise entry.place.error("a target belongs in `where`: both sides are evaluated on the same one")
            conditions.append(Condition(key, tuple(_task(one) for one in several), entry.place))
            continue
        name = full_name_at(key, entry.place)
        for one in several:
            if isinstance(one.value, dict):
                raise one.place.error(f"{_last(part)}.{key} takes a value or a list of values, not a mapping")
        values = tuple(leaf.value for one in several for leaf in settings_of(one, name))
        conditions.append(Condition(name, values, entry.place))
    if not conditions:
        raise part.place.error(f"{_last(part)} is empty: select runs by their settings, such as {{method: sft}}")
    return tuple(conditions)


def _task(part: Part) -> str:
    try:
        return task_name(str(part.value))
    except UserError as error:
        raise part.place.error(str(error)) from None


def _last(part: Part) -> str:
    return str(part.path[-1])


def _word(part: Part) -> str:
    if not isinstance(part.value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", part.value):
        raise part.place.error(
            f"a claim's name must be a word of letters, digits, '.', '_' and '-', not {shown(part.value)}"
        )
    return part.value


def _text(part: Part) -> str:
    if not isinstance(part.value, str) or not part.value.strip():
        raise part.place.error(f"{_last(part)} must be text, not {shown(part.value)}")
    return part.value.strip()


def _one_of(part: Part, legal: tuple[Any, ...]) -> Any:
    if part.value not in legal:
        hint = nearest(str(part.value), legal)
        raise part.place.error(f"unknown {_last(part)} {shown(part.value)}: {hint}")
    return part.value


def _published(part: Part) -> float:
    value = part.value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise part.place.error(f"published must be a number, 0.1 for ten percent, not {shown(value)}")
    return float(value)
