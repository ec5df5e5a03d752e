"""From layers of settings to cells: every combination of the axes, each with the run that it asks for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any, NamedTuple

from pydantic import ValidationError

from harness.errors import ModelError
from harness.spec.keys import effective, key_of, legal_types, sentence
from harness.spec.parts import Place, Setting
from harness.spec.run import NUM_SEEDS, AnySeed, RunSpec, model_identity
from harness.spec.sweep_file import Choice, Layer

MAX_CELLS = 100_000
"""More than this is a slip of the keyboard, and would take long and fill the memory before anyone saw a plan."""

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
        SpecError: A setting that cannot be, a model folder that is none, an installation without the embedded policy,
            or more than :data:`MAX_CELLS` cells.
    """
    return _cells(_crossed(layers, strict=strict), targets, place)


class _Draft(NamedTuple):
    """A cell in the making: every leaf that was set, what was chosen on each axis, and the axes that it ablates."""

    leaves: Mapping[str, Setting]
    chosen: Mapping[str, Any]
    ablated: tuple[str, ...] = ()


_Values = frozenset[tuple[str, Any]]
"""Settings and their values."""


class _Effective:
    """Which settings take effect, looked up once for all cells that differ in their seed alone."""

    def __init__(self) -> None:
        self._known: dict[tuple[bool, _Values], tuple[tuple[str, ...], _Values]] = {}

    def of(self, draft: _Draft, defaults: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], _Values]:
        """The settings that take effect in a cell, in the order in which they were set; and those without the seed."""
        values = {key: setting.value for key, setting in draft.leaves.items()}
        if defaults:
            values = {**defaults, **values}
        rest = values.copy()
        alike = (rest.pop("seed", None) is not None, frozenset(rest.items()))
        if alike not in self._known:
            keys = tuple(effective(values))
            self._known[alike] = keys, frozenset((key, values[key]) for key in keys if key != "seed")
        keys, others = self._known[alike]
        return {key: values[key] for key in keys}, others


def num_combinations(layers: Iterable[Layer]) -> int:
    """What the full cross product of every axis would have, and that of each ablation with it."""
    layers = list(layers)
    values: dict[str, set[Any]] = {}
    for axis in (axis for layer in layers if not layer.is_ablation for axis in layer.axes):
        values.setdefault(axis.key, set()).update(choice.frozen for choice in axis.choices)
    ablations = [layer.axes for layer in layers if layer.is_ablation and layer.axes]
    ablated = [math.prod(len(axis.choices) for axis in axes) for axes in ablations]
    return math.prod(len(known) for known in values.values()) * (1 + sum(ablated))


def _crossed(layers: Sequence[Layer], *, strict: bool) -> list[_Draft]:
    """All layers applied in order; `strict` refuses a block that selects nothing."""
    drafts = [_Draft({}, {})]
    takes_effect = _Effective()
    for layer in layers:
        selected = [_selects(layer, draft, takes_effect) for draft in drafts]
        if layer.is_ablation:
            selected = [here and not draft.ablated for here, draft in zip(selected, drafts, strict=True)]
        if strict and not any(selected):
            raise layer.place.error("this block selects no cell: no combination of base and axes has what `where` asks")
        num_chosen = math.prod(len(axis.choices) for axis in layer.axes)
        refuse_above_most(sum(selected) * num_chosen + (len(drafts) if layer.is_ablation else 0), layer.place)
        combinations = list(product(*(axis.choices for axis in layer.axes)))
        grown = list(drafts) if layer.is_ablation else []
        for draft, here in zip(drafts, selected, strict=True):
            if here:
                grown += [_extended(draft, layer, choices) for choices in combinations]
            elif not layer.is_ablation:
                grown.append(draft)
        drafts = grown
    return drafts


def refuse_above_most(num_cells: int, place: Place) -> None:
    """Does nothing up to :data:`MAX_CELLS` cells.

    Raises:
        SpecError: There would be more.
    """
    if num_cells > MAX_CELLS:
        number = f"{num_cells:,}" if num_cells < 10**15 else f"about 10^{len(str(num_cells)) - 1}"
        raise place.error(f"the axes make {number} cells, and {MAX_CELLS:,} is the most that a sweep may have")


def _selects(layer: Layer, draft: _Draft, takes_effect: _Effective) -> bool:
    if not layer.where:
        return True
    values, _ = takes_effect.of(draft, _DEFAULTS)
    return all(key in values and values[key] in wanted for key, wanted in layer.where.items())


def _extended(draft: _Draft, layer: Layer, choices: Sequence[Choice]) -> _Draft:
    leaves, chosen = dict(draft.leaves), dict(draft.chosen)
    for setting in layer.settings:
        leaves[setting.key] = setting
        if setting.key in chosen:
            chosen[setting.key] = setting.value
    for axis, choice in zip(layer.axes, choices, strict=True):
        for setting in choice.settings:
            leaves[setting.key] = setting
        chosen[axis.key] = choice.written
    return _Draft(leaves, chosen, tuple(axis.key for axis in layer.axes) if layer.is_ablation else draft.ablated)


def _cells(drafts: Sequence[_Draft], targets: tuple[str, ...], place: Place) -> tuple[Cell, ...]:
    """A cell per distinct combination of what takes effect; cells that differ in their seed alone are checked once."""
    trainings: dict[_Values, AnySeed] = {}
    specs: dict[tuple[AnySeed, Any], tuple[RunSpec, str]] = {}
    cells: list[Cell] = []
    of_run: dict[str, list[Cell]] = {}
    takes_effect, identify = _Effective(), cache(model_identity)
    for draft in drafts:
        values, alike = takes_effect.of(draft)
        seed: Any = values.get("seed")
        if alike not in trainings or not _is_seed(seed):
            spec = _spec(values, draft.leaves, place)
            try:
                training = trainings.setdefault(alike, AnySeed(spec, identify))
            except ModelError as error:
                raise (draft.leaves["model"].place if "model" in draft.leaves else place).error(str(error)) from None
            specs[training, seed] = spec, training.run_id(spec.seed)
        training = trainings[alike]
        if (training, seed) not in specs:
            specs[training, seed] = training.spec(seed), training.run_id(seed)
        spec, run_id = specs[training, seed]
        settings = {
            key: value
            for key, value in draft.chosen.items()
            if (_takes_effect(key, value, values) if isinstance(value, dict) else key in values)
        }
        # What a method does not have cannot be ablated in it.
        ablated = [key.rpartition(".")[2] for key in draft.ablated if key in settings]
        ablation = " x ".join(ablated) or None
        others = of_run.setdefault(run_id, [])
        if not any(cell.settings == settings and cell.ablation == ablation for cell in others):
            others.append(Cell(settings, spec, run_id, targets, ablation))
            cells.append(others[-1])
    return tuple(cells)


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < NUM_SEEDS


def _takes_effect(axis: str, written: Any, values: Mapping[str, Any]) -> bool:
    if isinstance(written, dict):
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
