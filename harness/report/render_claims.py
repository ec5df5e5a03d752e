"""The answers to claims as text, markdown and JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import UserError, nearest
from harness.report.claims import ALPHA, ClaimAnswer, PlaceAnswer
from harness.report.grids import DASH
from harness.report.render import WIDTH
from harness.report.stats import LEVEL, MIN_SEEDS
from harness.spec.names import DRAWN_TASKS

CLAIM_FORMATS = ("text", "markdown", "json")


def render_claims(answers: Sequence[ClaimAnswer], form: str = "text", *, width: int = WIDTH) -> str:
    """The claims in one of :data:`CLAIM_FORMATS`, without a line break at the end.

    Args:
        answers: From :func:`harness.report.claims.judge_claims`.
        form: ``"text"``, ``"markdown"`` or ``"json"``.
        width: Columns of a text's sentences.

    Raises:
        UserError: There is no such format.
    """
    match form:
        case "json":
            return json.dumps([answer.as_json() for answer in answers], indent=2, ensure_ascii=False)
        case "text":
            notes = [textwrap.fill(note, width, subsequent_indent="  ") for note in claim_notes(answers)]
            return "\n\n".join([*(_text(answer, width) for answer in answers), "\n".join(notes)])
        case "markdown":
            return "\n\n".join([*(_markdown(answer) for answer in answers), *claim_notes(answers)])
    raise UserError(f"unknown claim format '{form}': {nearest(form, CLAIM_FORMATS)}")


def claim_notes(answers: Sequence[ClaimAnswer]) -> list[str]:
    """What a reader must know of the numbers: examples, interval, p, verdicts."""
    if not answers:
        return []
    num_places = sum(len(answer.places) for answer in answers)
    stored = any(place.target not in DRAWN_TASKS for answer in answers for place in answer.places)
    fewer = " (all, where a target has fewer)" if stored else ""
    lines = [
        f"Means in % over the first {answers[0].num_examples} {answers[0].split} examples{fewer} and n seeds; "
        f"differences in points. In brackets {100 * LEVEL:g} % bootstrap intervals over seeds and examples, not "
        f"corrected for the number of claims; none with fewer than {MIN_SEEDS} seeds. PoI: the probability that a run "
        "of the first side is above one of the second.",
        f"p is one-sided, for the claim and against it, Holm-corrected over {num_places} "
        f"{'place' if num_places == 1 else 'places'}; supported or contradicted at {ALPHA:g} each. A claim is "
        "supported where every place of it is, contradicted where one is.",
    ]
    if any(answer.published is not None for answer in answers):
        lines.append("The published improvement is no part of a verdict.")
    if any(answer.over is not None for answer in answers):
        lines.append(
            "An interior maximum compares the best value between the ends with the better end; its p allows for the "
            "choice, its interval does not."
        )
    lines.append("The run ids behind each number: --format json.")
    return lines


def _text(answer: ClaimAnswer, width: int) -> str:
    head, *rows = claim_table(answer)
    columns = [[head[n], *(row[n] for row in rows)] for n in range(len(head))]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  "
        + "  ".join(
            text.ljust(w) if n == 0 else text.rjust(w) for n, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, ["-" * w for w in widths], *rows)
    ]
    said = textwrap.wrap(f"{answer.name}: {answer.says}", width, subsequent_indent="  ")
    verdict = textwrap.wrap(_verdict(answer), width, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*said, *verdict, *(line.rstrip() for line in lines)])


def _markdown(answer: ClaimAnswer) -> str:
    head, *rows = ([text.replace("|", "\\|") for text in row] for row in claim_table(answer))
    rule = ["---", *("---:" for _ in head[1:])]
    table = "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *rows))
    return f"**{answer.name}**: {answer.says}\n\n{_verdict(answer)}\n\n{table}"


def _verdict(answer: ClaimAnswer) -> str:
    text = answer.verdict if answer.reason is None else f"{answer.verdict}: {answer.reason}"
    if answer.published is None:
        return text
    where = "" if answer.reference is None else f" ({answer.reference})"
    return f"{text}; published {_percent(answer.published)}{where}"


def claim_table(answer: ClaimAnswer) -> list[list[str]]:
    """The head, and a line for each place."""
    first = answer.places[0]
    sides = [_settings(first.better), _settings(first.than)]
    if answer.over is not None:
        name = answer.over.rpartition(".")[2]
        sides = [f"best {name} inside", "best end"]
    head = [f"{answer.metric} on", *sides, "points", "relative", "PoI", "n", "p", "p against", "verdict"]
    return [head, *(_line(place, answer.over) for place in answer.places)]


def _line(place: PlaceAnswer, over: str | None) -> list[str]:
    sides = []
    for mean, settings in ((place.mean_better, place.better), (place.mean_than, place.than)):
        text = DASH if mean is None else f"{100 * mean:.1f}"
        sides.append(text if over is None or mean is None else f"{text} at {settings[over]:g}")
    poi = place.probability_of_improvement
    return [
        f"{place.source} -> {place.target}",
        *sides,
        _points(place),
        _relative(place),
        DASH if poi is None else f"{poi:.2f}",
        f"{place.num_seeds}",
        *(DASH if p is None else f"{p:.3f}" for p in (place.p_supported, place.p_contradicted)),
        place.verdict,
    ]


def _points(place: PlaceAnswer) -> str:
    if place.difference is None:
        return DASH
    text = f"{100 * place.difference:+.1f}"
    if place.ci_low is None or place.ci_high is None:
        return text
    return f"{text} [{100 * place.ci_low:.1f}, {100 * place.ci_high:.1f}]"


def _relative(place: PlaceAnswer) -> str:
    if place.relative_improvement is None:
        return DASH
    text = _percent(place.relative_improvement)
    if place.relative_low is None or place.relative_high is None:
        return text
    return f"{text} [{100 * place.relative_low:.1f}, {100 * place.relative_high:.1f}]"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:+.1f} %"


def _settings(settings: Mapping[str, Any]) -> str:
    """A side's name: its method alone where nothing else is named."""
    values = {
        key.rpartition(".")[2]: "/".join(map(str, v)) if isinstance(v, list) else str(v) for key, v in settings.items()
    }
    return ", ".join(value if key in ("method", "schedule") else f"{key}={value}" for key, value in values.items())
