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
      - where: {method: grpo, source: counting, seed: [0, 1]}
        ablate: {clip_epsilon: [0.1, 0.2]}    # copies of these cells, a value each; a table and a figure of their own
    targets: [counting, geometry]     # each run is evaluated on all of them; see harness.spec.data for one's own data
    evaluation: {num_examples: 200, every: 25, num_validation: 100}
    execution: {gradient_checkpointing: true, micro_batch_tokens: 16384}
    executor: {type: slurm, partition: gpu, time_min: 240}
    claims:                           # what `harness claims` judges; see harness.spec.claims
      - {name: over_sft, says: GRPO-D beats SFT, better: {method: grpo_d}, than: {method: sft}, on: same_task}

`name`, `axes` and `targets` are required. A key without its dots stands for the only setting that ends in it: `lr` is
`method.lr`, `schedule` is `method.schedule` (a type, or a mapping), `beta` is `method.schedule.beta`.

Settings are merged leaf by leaf: base, axes, then each block's `set` and `axes`. A leaf takes effect where the cell's
method has it, else it is left out, and cells that are equal then become one: `base` has no source, data or seed, `sft`
no `format_weight`, `grpo` no schedule but `constant`, a `linear` schedule no `beta`. Shared settings may say more than
a cell has; a block may not name what no cell that it selects can have. `where` sees what takes effect after the blocks
above it, and the defaults of model, seed and precision, but no other setting that the file leaves to its default.
`ablate` leaves the cells that it selects as they are and copies them for each value; it copies no cell of another
ablation, while `set` and `axes` of later blocks hold for copies too.

`--set KEY=VALUE` replaces a setting wherever the file has it, blocks too: a list makes or replaces an axis, anything
else removes the axis. It also takes `name`, `description`, `targets`, `evaluation.<key>`, `execution.<key>` and
`executor.<key>`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.spec.claims import Claim
from harness.spec.contests import contests
from harness.spec.execution import Execution
from harness.spec.executor import ExecutorSettings
from harness.spec.expand import Cell, expand, num_combinations, refuse_above_most
from harness.spec.keys import Value
from harness.spec.methods import Evaluation
from harness.spec.parts import Place
from harness.spec.run import RunSpec
from harness.spec.study import Point, Study
from harness.spec.sweep_file import Layer, axis_of, read_sweep, with_axis


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
        execution: On what its runs run.
        executor: Where their workers run.
        data: Where the rows lie of sources and targets that are no tasks of the package: name -> path.
        cells: Every distinct cell, in the order of the axes, the last one fastest. Of a study: those that its space
            leaves alone, then those of its trials, as far as they are known (of a grid, all of them).
        num_runs_naive: What the full cross product of every axis and the targets would train.
        study: What is searched, where the file asks for that.
        claims: What the answers are asked to show.
        layers: The settings that the cells were made from.
        place: Where the sweep stands.
    """

    name: str
    description: str
    path: Path
    targets: tuple[str, ...]
    evaluation: Evaluation
    execution: Execution
    executor: ExecutorSettings
    cells: tuple[Cell, ...]
    num_runs_naive: int
    data: Mapping[str, str] = field(default_factory=dict)
    study: Study | None = None
    claims: tuple[Claim, ...] = ()
    layers: tuple[Layer, ...] = field(default=(), repr=False, compare=False)
    place: Place = field(default=Place(None, None), repr=False, compare=False)

    @cached_property
    def runs(self) -> dict[str, SweepRun]:
        """The distinct trainings by run id, in the order of their first cells."""
        runs: dict[str, SweepRun] = {}
        for cell in self.cells:
            before = runs[cell.run_id].targets if cell.run_id in runs else ()
            targets = tuple(dict.fromkeys((*before, *cell.targets)))
            runs[cell.run_id] = SweepRun(cell.run_id, cell.spec, targets)
        return runs

    @cached_property
    def searches(self) -> list[dict[str, Value]]:
        """The combinations of the study's `per` that have something to search; one empty one without `per`."""
        assert self.study is not None
        cells = self._at(self.probe)
        found = (tuple(setting_of(cell.spec, key) for key in self.study.per) for cell in cells)
        return [dict(zip(self.study.per, values, strict=True)) for values in dict.fromkeys(found)]

    def trial(self, combination: Mapping[str, Value], point: Point) -> tuple[Cell, ...]:
        """The cells of a trial: those of a combination in which the point takes effect.

        Args:
            combination: One of :attr:`searches`.
            point: Values by full name.

        Raises:
            SpecError: The point makes a setting that cannot be.
        """
        cells = self._at(point)
        return tuple(
            cell for cell in cells if all(setting_of(cell.spec, key) == value for key, value in combination.items())
        )

    def with_trials(self, trials: Iterable[tuple[Mapping[str, Value], Point]]) -> Sweep:
        """The sweep with the cells of these trials in the place of those it had."""
        assert self.study is not None
        known = [*self._at(self.probe, touched=False), *(cell for trial in trials for cell in self.trial(*trial))]
        return replace(self, cells=tuple({(c.run_id, repr(c.settings), c.ablation): c for c in known}.values()))

    def _at(self, point: Point, *, touched: bool = True) -> list[Cell]:
        """The sweep's cells at a point, those with a setting of it or those without any."""
        layers = list(self.layers)
        for key, value in point.items():
            layers = with_axis(layers, axis_of(key, value, self.place))
        cells = expand(layers, self.targets, self.place, strict=False)
        return [cell for cell in cells if any(key in cell.settings for key in point) == touched]

    @property
    def probe(self) -> dict[str, Value]:
        """Any point: where a setting can take effect does not depend on its value."""
        assert self.study is not None
        return {parameter.key: (parameter.choices or (parameter.low,))[0] for parameter in self.study.space}


def load_sweep(path: Path | str, overrides: Sequence[str] = ()) -> Sweep:
    """Reads a sweep file and expands it.

    Args:
        path: The YAML file.
        overrides: ``"KEY=VALUE"`` of each `--set` option.

    Raises:
        SpecError: A setting that cannot be, a model folder that is none, an installation without the embedded policy,
            or too many cells; the message names file and line, or the option.
    """
    path = Path(path)
    file = read_sweep(path, overrides)
    naive = num_combinations(file.layers) * len(file.targets)
    cells = expand(file.layers, file.targets, file.place, strict=not overrides)
    sweep = Sweep(
        name=file.name,
        description=file.description,
        path=path,
        targets=file.targets,
        evaluation=file.evaluation,
        execution=file.execution,
        executor=file.executor,
        cells=cells,
        num_runs_naive=naive,
        data=file.data,
        study=file.study,
        claims=file.claims,
        layers=file.layers,
        place=file.place,
    )
    if file.study is None:
        return sweep if overrides else _with_sound_claims(sweep)
    if not sweep.searches:
        names = ", ".join(parameter.key for parameter in file.study.space)
        raise file.place.error(f"no cell of the sweep has a setting of the study's space: {names}")
    grid = file.study.sampler == "grid"
    if grid:
        # Every point crosses the axes again.
        refuse_above_most(file.study.num_points * len(sweep.searches) * len(cells), file.place)
    points = [(found, point) for found in sweep.searches for point in (file.study.grid(found) if grid else ())]
    sweep = replace(sweep.with_trials(points), num_runs_naive=naive * max(len(points) // len(sweep.searches), 1))
    return _with_sound_claims(sweep) if grid and not overrides else sweep


def _with_sound_claims(sweep: Sweep) -> Sweep:
    """The sweep, when every claim finds its runs; options may take them away, and a search may not have them yet."""
    contests(sweep.claims, sweep.cells)
    return sweep


def setting_of(spec: RunSpec, key: str) -> Value:
    """A setting of a run by its full name; None where the run has no such setting."""
    value: Any = spec.model_dump(mode="json")
    for word in key.split("."):
        value = value.get(word) if isinstance(value, dict) else None
    return value["type"] if isinstance(value, dict) else value
