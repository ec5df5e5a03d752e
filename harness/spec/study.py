"""A study: a search over settings whose trials are the sweep itself at one point, judged on validation examples.

    study:
      per: [method, source]          # axes; each combination is searched on its own, with the same budget
      space:                         # settings under any of their names
        lr: {low: 1e-5, high: 1e-3, log: true}
        group_size: {low: 4, high: 16, step: 4}      # whole numbers where low and high are
        schedule: [constant, othink, linear]         # choices
        explore_frac: {low: 0.1, high: 0.9, where: {schedule: othink}}
      sampler: {type: tpe, seed: 0}  # grid, random, tpe, nsga2, cmaes or gp; a bare name has seed 0
      pruner: median                 # none, median, successive_halving or hyperband
      num_trials: 20                 # of each search; a grid has as many as it has points
      timeout_s: 3600                # no new trial begins later than this after the command did
      objectives: [same_task]        # same_task, cross_task, or a target; all are maximised
      first: [{lr: 1e-4}]            # points to try before the sampler's

A trial is every cell of the sweep (of the combination) in which the point takes effect; other axes, such as seeds, are
averaged over. Cells that have none of the space's settings (`base`) are run once beside the trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from harness.errors import DataError, SpecError, nearest
from harness.spec.data import task_name
from harness.spec.keys import Value, shown
from harness.spec.names import TASKS
from harness.spec.parts import Part, full_name_at, settings_of

SamplerType = Literal["grid", "random", "tpe", "nsga2", "cmaes", "gp"]
PrunerType = Literal["none", "median", "successive_halving", "hyperband"]

_KEYS = ("per", "space", "sampler", "pruner", "num_trials", "timeout_s", "objectives", "first")
_RANGE = ("low", "high", "log", "step", "where")
_CHOICES = ("choices", "where")

_LARGEST = 1e18
"""A number beyond this, infinity too, is none that a range could have."""

Point = Mapping[str, Value]
"""Values of a space by full name; parameters whose condition does not hold are absent."""


@dataclass(frozen=True)
class Parameter:
    """One dimension of a space: choices, or a range with both ends in it.

    Attributes:
        key: The setting's full name.
        choices: Its values; empty for a range.
        low: The least value of a range.
        high: The greatest.
        log: Whether a range is searched on a logarithmic scale.
        step: Distance of a range's values; None for a continuum.
        where: It exists only where each of these settings has one of these values.
    """

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    where: Mapping[str, tuple[Value, ...]] | None = None

    @property
    def is_whole(self) -> bool:
        """Whether a range is one of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def exists(self, known: Point) -> bool:
        """Whether the condition holds for what is known of a point and of its cells."""
        return all(known.get(key) in wanted for key, wanted in (self.where or {}).items())

    def values(self) -> tuple[Value, ...]:
        """Every value, for a grid; empty for a continuum."""
        if self.choices:
            return self.choices
        step = self._step
        return () if step is None else tuple(self.low + n * step for n in range(self.num_values))

    @property
    def num_values(self) -> int:
        """How many values there are, for a grid; 0 for a continuum."""
        if self.choices:
            return len(self.choices)
        return 0 if self._step is None else int((self.high - self.low) / self._step + 1e-9) + 1

    @property
    def _step(self) -> float | None:
        return self.step or (1 if self.is_whole and not self.log else None)


@dataclass(frozen=True)
class Study:
    """What is searched, how, and for how long; the module's docstring is the grammar.

    Attributes:
        per: Full names of axes.
        space: The parameters, conditions only on earlier ones or on axes of `per`.
        sampler: Who proposes points.
        seed: Of the sampler.
        pruner: Who stops trials early.
        num_trials: Of each search; None for no limit but time.
        timeout_s: Seconds after which no trial begins; None for no limit.
        objectives: What is maximised, the first one first where a single winner is asked for.
        first: Points to try before the sampler's.
    """

    per: tuple[str, ...]
    space: tuple[Parameter, ...]
    sampler: SamplerType
    seed: int
    pruner: PrunerType
    num_trials: int | None
    timeout_s: float | None
    objectives: tuple[str, ...]
    first: tuple[Point, ...]

    @property
    def num_points(self) -> int:
        """Of a grid, at most: conditions make them fewer."""
        return math.prod(parameter.num_values for parameter in self.space)

    def grid(self, known: Point) -> list[dict[str, Value]]:
        """Every point of a grid, each once, the last parameter fastest.

        Args:
            known: Settings of the combination that is searched, for conditions.
        """
        points: list[dict[str, Value]] = [{}]
        for parameter in self.space:
            points = [
                point | extra
                for point in points
                for extra in (
                    [{parameter.key: value} for value in parameter.values()]
                    if parameter.exists({**known, **point})
                    else [{}]
                )
            ]
        return points


def targets_of(objective: str, source: str | None, targets: Sequence[str]) -> list[str]:
    """The targets that an objective averages over, for a run on a source.

    Args:
        objective: `same_task`, `cross_task` or a target.
        source: The task trained on.
        targets: Those that the sweep evaluates on.
    """
    if objective == "same_task":
        return [target for target in targets if target == source]
    if objective == "cross_task":
        return [target for target in targets if target != source]
    return [target for target in targets if target == objective]


def read_study(part: Part) -> Study:
    """Reads a `study:` section.

    Raises:
        SpecError: With file and line.
    """
    parts = dict(part.items(_KEYS))
    if "space" not in parts or not parts["space"].value:
        raise part.place.error("a study needs a `space`: settings with their ranges or choices")
    per = tuple(full_name_at(_word(axis), axis.place) for axis in parts["per"].elements()) if "per" in parts else ()
    space: list[Parameter] = []
    for key, entry in parts["space"].items():
        parameter = _parameter(key, entry)
        if any(parameter.key == other.key for other in space):
            raise entry.place.error(f"{parameter.key} is in the space twice, under two of its names")
        if parameter.key in per:
            raise entry.place.error(f"{parameter.key} is in `per` and in the space: choose one")
        earlier = {*per, *(other.key for other in space)}
        unknown = [name for name in parameter.where or {} if name not in earlier]
        if unknown:
            raise entry.place.error(
                f"the condition of {key} asks for {unknown[0]}, which is neither in `per` nor earlier in the space"
            )
        space.append(parameter)
    sampler, seed = _sampler(parts.get("sampler"))
    pruner: PrunerType = _one_of(parts["pruner"], PrunerType) if "pruner" in parts else "none"
    objectives = _objectives(parts["objectives"]) if "objectives" in parts else ("same_task",)
    study = Study(
        per=per,
        space=tuple(space),
        sampler=sampler,
        seed=seed,
        pruner=pruner,
        num_trials=_number(parts["num_trials"], whole=True) if "num_trials" in parts else None,
        timeout_s=_number(parts["timeout_s"]) if "timeout_s" in parts else None,
        objectives=objectives,
        first=tuple(_point(point, space) for point in parts["first"].elements()) if "first" in parts else (),
    )
    if sampler == "grid":
        endless = [parameter.key for parameter in space if not parameter.num_values]
        if endless:
            raise parts["space"].place.error(f"a grid needs choices or a step for {endless[0]}")
    elif study.num_trials is None and study.timeout_s is None:
        raise part.place.error(f"the sampler '{sampler}' never ends by itself: give num_trials or timeout_s")
    if pruner != "none" and len(objectives) > 1:
        raise parts["pruner"].place.error("a pruner needs a single objective")
    return study


def _parameter(key: str, part: Part) -> Parameter:
    name = full_name_at(key, part.place)
    if isinstance(part.value, list):
        return Parameter(name, choices=_choices(part, name))
    entries = dict(part.items(_CHOICES if isinstance(part.value, dict) and "choices" in part.value else _RANGE))
    where = _where(entries["where"]) if "where" in entries else None
    if "choices" in entries:
        return Parameter(name, choices=_choices(entries["choices"], name), where=where)
    if "low" not in entries or "high" not in entries:
        raise part.place.error(f"{key} in the space is a list of choices, or a mapping with low and high")
    low, high = _number(entries["low"], low=None), _number(entries["high"], low=None)
    log = entries["log"].value if "log" in entries else False
    if not isinstance(log, bool):
        raise entries["log"].place.error(f"log must be true or false, not {shown(log)}")
    step = _number(entries["step"]) if "step" in entries else None
    if low >= high:
        raise entries["high"].place.error(f"high {high:g} of {key} must be above low {low:g}")
    if log and low <= 0:
        raise entries["low"].place.error(f"low of {key} must be above 0 on a logarithmic scale")
    if log and step is not None:
        raise entries["step"].place.error(f"{key} cannot have both log and step")
    return Parameter(name, low=low, high=high, log=log, step=step, where=where)


def _choices(part: Part, name: str) -> tuple[Value, ...]:
    values = tuple(leaf.value for element in part.elements() for leaf in settings_of(element, name))
    if not values:
        raise part.place.error(f"{name} has no choices")
    if len(set(values)) < len(values):
        raise part.place.error(f"{name} lists a choice twice")
    return values


def _where(part: Part) -> dict[str, tuple[Value, ...]]:
    return {
        full_name_at(key, entry.place): tuple(entry.value if isinstance(entry.value, list) else [entry.value])
        for key, entry in part.items()
    }


def _sampler(part: Part | None) -> tuple[SamplerType, int]:
    if part is None:
        return "tpe", 0
    if not isinstance(part.value, dict):
        return _one_of(part, SamplerType), 0
    entries = dict(part.items(("type", "seed")))
    if "type" not in entries:
        raise part.place.error("the sampler has no type")
    seed = _number(entries["seed"], whole=True, low=0) if "seed" in entries else 0
    return _one_of(entries["type"], SamplerType), int(seed)


def _objective(part: Part) -> str:
    legal = ("same_task", "cross_task", *TASKS)
    if part.value in legal:
        return str(part.value)
    try:
        return task_name(str(part.value))
    except DataError as error:
        raise part.place.error(str(error)) from None
    except SpecError:
        raise part.place.error(f"unknown objective {shown(part.value)}: {nearest(str(part.value), legal)}") from None


def _objectives(part: Part) -> tuple[str, ...]:
    names: list[str] = []
    for element in part.elements():
        name = _objective(element)
        if name in names:
            raise element.place.error(f"objectives lists '{element.value}' twice")
        names.append(name)
    if not names:
        raise part.place.error("objectives is empty: name same_task, cross_task or a target")
    return tuple(names)


def _point(part: Part, space: Sequence[Parameter]) -> dict[str, Value]:
    point = {}
    for key, entry in part.items():
        [leaf] = settings_of(entry, full_name_at(key, entry.place))
        parameter = next((parameter for parameter in space if parameter.key == leaf.key), None)
        if parameter is None:
            raise entry.place.error(f"{key} is not in the space: {nearest(leaf.key, [p.key for p in space])}")
        inside = leaf.value in parameter.choices if parameter.choices else parameter.low <= leaf.value <= parameter.high
        if not inside:
            raise entry.place.error(f"{key} {shown(leaf.value)} lies outside the space")
        point[leaf.key] = leaf.value
    return point


def _word(part: Part) -> str:
    if not isinstance(part.value, str):
        raise part.place.error(f"{part.name} lists axes by name, not {shown(part.value)}")
    return part.value


def _one_of(part: Part, kind: Any) -> Any:
    legal = get_args(kind)
    if part.value not in legal:
        raise part.place.error(f"unknown {part.path[-1]} {shown(part.value)}: {nearest(str(part.value), legal)}")
    return part.value


def _number(part: Part, *, whole: bool = False, low: float | None = 1e-12) -> Any:
    value = part.value
    kind = int if whole else (int, float)
    is_number = isinstance(value, kind) and not isinstance(value, bool) and abs(value) <= _LARGEST
    if not is_number or (low is not None and value < low):
        what = "a whole number" if whole else "a number"
        bound = "" if low is None else " of at least 0" if low == 0 else " above 0"
        raise part.place.error(f"{part.name} must be {what}{bound}, not {shown(value)}")
    return value
