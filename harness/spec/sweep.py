"""A sweep: one question as a file, and the cells and runs that follow from it.

    name: quickstart                  # names its record and its group in W&B
    description: One sentence.
    base:                             # what every cell has; keys of a RunSpec, nested or with dots
      num_train: 400
      method: {num_steps: 100}        # the same as `method.num_steps: 100`, or short `num_steps: 100`
    axes:                             # crossed: a cell for every combination
      method: [base, sft, grpo, grpo_d]
      source: [counting, geometry]
      seed: [0, 1, 2]
      format_weight: [0, 0.5, 1]      # a value may be a mapping: schedule: [constant, {type: linear, beta_max: 0.1}]
    blocks:                           # in order, each for the cells that it selects; the later wins
      - where: {method: grpo}         # one value or a list under each key; all keys must hold
        axes: {beta: [0, 0.01, 0.04]} # joins the axes, or replaces the axis of that name
      - where: {method: [grpo, grpo_d], source: counting}
        set: {lr: 1e-4}
    targets: [counting, geometry]     # each run is evaluated on all of them
    evaluation: {num_examples: 200, every: 25, num_validation: 100}

`name`, `axes` and `targets` are required. A key without its dots stands for the only setting that ends in it: `lr` is
`method.lr`, `schedule` is `method.schedule` (a type, or a mapping), `beta` is `method.schedule.beta`.

Settings are merged leaf by leaf: base, axes, then each block's `set` and `axes`. A leaf takes effect where the cell's
method has it, else it is left out, and cells that are equal then become one: `base` has no source, data or seed, `sft`
no `format_weight`, `grpo` no schedule but `constant`, a `linear` schedule no `beta`. Shared settings may say more than
a cell has; a block may not name what no cell that it selects can have. `where` sees what takes effect after the blocks
above it, and the defaults of model, seed and precision, but no other setting that the file leaves to its default.

`--set KEY=VALUE` replaces a setting wherever the file has it, blocks too: a list makes or replaces an axis, anything
else removes the axis. It also takes `name`, `description`, `targets` and `evaluation.<key>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.spec.keys import effective, key_of, legal_types, sentence
from harness.spec.methods import Evaluation
from harness.spec.parts import Place, Setting
from harness.spec.run import RunSpec
from harness.spec.sweep_file import Choice, Layer, SweepFile, read_sweep

MAX_CELLS = 1_000_000
"""More than this is a slip of the keyboard, and would fill the memory before anyone saw a plan."""

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
    """

    settings: Mapping[str, Any]
    spec: RunSpec
    run_id: str
    targets: tuple[str, ...]


@dataclass(frozen=True)
class SweepRun:
    """One training, whichever cells ask for it, and the union of their targets."""

    run_id: str
    spec: RunSpec
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep file, expanded.

    Attributes:
        name: Of its record and of its W&B group.
        description: What it asks.
        path: The file, as given.
        targets: The tasks to evaluate on.
        evaluation: How much to evaluate.
        cells: Every distinct cell, in the order of the axes, the last one fastest.
        num_runs_naive: What the full cross product of every axis and the targets would train.
    """

    name: str
    description: str
    path: Path
    targets: tuple[str, ...]
    evaluation: Evaluation
    cells: tuple[Cell, ...]
    num_runs_naive: int

    @cached_property
    def runs(self) -> dict[str, SweepRun]:
        """The distinct trainings by run id, in the order of their first cells."""
        runs: dict[str, SweepRun] = {}
        for cell in self.cells:
            before = runs[cell.run_id].targets if cell.run_id in runs else ()
            targets = tuple(dict.fromkeys((*before, *cell.targets)))
            runs[cell.run_id] = SweepRun(cell.run_id, cell.spec, targets)
        return runs


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file and expands it.

    Args:
        path: The YAML file.
        overrides: ``"KEY=VALUE"`` of each `--set` option.

    Raises:
        SpecError: A setting that cannot be; the message names file and line, or the option.
        ModelError: A model folder that is none, or an installation without the embedded policy.
    """
    path = Path(path)
    file = read_sweep(path, overrides)
    naive = _num_combinations(file.layers) * len(file.targets)
    if naive > MAX_CELLS:
        raise file.place.error(f"the axes make {naive:,} cells, and {MAX_CELLS:,} is the most that a sweep may have")
    drafts = _crossed(file.layers, strict=not overrides)
    return Sweep(
        name=file.name,
        description=file.description,
        path=path,
        targets=file.targets,
        evaluation=file.evaluation,
        cells=_cells(drafts, file),
        num_runs_naive=naive,
    )


@dataclass(frozen=True)
class _Draft:
    """A cell in the making: every leaf that was set, and what was chosen on each axis."""

    leaves: Mapping[str, Setting]
    chosen: Mapping[str, Any]

    def values(self) -> dict[str, Any]:
        """The settings that take effect."""
        return effective({key: setting.value for key, setting in self.leaves.items()})


def _num_combinations(layers: Iterable[Layer]) -> int:
    values: dict[str, list[Any]] = {}
    for axis in (axis for layer in layers for axis in layer.axes):
        known = values.setdefault(axis.key, [])
        known += [choice.written for choice in axis.choices if choice.written not in known]
    return math.prod(len(known) for known in values.values())


def _crossed(layers: Sequence[Layer], *, strict: bool) -> list[_Draft]:
    """All layers applied in order; `strict` refuses a block that selects nothing."""
    drafts = [_Draft({}, {})]
    for layer in layers:
        selected = [_selects(layer, draft) for draft in drafts]
        if strict and not any(selected):
            raise layer.place.error("this block selects no cell: no combination of base and axes has what `where` asks")
        combinations = list(product(*(axis.choices for axis in layer.axes)))
        grown: list[_Draft] = []
        for draft, here in zip(drafts, selected, strict=True):
            grown += [_extended(draft, layer, choices) for choices in combinations] if here else [draft]
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
    return _Draft(leaves, chosen)


def _cells(drafts: Sequence[_Draft], file: SweepFile) -> tuple[Cell, ...]:
    """A cell per distinct combination of what takes effect; a spec is made and named once."""
    specs: dict[frozenset[tuple[str, Any]], tuple[RunSpec, str]] = {}
    cells: dict[tuple[str, str], Cell] = {}
    for draft in drafts:
        values = draft.values()
        identity = frozenset(values.items())
        if identity not in specs:
            spec = _spec(values, draft.leaves, file.place)
            specs[identity] = (spec, spec.run_id)
        spec, run_id = specs[identity]
        settings = {key: value for key, value in draft.chosen.items() if _takes_effect(key, value, values)}
        cells.setdefault((run_id, repr(settings)), Cell(settings, spec, run_id, file.targets))
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
