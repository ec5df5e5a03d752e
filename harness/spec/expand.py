"""From layers of settings to cells: every combination of the axes, each with the run that it asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from harness.spec.keys import effective, key_of, legal_types, sentence
from harness.spec.parts import Place, Setting
from harness.spec.run import RunSpec
from harness.spec.sweep_file import Choice, Layer

_DEFAULTS = {key: RunSpec.model_fields[key].default for key in ("model", "seed", "precision")}
"""What `where` knows of a cell beyond what the file sets."""


@dataclass(frozen=True)
class Cell:
    """One combination of a sweep's axes.

    Attributes:
        settings: The axes' full names and this cell's values as written; only those that take effect.
        spec: What it trains.
        run_id: The spec's.
        targets: Where it is evaluated.
        ablation: The short names of the settings that it ablates; None for a cell of the sweep's main comparison.
    """

    settings: Mapping[str, Any]
    spec: RunSpec
    run_id: str
    targets: tuple[str, ...]
    ablation: str | None = None


def expand(layers: Sequence[Layer], targets: tuple[str, ...], place: Place, *, strict: bool) -> tuple[Cell, ...]:
    """The distinct cells of some layers, in the order of the axes, the last one fastest.

    Args:
        layers: In order; the later wins.
        targets: Where every cell is evaluated.
        place: Where the sweep stands, for what is wrong with it as a whole.
        strict: Whether a block that selects no cell is an error.

    Raises:
        SpecError: A setting that cannot be.
        ModelError: A model folder that is none, or an installation without the embedded policy.
    """
    return _cells(_crossed(layers, strict=strict), targets, place)


@dataclass(frozen=True)
class _Draft:
    """A cell in the making: every leaf that was set, what was chosen on each axis, and the axes that it ablates."""

    leaves: Mapping[str, Setting]
    chosen: Mapping[str, Any]
    ablated: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """The settings that take effect."""
        return effective({key: setting.value for key, setting in self.leaves.items()})


def num_combinations(layers: Iterable[Layer]) -> int:
    """What the full cross product of every axis would have, and that of each ablation with it."""
    layers = list(layers)
    values: dict[str, list[Any]] = {}
    for axis in (axis for layer in layers if not layer.is_ablation for axis in layer.axes):
        known = values.setdefault(axis.key, [])
        known += [choice.written for choice in axis.choices if choice.written not in known]
    ablations = [layer.axes for layer in layers if layer.is_ablation and layer.axes]
    ablated = [math.prod(len(axis.choices) for axis in axes) for axes in ablations]
    return math.prod(len(known) for known in values.values()) * (1 + sum(ablated))


def _crossed(layers: Sequence[Layer], *, strict: bool) -> list[_Draft]:
    """All layers applied in order; `strict` refuses a block that selects nothing."""
    drafts = [_Draft({}, {})]
    for layer in layers:
        selected = [_selects(layer, draft) for draft in drafts]
        if layer.is_ablation:
            selected = [here and not draft.ablated for here, draft in zip(selected, drafts, strict=True)]
        if strict and not any(selected):
            raise layer.place.error("this block selects no cell: no combination of base and axes has what `where` asks")
        combinations = list(product(*(axis.choices for axis in layer.axes)))
        grown = list(drafts) if layer.is_ablation else []
        for draft, here in zip(drafts, selected, strict=True):
            if here:
                grown += [_extended(draft, layer, choices) for choices in combinations]
            elif not layer.is_ablation:
                grown.append(draft)
        drafts = grown
    return drafts


def _selects(layer: Layer, draft: _Draft) -> bool:
    if not layer.where:
        return True
    values = effective(_DEFAULTS | {key: setting.value for key, setting in draft.leaves.items()})
    return all(key in values and values[key] in wanted for key, wanted in layer.where.items())


def _extended(draft: _Draft, layer: Layer, choices: Sequence[Choice]) -> _Draft:
    leaves = {**draft.leaves, **{setting.key: setting for setting in layer.settings}}
    chosen = dict(draft.chosen)
    chosen |= {setting.key: setting.value for setting in layer.settings if setting.key in chosen}
    for axis, choice in zip(layer.axes, choices, strict=True):
        leaves |= {setting.key: setting for setting in choice.settings}
        chosen[axis.key] = choice.written
    return _Draft(leaves, chosen, tuple(axis.key for axis in layer.axes) if layer.is_ablation else draft.ablated)


def _cells(drafts: Sequence[_Draft], targets: tuple[str, ...], place: Place) -> tuple[Cell, ...]:
    """A cell per distinct combination of what takes effect; a spec is made and named once."""
    specs: dict[frozenset[tuple[str, Any]], tuple[RunSpec, str]] = {}
    cells: dict[tuple[str, str, str | None], Cell] = {}
    for draft in drafts:
        values = draft.values()
        identity = frozenset(values.items())
        if identity not in specs:
            spec = _spec(values, draft.leaves, place)
            specs[identity] = (spec, spec.run_id)
        spec, run_id = specs[identity]
        settings = {key: value for key, value in draft.chosen.items() if _takes_effect(key, value, values)}
        # What a method does not have cannot be ablated in it.
        ablated = [key.rpartition(".")[2] for key in draft.ablated if key in settings]
        ablation = " x ".join(ablated) or None
        cells.setdefault((run_id, repr(settings), ablation), Cell(settings, spec, run_id, targets, ablation))
    return tuple(cells.values())


def _takes_effect(axis: str, written: Any, values: Mapping[str, Any]) -> bool:
    if isinstance(written, Mapping):
        return any(_takes_effect(axis if key == "type" else f"{axis}.{key}", written[key], values) for key in written)
    return axis in values


def _spec(values: Mapping[str, Any], leaves: Mapping[str, Setting], whole: Place) -> RunSpec:
    if "method" not in values:
        raise whole.error("the sweep has no method: add `method` to base or to axes")
    data: dict[str, Any] = {}
    for key, value in values.items():
        *around, last = f"{key}.type".split(".") if key in legal_types() else key.split(".")
        inner = data
        for word in around:
            inner = inner.setdefault(word, {})
        inner[last] = value
    try:
        return RunSpec.model_validate(data)
    except ValidationError as error:
        details = error.errors()[0]
    key = key_of(details["loc"])
    raise _place(key, details["msg"], {name: leaves[name] for name in values}, whole).error(sentence(details, key))


def _place(key: str, message: str, leaves: Mapping[str, Setting], whole: Place) -> Place:
    """Where the setting stands that a complaint is about; one about several names them."""
    if key in leaves and key != "method":
        return leaves[key].place
    words = message.split()
    named = [leaf for leaf in leaves.values() if leaf.key.startswith(key) and leaf.key.rpartition(".")[2] in words]
    return named[-1].place if named else leaves["method"].place if "method" in leaves else whole
