"""A plan's estimates for people: a line per kind of run, the sum, and what was assumed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import IO

from harness.launch.estimate.counted import ASSUMED
from harness.launch.estimate.estimates import Estimate, Place, Span, Total, add_up
from harness.launch.table import print_line, print_table
from harness.launch.words import duration, hours, labels
from harness.spec import RunSpec


def estimate_lines(out: IO[str], left: Sequence[tuple[RunSpec, Estimate]], total: Total, place: Place) -> None:
    """Prints what is left by kind, in the order of the kinds' first runs, and the sum.

    Args:
        out: Where to.
        left: The runs that would be worked on.
        total: Their sum.
        place: Where they would run.
    """
    if not left:
        return
    kinds: dict[str, list[tuple[RunSpec, Estimate]]] = {}
    for spec, estimate in left:
        kinds.setdefault(estimate.kind, []).append((spec, estimate))
    names = labels({kind: [spec for spec, _ in runs] for kind, runs in kinds.items()})
    print_line(out, "")
    rows = [_row(names[kind], [estimate for _, estimate in runs]) for kind, runs in kinds.items()]
    columns = ("kind", "runs", "time per run", "10-90 %", "device hours", "device GiB", "host GiB", "estimate is")
    print_table(out, columns, rows)
    print_line(out, "")
    is_bound = any(estimate.at_least for _, estimate in left)
    for line in _sum(total, place, "at least" if is_bound else "at most"):
        print_line(out, line)
    if any("counted" in estimate.source for _, estimate in left):
        print_line(out, "counted: by the model's operations, assuming")
        for words in ASSUMED:
            print_line(out, f"  {words}")


def _row(name: str, estimates: Sequence[Estimate]) -> tuple[str, ...]:
    total = add_up(estimates, 1)
    known = len(estimates) - total.num_unknown
    mean = total.wall_s.times(1 / known) if known and total.wall_s else None
    bound = ">= " if estimates[0].at_least else ""
    return (
        name,
        str(len(estimates)),
        duration(mean.median) if mean else "-",
        _range(mean) if mean else "",
        hours(total.device_hours.median) if known else "-",
        _gib(total.device_gib, bound),
        _gib(total.host_gib, bound),
        ", ".join(dict.fromkeys(one.source for one in estimates)),
    )


def _sum(total: Total, place: Place, bound: str) -> list[str]:
    """The sum in a few lines; memory is this much at `bound`."""
    known = total.num_runs - total.num_unknown
    words, lines = [f"left: {_runs(total.num_runs)}"], []
    if known:
        span = total.device_hours
        spread = f" ({hours(span.low)} to {hours(span.high)})" if span.low != span.high else ""
        words.append(f"{hours(span.median)} device hours{spread}")
        memory = (total.device_gib, "device"), (total.host_gib, "host")
        peaks = [f"{gib:.2g} GiB {what}" for gib, what in memory if gib]
        words += [f"{bound} {' and '.join(peaks)} memory each"] if peaks else []
    if known and total.wall_s is not None:
        at_once = f"{place.num_slots} at a time on {place.device or 'the cluster'}"
        lines.append(f"done in {duration(total.wall_s.median)}{_spread(total.wall_s)}, {at_once}")
    elif known and place.why:
        lines.append(f"no time until all is done: {place.why}")
    if total.num_unknown:
        lines.append(f"{_runs(total.num_unknown)} of these without an estimate (--calibrate makes one)")
    return ["; ".join(words), *lines]


def _runs(number: int) -> str:
    return "1 run" if number == 1 else f"{number} runs"


def _spread(span: Span) -> str:
    return f" ({duration(span.low)} to {duration(span.high)})" if span.low != span.high else ""


def _range(span: Span) -> str:
    return f"{duration(span.low)} to {duration(span.high)}" if span.low != span.high else ""


def _gib(value: float | None, bound: str) -> str:
    return "" if value is None else f"{bound}{value:.2g}"
