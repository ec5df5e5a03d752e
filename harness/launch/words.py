"""Numbers as people read them: times, memory, and the kinds of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.spec import RunSpec


def duration(seconds: float) -> str:
    """Such as ``"0.4 s"``, ``"12 s"``, ``"3 min 05 s"``, ``"2 h 10 min"`` or ``"3 d 4 h"``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def hours(value: float) -> str:
    """Hours with two digits that matter, such as ``"0.034"``, ``"1.2"`` or ``"340"``."""
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def labels(kinds: Mapping[str, Sequence[RunSpec]]) -> dict[str, str]:
    """A name for each kind of run: its methods and source, and those settings in which such kinds differ.

    Args:
        kinds: By kind, the runs of it; at least one of each.
    """
    names = {kind: _label(specs) for kind, specs in kinds.items()}
    flat = {kind: _flat(specs[0].model_dump(mode="json")) for kind, specs in kinds.items()}
    found = {}
    for kind, name in names.items():
        alike = [flat[other] for other, another in names.items() if another == name]
        differing = [key for key in flat[kind] if len({repr(one.get(key)) for one in alike}) > 1]
        told = [f"{key.removeprefix('method.')}={flat[kind][key]}" for key in differing if key not in _UNTOLD]
        found[kind] = " ".join([name, *told])
    return found


_UNTOLD = frozenset({"seed", "method.type", "method.lr", "num_train"})


def _label(specs: Sequence[RunSpec]) -> str:
    methods = "/".join(sorted({spec.method.type for spec in specs}))
    return methods if specs[0].source is None else f"{methods} {specs[0].source}"


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= _flat(one, f"{prefix}{key}.") if isinstance(one, Mapping) else {f"{prefix}{key}": one}
    return found
