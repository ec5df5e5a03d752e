"""What a sweep varies, one setting at a time: the values of a setting with everything else held still."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.report.collect import Asked, AskedCell
from harness.report.figures.data import flat_settings, short_name, shown

GRPO_LABEL = "constant (grpo)"
"""Of the point that GRPO makes among the schedules of GRPO-D."""

_Cell = tuple[AskedCell, dict[str, Any]]
"""A cell with its settings, leaf by leaf."""


@dataclass(frozen=True)
class Point:
    """One value of a setting.

    Attributes:
        value: The setting's.
        label: The value, with what comes along with it where that varies: ``"othink (explore_frac=0.3)"``.
        settings: Everything that varies, with this value in it.
        run_ids: The runs with this value, one per seed.
    """

    value: Any
    label: str
    settings: Mapping[str, Any]
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class Ablation:
    """A setting's values for one method and source, everything else equal.

    Attributes:
        setting: Its full name, such as ``"method.schedule.beta"``.
        method: The method's type.
        source: The task trained on.
        fixed: The other settings that the sweep varies within the method, at the values that all points share.
        targets: The tasks evaluated on, the source first.
        points: Numbers in their order, anything else in the sweep's.
        ordered: Whether the values are numbers.
    """

    setting: str
    method: str
    source: str
    fixed: Mapping[str, Any]
    targets: tuple[str, ...]
    points: tuple[Point, ...]
    ordered: bool


def ablations(asked: Asked, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Ablation]]:
    """The settings that a sweep varies within a method, each with its ablations.

    A setting that belongs to a value of another one (`explore_frac` to the schedule `othink`) is not held still when
    that one varies: it comes along as part of the value, for no other schedule has it. A cell that is silent on a
    setting has it all the same, at the value of its spec. GRPO is the constant schedule where GRPO-D has none. What a
    sweep calls an ablation is looked at apart from its other cells.

    Args:
        asked: The sweep's cells.
        specs: The resolved spec of runs that were started; without it a setting that is not written is not known.

    Returns:
        By the setting's full name, in the order of the sweep. Every ablation has two values or more.
    """
    by_method: dict[tuple[str | None, str], list[_Cell]] = {}
    for cell, settings in _resolved(asked, specs):
        by_method.setdefault((cell.ablation, cell.method), []).append((cell, settings))
    found: dict[str, list[Ablation]] = {}
    for (ablation, _), cells in by_method.items():
        varying = _varying([settings for _, settings in cells])
        keys = [key for key in dict.fromkeys(key for _, settings in cells for key in settings) if key in varying]
        of_method = {key: _of_setting(key, cells, varying) for key in keys}
        for key, made in of_method.items():
            below = any(of_method[other] for other in keys if other.startswith(f"{key}."))
            # Values that differ only in what comes along are an ablation of that, where it is one.
            kept = [one for one in made if len({_key(point.value) for point in one.points}) > 1 or not below]
            if kept:
                grpo = by_method.get((ablation, "grpo"), [])
                found.setdefault(key, []).extend(_with_constant(one, grpo) for one in kept)
    return found


def _resolved(asked: Asked, specs: Mapping[str, Mapping[str, Any]]) -> list[_Cell]:
    """The cells that train, with the values of their spec where they are silent on what others of the method say."""
    cells = [(cell, flat_settings(cell)) for cell in asked.cells if cell.source is not None]
    written: dict[tuple[str | None, str], dict[str, None]] = {}
    # Seeds differ in nothing else, so one that was started speaks for those that were not.
    spec_of: dict[str, Mapping[str, Any]] = {}
    for cell, settings in cells:
        written.setdefault((cell.ablation, cell.method), {}).update(dict.fromkeys(settings))
        if cell.run_id in specs:
            spec_of.setdefault(_key([cell.method, cell.source, settings]), specs[cell.run_id])
    resolved = []
    for cell, settings in cells:
        spec = spec_of.get(_key([cell.method, cell.source, settings]), {})
        silent = {key: _leaf(spec, key) for key in written[cell.ablation, cell.method] if key not in settings}
        resolved.append((cell, settings | {key: value for key, value in silent.items() if value is not None}))
    return resolved


def _leaf(spec: Mapping[str, Any], key: str) -> Any:
    """A spec's value under a setting's full name, the type for a mapping; None where it has none."""
    value: Any = spec
    for word in key.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value.get("type") if isinstance(value, Mapping) else value


def _with_constant(ablation: Ablation, grpo: Sequence[_Cell]) -> Ablation:
    """An ablation over schedules with GRPO as the constant one, where the sweep has one GRPO that fits it."""
    if ablation.setting != "method.schedule" or any(point.value == "constant" for point in ablation.points):
        return ablation
    fitting = [
        (cell, settings)
        for cell, settings in grpo
        if cell.source == ablation.source
        and all(settings[key] == value for key, value in ablation.fixed.items() if key in settings)
    ]
    if len({_key(settings) for _, settings in fitting}) != 1:
        return ablation
    run_ids = tuple(dict.fromkeys(cell.run_id for cell, _ in fitting))
    point = Point("constant", GRPO_LABEL, {**ablation.fixed, "method.schedule": "constant"}, run_ids)
    return replace(ablation, points=(point, *ablation.points))


def file_stem(setting: str, settings: Iterable[str]) -> str:
    """The name of a setting's figure: its short name, or its full one where two settings share the short one."""
    shared = [short_name(other) for other in settings].count(short_name(setting)) > 1
    return f"ablation_{setting.replace('.', '_') if shared else short_name(setting)}"


def base_run(asked: Asked, settings: Mapping[str, Any]) -> str | None:
    """The untouched policy that a point is compared with: it agrees on every setting that both have.

    Returns:
        None where the sweep has no such run, or several.
    """
    fitting = {
        cell.run_id
        for cell in asked.cells
        if cell.source is None
        and all(settings[key] == value for key, value in flat_settings(cell).items() if key in settings)
    }
    return fitting.pop() if len(fitting) == 1 else None


def _varying(all_settings: Sequence[Mapping[str, Any]]) -> set[str]:
    """The settings that tell cells apart; one that some cells lack is one of them."""
    keys = {key for settings in all_settings for key in settings}
    return {key for key in keys if len({_key(settings.get(key)) for settings in all_settings}) > 1} | {
        # A type whose settings vary stands for them, as in a schedule of one type over several ranges.
        key
        for key in keys
        if any(
            other.startswith(f"{key}.") and len({_key(settings.get(other)) for settings in all_settings}) > 1
            for other in keys
        )
    }


def _of_setting(setting: str, cells: Sequence[_Cell], varying: set[str]) -> list[Ablation]:
    """The ablations of a setting within one method, one per source and combination of the other settings."""
    groups: dict[tuple[str, str], list[_Cell]] = {}
    for cell, settings in cells:
        if setting in settings:
            fixed = {k: v for k, v in settings.items() if k in varying and not _along(k, setting)}
            groups.setdefault((str(cell.source), _key(fixed)), []).append((cell, settings))
    made = (_ablation(setting, source, group, varying) for (source, _), group in groups.items())
    return [one for one in made if len(one.points) > 1]


def _along(key: str, setting: str) -> bool:
    return key == setting or key.startswith(f"{setting}.")


def _ablation(setting: str, source: str, cells: Sequence[_Cell], varying: set[str]) -> Ablation:
    by_point: dict[str, list[_Cell]] = {}
    for cell, settings in cells:
        own = {key: value for key, value in settings.items() if _along(key, setting)}
        by_point.setdefault(_key(own), []).append((cell, settings))
    points = []
    for members in by_point.values():
        _, settings = members[0]
        value = settings[setting]
        peers = [other for _, other in cells if _key(other[setting]) == _key(value)]
        along = {
            key: settings[key]
            for key in settings
            if key.startswith(f"{setting}.") and len({_key(peer.get(key)) for peer in peers}) > 1
        }
        rest = ", ".join(f"{short_name(key)}={shown(item)}" for key, item in along.items())
        points.append(
            Point(
                value=value,
                label=f"{shown(value)} ({rest})" if rest else shown(value),
                settings={key: item for key, item in settings.items() if key in varying},
                run_ids=tuple(dict.fromkeys(cell.run_id for cell, _ in members)),
            )
        )
    ordered = all(isinstance(p.value, (int, float)) for p in points) and len({p.value for p in points}) == len(points)
    if ordered:
        points.sort(key=lambda point: point.value)
    cell, settings = cells[0]
    return Ablation(
        setting=setting,
        method=cell.method,
        source=source,
        fixed={key: value for key, value in settings.items() if key in varying and not _along(key, setting)},
        targets=(*(t for t in cell.targets if t == source), *(t for t in cell.targets if t != source)),
        points=tuple(points),
        ordered=ordered,
    )


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
