"""Which runs of a sweep a claim compares: at each source and target, the sides and their run of each seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import nearest
from harness.spec.claims import Claim, Condition
from harness.spec.keys import Value, shown

if TYPE_CHECKING:
    from harness.spec.expand import Cell
    from harness.spec.run import RunSpec

MIN_VALUES = 3
"""An interior maximum lies between two ends."""


@dataclass(frozen=True)
class Side:
    """What stands on one side of a comparison.

    Attributes:
        settings: What tells it from the other sides, by full name.
        runs: The run id by seed; by None for `base`, which has no seed.
    """

    settings: Mapping[str, Any]
    runs: Mapping[int | None, str]

    @property
    def has_seeds(self) -> bool:
        """Whether its runs differ by their seed; `base` is one policy."""
        return None not in self.runs


@dataclass(frozen=True)
class Contest:
    """A claim at one source and target.

    Attributes:
        source: The task trained on.
        target: The task evaluated on.
        sides: The one that should be better, then the other; for an interior maximum one for each value, ascending.
    """

    source: str
    target: str
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class _Run:
    run_id: str
    source: str | None
    seed: int | None
    settings: Mapping[str, Value]
    targets: tuple[str, ...]


def contests(claims: Iterable[Claim], cells: Iterable[Cell]) -> list[tuple[Claim, tuple[Contest, ...]]]:
    """Every claim with its places, in the order of the file and of the cells.

    Args:
        claims: Of the sweep.
        cells: Of the sweep.

    Raises:
        SpecError: A claim asks for what no cell has, or leaves open which run of a seed it means.
    """
    claims = tuple(claims)
    runs = list({cell.run_id: _run(cell) for cell in cells}.values()) if claims else []
    return [(claim, tuple(_contests(claim, runs))) for claim in claims]


def settings_of_run(spec: RunSpec) -> dict[str, Value]:
    """Every setting of a run by its full name, defaults too; what it lacks is absent, as the seed of `base` is."""
    settings = dict(_flat(spec.model_dump(mode="json"), ""))
    if spec.source is None:
        for key in ("seed", "num_train"):
            del settings[key]
    return settings


def _flat(record: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for key, value in record.items():
        if isinstance(value, Mapping):
            yield prefix + key, value["type"]
            yield from _flat({name: item for name, item in value.items() if name != "type"}, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value


def _run(cell: Cell) -> _Run:
    settings = settings_of_run(cell.spec)
    return _Run(cell.run_id, cell.spec.source, settings.get("seed"), settings, tuple(cell.targets))


def _contests(claim: Claim, runs: Sequence[_Run]) -> list[Contest]:
    narrowed = runs
    for condition in claim.where:
        _known(condition, runs)
        if condition.key != "target":
            narrowed = [
                run for run in narrowed if run.settings.get(condition.key, condition.values[0]) in condition.values
            ]
    pools = _pools_by_value(claim, narrowed) if claim.over is not None else _pools_by_side(claim, runs, narrowed)
    found = []
    for source, target in _places(claim, [run for _, pool in pools for run in pool]):
        here = [(settings, _by_seed(claim, settings, pool, source)) for settings, pool in pools]
        sides = tuple(Side(settings, by_seed) for settings, by_seed in here if by_seed)
        if claim.over is not None and len(sides) < MIN_VALUES:
            values = ", ".join(shown(side.settings[claim.over]) for side in sides)
            raise claim.place.error(
                f"claim '{claim.name}': an interior maximum needs at least {MIN_VALUES} values of {claim.over}, "
                f"and for {source} -> {target} the sweep has {values}"
            )
        if claim.over is None and (len(sides) < 2 or not any(side.has_seeds for side in sides)):
            continue
        if len({run_id for side in sides for run_id in side.runs.values()}) < sum(len(side.runs) for side in sides):
            raise claim.place.error(f"claim '{claim.name}': better and than select the same run for source {source}")
        found.append(Contest(source, target, sides))
    if not found:
        what = "a run with a number under it" if claim.over is not None else "runs on both sides"
        raise claim.place.error(f"claim '{claim.name}': no source and target on {claim.on} has {what}")
    return found


def _known(condition: Condition, runs: Iterable[_Run]) -> None:
    """Refuses a value that no run has."""
    if condition.key == "target":
        values = list(dict.fromkeys(target for run in runs for target in run.targets))
    else:
        values = list(dict.fromkeys(run.settings[condition.key] for run in runs if condition.key in run.settings))
    for value in condition.values:
        if value not in values:
            hint = nearest(str(value), map(str, values)) if values else "no cell has that setting"
            raise condition.place.error(f"no cell of the sweep has {condition.key} {shown(value)}: {hint}")


def _pools_by_side(
    claim: Claim, runs: Sequence[_Run], narrowed: Sequence[_Run]
) -> list[tuple[dict[str, Any], list[_Run]]]:
    pools = []
    for conditions in (claim.better, claim.than):
        for condition in conditions:
            _known(condition, runs)
        pool = [
            run
            for run in narrowed
            if all(
                condition.key in run.settings and run.settings[condition.key] in condition.values
                for condition in conditions
            )
        ]
        settings = {c.key: c.values[0] if len(c.values) == 1 else list(c.values) for c in conditions}
        pools.append((settings, pool))
    return pools


def _pools_by_value(claim: Claim, narrowed: Sequence[_Run]) -> list[tuple[dict[str, Any], list[_Run]]]:
    assert claim.over is not None
    pools: dict[float, list[_Run]] = {}
    for run in narrowed:
        value = run.settings.get(claim.over)
        if isinstance(value, str):
            raise claim.place.error(
                f"claim '{claim.name}': {claim.over} is no number, so nothing lies between its ends"
            )
        if value is not None and run.source is not None:
            pools.setdefault(value, []).append(run)
    return [({claim.over: value}, pools[value]) for value in sorted(pools)]


def _places(claim: Claim, runs: Iterable[_Run]) -> list[tuple[str, str]]:
    """The sources and targets of the claim's table that the selected runs have."""
    wanted = next((condition.values for condition in claim.where if condition.key == "target"), None)
    return list(
        dict.fromkeys(
            (run.source, target)
            for run in runs
            if run.source is not None
            for target in run.targets
            if (run.source == target) == (claim.on == "same_task") and (wanted is None or target in wanted)
        )
    )


def _by_seed(claim: Claim, settings: Mapping[str, Any], pool: Iterable[_Run], source: str) -> dict[int | None, str]:
    """A side's run of each seed; `base` stands for every source."""
    by_seed: dict[int | None, _Run] = {}
    for run in pool:
        if run.source not in (None, source):
            continue
        # `base` beside a run with a seed is two runs for that seed.
        other = by_seed.get(run.seed) or by_seed.get(None)
        if other is None and run.seed is None:
            other = next(iter(by_seed.values()), None)
        if other is not None:
            keys = [
                key
                for key in run.settings.keys() | other.settings.keys()
                if run.settings.get(key) != other.settings.get(key)
            ]
            side = " and ".join(f"{key} {shown(value)}" for key, value in settings.items())
            raise claim.place.error(
                f"claim '{claim.name}': {side} has several runs of one seed for source {source}, which differ in "
                f"{', '.join(sorted(keys))}: say which one is meant"
            )
        by_seed[run.seed] = run
    return {seed: run.run_id for seed, run in by_seed.items()}
