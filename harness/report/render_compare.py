"""Two runs or two sweeps side by side, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.report.compare import Answers, Compared, LinePair, TargetPair
from harness.report.lines import Line
from harness.report.one_run import Differing, plain_text, shown
from harness.report.stats import LEVEL, MIN_SEEDS
from harness.report.terminal import columns

_TEXT = 300
"""Letters shown of a question or a completion."""


def render_compared(found: Compared, *, num_examples: int) -> str:
    """The comparison as text, without a line break at the end.

    Args:
        found: From :mod:`harness.report.compare`.
        num_examples: Examples shown of those on which two lines disagree, per target.
    """
    lines = [*columns([["A", found.name_a], ["B", found.name_b]], indent="")]
    if found.asked:
        lines += ["", "What they ask of every run", *_differing(found.asked)]
    if len(found.pairs) > 1:
        lines += ["", *_overview(found.pairs)]
    for pair in found.pairs:
        if not pair.is_shared or len(found.pairs) == 1:
            lines += ["", *_pair(pair, num_examples)]
    for name, own in ((found.name_a, found.only_a), (found.name_b, found.only_b)):
        if own:
            lines += ["", f"In {name} alone", *(f"  {_named(line)}" for line in own)]
    lines += ["", _note()]
    return "\n".join(lines)


def _note() -> str:
    return (
        f"Accuracy in % on the examples that both sides answered, A - B in points with its {100 * LEVEL:g} % interval: "
        f"over examples for two runs, over seeds and examples for lines; none with fewer than {MIN_SEEDS} seeds."
    )


def _named(line: Line) -> str:
    runs = f"{len(line.run_ids)} run{'' if len(line.run_ids) == 1 else 's'}"
    return f"{line.label} ({runs}, such as {line.run_ids[0]})"


def _overview(pairs: Sequence[LinePair]) -> list[str]:
    rows = [["line", "target", "A", "n", "B", "n", "A - B", "", "settings that differ"]]
    for pair in pairs:
        said = "the same runs" if pair.is_shared else ", ".join(one.setting for one in pair.settings) or "none"
        for target in pair.targets:
            rows.append([pair.a.label, target.target, *_accuracies(target), said])
        if not pair.targets:
            rows.append([pair.a.label, *("-" for _ in range(6)), "", said])
    return columns(rows, right=(2, 3, 4, 5, 6), indent="")


def _accuracies(target: TargetPair) -> list[str]:
    mean, low, high = target.difference
    interval = "" if low is None or high is None else f"[{100 * low:+.1f}, {100 * high:+.1f}]"
    a, b = target.a, target.b
    accuracies = [f"{100 * a.mean:.1f}", str(a.num_runs), f"{100 * b.mean:.1f}", str(b.num_runs)]
    return [*accuracies, f"{100 * mean:+.1f}", interval]


def _pair(pair: LinePair, num_examples: int) -> Iterator[str]:
    yield pair.a.label if pair.a.label == pair.b.label else f"{pair.a.label} (A), {pair.b.label} (B)"
    if pair.is_shared:
        yield "  Both sides are the same runs."
        return
    yield from (
        ["", "  Settings that differ", *_differing(pair.settings)] if pair.settings else ["", "  No setting differs"]
    )
    metrics = [
        [key, *("-" if value is None else f"{value:.4g}" for value in values)] for key, values in pair.metrics.items()
    ]
    if metrics:
        heads = ["last in training", "A", "B"]
        yield from ["", *columns([heads, *metrics], right=(1, 2))]
    if not pair.targets:
        yield from ["", "  No target that both were evaluated on"]
        return
    rows = [["accuracy", "examples", "A", "n", "B", "n", "A - B", ""]]
    rows += [[target.target, f"{target.num_examples} {target.split}", *_accuracies(target)] for target in pair.targets]
    yield from ["", *columns(rows, right=(2, 3, 4, 5, 6))]
    for target in pair.targets:
        if target.a.protocol != target.b.protocol:
            yield f"  {target.target}: judged by {target.a.protocol} in A and by {target.b.protocol} in B"
        yield from ["", *_disagreements(target, num_examples)]


def _differing(settings: Sequence[Differing]) -> list[str]:
    rows = [["setting", "A", "B"], *([one.setting, shown(one.a), shown(one.b)] for one in settings)]
    return columns(rows, right=(1, 2))


def _disagreements(target: TargetPair, num_examples: int) -> Iterator[str]:
    count, only_a = len(target.disagreements), sum(one.a.right_frac > 0.5 for one in target.disagreements)
    few = f", the first {num_examples}" if 0 < num_examples < count else ""
    yield (
        f"  They disagree on {count} of {target.num_examples} examples of {target.target} "
        f"(A right on {only_a}, B on {count - only_a}){few}{':' if count and num_examples else '.'}"
    )
    for one in target.disagreements[:num_examples]:
        about = "" if one.question is None else f": {plain_text(one.question, _TEXT)}"
        solution = "" if one.solution is None else f"  (solution: {plain_text(one.solution, _TEXT)})"
        yield f"  {one.id}{about}{solution}"
        for name, answers, num_runs in (("A", one.a, target.a.num_runs), ("B", one.b, target.b.num_runs)):
            yield f"    {name} {_answers(answers, num_runs)}"


def _answers(answers: Answers, num_runs: int) -> str:
    right = round(answers.right_frac * num_runs)
    if num_runs == 1:
        text = "" if answers.completion is None else f": {plain_text(answers.completion, _TEXT)}"
        return f"{'right' if right else 'wrong'}{text}"
    said = [
        f"{'nothing' if value is None else plain_text(value, _TEXT)} x{count}" for value, count in answers.extracted
    ]
    return f"{right} of {num_runs} right" + (f": {', '.join(said)}" if said else "")
