"""Reads a sweep file and the `--set` options of a command into layers of settings, each with its place.

The grammar stands in :mod:`harness.spec.sweep`. Nothing is crossed here: what is checked is what a file says, not what
follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from harness.errors import SpecError, UserError, nearest
from harness.spec.claims import Claim, read_claims
from harness.spec.data import task_name
from harness.spec.execution import Execution
from harness.spec.executor import ExecutorSettings
from harness.spec.keys import Value, can_have, full_name, legal_types, sentence, shown
from harness.spec.methods import METHOD_MODELS, Evaluation
from harness.spec.names import TASKS
from harness.spec.parts import Part, Place, Setting, full_name_at, settings_of
from harness.spec.study import Study, read_study
from harness.spec.yaml_places import parse_yaml, read_yaml

_MODELS: Mapping[str, type[BaseModel]] = {
    "evaluation": Evaluation,
    "execution": Execution,
    "executor": ExecutorSettings,
}
"""Sections of settings that belong to no cell."""
_SECTIONS = ("name", "description", "base", "axes", "blocks", "study", "targets", *_MODELS, "claims")
_REQUIRED = ("name", "axes", "targets")
_BLOCK = ("where", "set", "axes", "ablate")
_Section = TypeVar("_Section", bound=BaseModel)


@dataclass(frozen=True)
class Choice:
    """One value of an axis: as written, and the leaves that it sets (several for a mapping)."""

    written: Any
    settings: tuple[Setting, ...]

    @property
    def frozen(self) -> Any:
        """What is written, in a form that a set can hold."""
        return _frozen(self.written)


def _frozen(value: Any) -> Any:
    return frozenset((key, _frozen(item)) for key, item in value.items()) if isinstance(value, Mapping) else value


@dataclass(frozen=True)
class Axis:
    """The values that a setting takes."""

    key: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Layer:
    """Settings and axes for the cells that hold one of the `where` values under every `where` key.

    Those of an ablation are for copies of these cells; the cells stay as they are.
    """

    where: Mapping[str, tuple[Value, ...]]
    settings: tuple[Setting, ...]
    axes: tuple[Axis, ...]
    place: Place
    is_ablation: bool = False


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file says, with the command's options in it. The first layer holds `base` and `axes`.

    Sources and targets that are paths have the names of their data here; `data` has the paths by these names.
    """

    name: str
    description: str
    targets: tuple[str, ...]
    evaluation: Evaluation
    execution: Execution
    executor: ExecutorSettings
    study: Study | None
    claims: tuple[Claim, ...]
    layers: tuple[Layer, ...]
    place: Place
    data: Mapping[str, str]


def read_sweep(path: Path, overrides: Sequence[str] = ()) -> SweepFile:
    """Reads a sweep file; each `--set` option replaces what the file says about its key.

    Args:
        path: The file.
        overrides: Options as given, ``"KEY=VALUE"``; later ones win.

    Raises:
        SpecError: With file and line, or with the option.
    """
    document = read_yaml(path)
    root = Part(document, document.value)
    parts = dict(root.items(_SECTIONS))
    for key in _REQUIRED:
        if key not in parts and not (key == "axes" and "study" in parts):
            raise root.place.error(f"the sweep has no '{key}': {', '.join(_REQUIRED)} are required")
    empty = Part(document, None)
    first = _layer(parts.get("base", empty), parts.get("axes", empty), {}, root.place)
    blocks = parts.get("blocks", empty)
    layers = [first, *(_block(part) for part in (blocks.elements() if blocks.value is not None else []))]
    sections = {name: dict(parts.get(name, empty).items(tuple(_MODELS[name].model_fields))) for name in _MODELS}
    for option in overrides:
        layers = _override(option, layers, parts, sections)
    return SweepFile(
        name=_name(parts["name"]),
        description=_text(parts.get("description", Part(document, "", ("description",)))),
        targets=_targets(parts["targets"]),
        evaluation=_evaluation(sections["evaluation"], parts.get("study")),
        execution=_section(Execution, "execution", sections["execution"]),
        executor=_section(ExecutorSettings, "executor", sections["executor"]),
        study=read_study(parts["study"]) if "study" in parts else None,
        claims=read_claims(parts["claims"]) if "claims" in parts else (),
        layers=tuple(layers),
        place=root.place,
        data=_data(layers, parts["targets"]),
    )


def _name(part: Part) -> str:
    if not isinstance(part.value, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", part.value):
        message = f"name must be a word of up to 100 letters, digits, '.', '_' and '-', not {shown(part.value)}"
        raise part.place.error(message)
    return part.value


def _text(part: Part) -> str:
    if not isinstance(part.value, str):
        raise part.place.error(f"{part.name} must be text, not {shown(part.value)}")
    return part.value.strip()


def _targets(part: Part) -> tuple[str, ...]:
    if part.option is not None and not isinstance(part.value, list):
        part = replace(part, value=[part.value])
    targets: list[str] = []
    for element in part.elements():
        if not isinstance(element.value, str):
            raise element.place.error(f"unknown task {shown(element.value)} in targets: a task is a name or a path")
        name = _task(element)
        if name in targets:
            raise element.place.error(f"targets lists '{name}' twice")
        targets.append(name)
    if not targets:
        raise part.place.error(f"targets is empty: name at least one task of {', '.join(TASKS)}")
    return tuple(targets)


def _task(part: Part) -> str:
    try:
        return task_name(part.value)
    except UserError as error:
        message = str(error)
    in_targets = f"unknown task {shown(part.value)} in targets: {nearest(str(part.value), TASKS)}"
    raise part.place.error(in_targets if message.startswith("unknown task") else message)


def _data(layers: Sequence[Layer], targets: Part) -> dict[str, str]:
    """The paths of sources and targets that have one, by name."""
    leaves = [leaf for layer in layers for leaf in layer.settings]
    leaves += [leaf for layer in layers for axis in layer.axes for choice in axis.choices for leaf in choice.settings]
    paths = {str(leaf.value): leaf.data for leaf in leaves if leaf.data is not None}
    listed = targets.value if isinstance(targets.value, list) else [targets.value]
    return {**{task_name(path): path for path in listed if path not in TASKS}, **paths}


def _evaluation(parts: Mapping[str, Part], study: Part | None) -> Evaluation:
    """The section; a study looks at the validation split, and at no other unless it is told to."""
    if study is not None and "splits" not in parts:
        parts = {**parts, "splits": replace(study, value=["validation"])}
    evaluation = _section(Evaluation, "evaluation", parts)
    if study is not None and "validation" not in evaluation.splits:
        raise parts["splits"].place.error("a study is judged on validation examples: add validation to the splits")
    return evaluation


def _section(model: type[_Section], name: str, parts: Mapping[str, Part]) -> _Section:
    """A section of settings that belong to no cell."""
    for key, part in parts.items():
        if isinstance(part.value, bool) and model.model_fields[key].annotation is not bool:
            raise part.place.error(f"{name}.{key} must not be {shown(part.value)}")
    try:
        return model(**{key: part.value for key, part in parts.items()})
    except ValidationError as error:
        details = error.errors()[0]
        key = str(details["loc"][0]) if details["loc"] else next(iter(parts))
        raise parts[key].place.error(sentence(details, f"{name}.{key}")) from None


def _layer(base: Part, axes: Part, where: Mapping[str, tuple[Value, ...]], place: Place) -> Layer:
    settings = [setting for _, part in base.items() for setting in settings_of(part, str(part.path[-1]))]
    crossed = [axis for _, part in axes.items() for axis in _axes(part, str(part.path[-1]))]
    _once((setting.key, setting.place) for setting in settings)
    _once((axis.key, axis.choices[0].settings[0].place) for axis in crossed)
    return Layer(where, tuple(settings), tuple(crossed), place)


def _once(found: Iterable[tuple[str, Place]]) -> None:
    seen: set[str] = set()
    for key, place in found:
        if key in seen:
            raise place.error(f"{key} is set twice here, under two of its names")
        seen.add(key)


def _axes(part: Part, key: str) -> list[Axis]:
    name = full_name_at(key, part.place)
    if isinstance(part.value, Mapping):
        if name not in legal_types():
            raise part.place.error(f"the axis {name} must be a list of values, not a mapping")
        return [axis for word, entry in part.items() for axis in _axes(entry, f"{name}.{word}")]
    if not isinstance(part.value, list):
        message = f"the axis {name} must be a list of values, not {shown(part.value)}; a single value belongs in base"
        raise part.place.error(message)
    if not part.value:
        raise part.place.error(f"the axis {name} is empty: give it at least one value")
    choices: dict[Any, Choice] = {}
    for element in part.elements():
        settings = tuple(settings_of(element, name))
        written = settings[0].value if name == "source" else element.value
        choice = Choice(written, settings)
        if choice.frozen in choices:
            raise element.place.error(f"the axis {name} lists {shown(element.value)} twice")
        choices[choice.frozen] = choice
    return [Axis(name, tuple(choices.values()))]


def _block(part: Part) -> Layer:
    block = dict(part.items(_BLOCK))
    if "where" not in block or not (block.keys() & {"set", "axes", "ablate"}):
        raise part.place.error("a block has a `where`, and a `set`, `axes` or `ablate` for the cells that it selects")
    if "ablate" in block and block.keys() & {"set", "axes"}:
        raise part.place.error("a block has `ablate`, or `set` and `axes`: an ablation leaves its cells as they are")
    where = {}
    for key, condition in block["where"].items():
        name = full_name_at(key, condition.place)
        several = condition.elements() if isinstance(condition.value, list) else [condition]
        where[name] = tuple(leaf.value for one in several for leaf in settings_of(one, name) if leaf.key == name)
        if not where[name]:
            raise condition.place.error(f"where.{key} needs a value or a list of values")
    empty = Part(part.document, None)
    layer = _layer(block.get("set", empty), block.get("ablate", block.get("axes", empty)), where, part.place)
    layer = replace(layer, is_ablation="ablate" in block)
    leaves = [*layer.settings, *(leaf for axis in layer.axes for choice in axis.choices for leaf in choice.settings)]
    chosen = where | {key: tuple(leaf.value for leaf in leaves if leaf.key == key) for key in {x.key for x in leaves}}
    for leaf in leaves:
        if not can_have(leaf.key, chosen.get("method", tuple(METHOD_MODELS)), chosen, leaf.value):
            cells = " and ".join(f"{key} {' or '.join(map(shown, values))}" for key, values in where.items())
            raise leaf.place.error(f"no cell with {cells} can have {leaf.key} {shown(leaf.value)}")
    return layer


def _override(
    option: str, layers: list[Layer], parts: dict[str, Part], sections: Mapping[str, dict[str, Part]]
) -> list[Layer]:
    """The layers with one `--set` option in them; options about anything but settings go to `parts` or `sections`."""
    key, equals, text = option.partition("=")
    key = key.strip()
    outside = Place(None, None, option)
    if not equals or not key:
        raise outside.error("write KEY=VALUE")
    try:
        document = parse_yaml(text)
    except SpecError as error:
        raise outside.error(error.message) from None
    part = Part(document, document.value, (key,), option)
    if key in ("name", "description", "targets"):
        parts[key] = part
        return layers
    words = {f"{name}.{word}": (name, word) for name, model in _MODELS.items() for word in model.model_fields}
    if key in words:
        name, word = words[key]
        sections[name][word] = part
        return layers
    try:
        full_name(key)
    except ValueError as error:
        legal = ["name", "description", "targets", *words]
        hint = nearest(key, legal)
        raise outside.error(f"unknown setting '{key}': {hint}" if hint.startswith("did") else str(error)) from None
    if isinstance(part.value, list):
        return with_axis(layers, _axes(part, key)[0])
    return _with_settings(layers, tuple(settings_of(part, key)))


def axis_of(key: str, value: Value, place: Place) -> Axis:
    """An axis with a single value.

    Args:
        key: A full name.
        value: Of a scalar setting.
        place: What complaints are about.
    """
    return Axis(key, (Choice(value, (Setting(key, value, place),)),))


def with_axis(layers: list[Layer], axis: Axis) -> list[Layer]:
    """The axis in the place of the one it replaces, else after the last."""
    old = [other.key for other in layers[0].axes]
    first, *blocks = [_without(layer, {axis.key}, keep_axes=n == 0) for n, layer in enumerate(layers)]
    axes = [axis if other.key == axis.key else other for other in first.axes]
    return [replace(first, axes=tuple(axes if axis.key in old else [*axes, axis])), *blocks]


def _with_settings(layers: list[Layer], settings: tuple[Setting, ...]) -> list[Layer]:
    keys = {setting.key for setting in settings}
    first, *blocks = [_without(layer, keys) for layer in layers]
    return [replace(first, settings=(*first.settings, *settings)), *blocks]


def _without(layer: Layer, keys: set[str], *, keep_axes: bool = False) -> Layer:
    """A layer that says nothing about some keys, in its axes' mappings neither."""
    axes = []
    for axis in layer.axes:
        if keep_axes and axis.key in keys:
            axes.append(axis)
            continue
        left = [replace(c, settings=tuple(leaf for leaf in c.settings if leaf.key not in keys)) for c in axis.choices]
        if axis.key not in keys and any(choice.settings for choice in left):
            axes.append(replace(axis, choices=tuple(left)))
    kept = tuple(setting for setting in layer.settings if setting.key not in keys)
    return replace(layer, settings=kept, axes=tuple(axes))
