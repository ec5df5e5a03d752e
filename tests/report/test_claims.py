"""Verdicts on claims: on simulated data whose truth is known, on small run folders, and as the command prints them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.report.claims import ALPHA, ClaimAnswer, judge, judge_claims, missing_run_ids
from harness.report.render_claims import CLAIM_FORMATS, render_claims
from harness.report.weighing import Seen, matched, weigh
from harness.spec.claims import Claim
from harness.spec.contests import Contest, Side
from harness.spec.methods import Evaluation
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep, load_sweep

EVALUATION = Evaluation(num_examples=60)
Group = Mapping[int, NDArray[np.bool_]]
"""A side's verdicts by seed."""


def verdicts(
    draw: np.random.Generator, leads: Sequence[float], num_seeds: int, num_examples: int, luck: float
) -> list[Group]:
    """A group for each lead in logits, all on the same examples (1.5 logits), each seed with a luck of its own."""
    hard = draw.normal(0, 1.5, num_examples)
    groups = []
    for lead in leads:
        logits = lead + hard + draw.normal(0, luck, (num_seeds, 1))
        groups.append(dict(enumerate(draw.random(logits.shape) < 1 / (1 + np.exp(-logits)))))
    return groups


def answers_of(*families: tuple[str, Sequence[Sequence[Group]]], lacking: Sequence[str] = ()) -> list[ClaimAnswer]:
    """Judges one claim per family; each of its places has the groups of its sides."""
    found: dict[str, NDArray[np.bool_]] = {}
    asked = []
    for name, places in families:
        contests = []
        for n, groups in enumerate(places):
            sides = []
            for m, group in enumerate(groups):
                runs = {seed: f"{name}-{n}-{m}-s{seed}" for seed in group}
                found |= {run_id: group[seed] for seed, run_id in runs.items()}
                sides.append(Side({"beta" if len(groups) > 2 else "side": m}, runs))
            contests.append(Contest("counting", f"place{n}", tuple(sides)))
        over = "beta" if len(places[0]) > 2 else None
        asked.append((Claim(name, "it is so", "same_task", over=over), contests))
    for run_id in lacking:
        del found[run_id]
    return judge(asked, lambda _: lambda run_id, _: found.get(run_id), EVALUATION)


def test_a_large_lead_is_supported_and_its_reverse_contradicted() -> None:
    draw = np.random.default_rng(1)
    first, second = (verdicts(draw, [1.5, 0.0], 5, 60, 0.2) for _ in range(2))
    ahead, behind, mixed = answers_of(
        ("ahead", [first, second]), ("behind", [first[::-1]]), ("mixed", [first, second[::-1]])
    )
    assert (ahead.verdict, behind.verdict, mixed.verdict) == ("supported", "contradicted", "contradicted")
    assert [place.verdict for place in mixed.places] == ["supported", "contradicted"]
    place = ahead.places[0]
    assert place.difference == pytest.approx(-(behind.places[0].difference or 0))
    assert place.p_supported is not None
    assert place.p_supported <= ALPHA
    assert (ahead.reason, ahead.more_seeds, place.more_seeds) == (None, None, None)
    assert (place.num_seeds, place.is_paired, place.probability_of_improvement) == (5, True, 1.0)


def test_a_claim_needs_all_of_its_places() -> None:
    draw = np.random.default_rng(2)
    clear, open_ = verdicts(draw, [1.5, 0.0], 5, 60, 0.2), verdicts(draw, [0.3, 0.0], 5, 60, 0.2)
    (answer,) = answers_of(("both", [clear, open_]))
    assert [place.verdict for place in answer.places] == ["supported", "undecided"]
    assert answer.verdict == "undecided"
    lacking = answer.places[1]
    assert (answer.more_seeds, answer.examples_needed) == (lacking.more_seeds, lacking.examples_needed)
    assert answer.reason is not None
    assert "test examples" in answer.reason or "more seed" in answer.reason


def test_interior_maxima() -> None:
    draw = np.random.default_rng(3)
    peak = verdicts(draw, [0.0, 1.6, 0.4, 0.0], 5, 60, 0.2)
    rising = verdicts(draw, [-2.0, -1.0, 0.0, 2.0], 5, 60, 0.2)
    flat = verdicts(draw, [0.0, 0.0, 0.0], 5, 60, 0.2)
    answers = answers_of(("peak", [peak]), ("rising", [rising]), ("flat", [flat]))
    assert [answer.verdict for answer in answers] == ["supported", "contradicted", "undecided"]
    place = answers[0].places[0]
    assert (place.better, [value.value for value in place.values]) == ({"beta": 1}, [0, 1, 2, 3])
    ends = [value.mean or 0.0 for value in place.values[:: len(place.values) - 1]]
    assert place.mean_than == max(ends)
    assert answers[1].places[0].than == {"beta": 3}


def test_an_interior_maximum_pays_for_its_choice() -> None:
    # One value between the ends asks one question of both; two values cost twice the least p.
    draw = np.random.default_rng(4)
    low, mid, high = verdicts(draw, [0.0, 0.6, 0.0], 6, 60, 0.2)
    sides = [Side({"beta": n}, {s: f"{n}-s{s}" for s in group}) for n, group in enumerate([low, mid, high, low])]
    table = {f"{n}-s{s}": v for n, group in enumerate([low, mid, high, low]) for s, v in group.items()}

    def scores(run_id: str, _: str) -> NDArray[np.bool_]:
        return table[run_id]

    one = weigh(Contest("counting", "t", (sides[0], sides[1], sides[2])), scores, num_places=1)
    parts = [
        weigh(Contest("counting", "t", (sides[1], sides[end])), scores, num_places=1).p_supported for end in (0, 2)
    ]
    assert one.p_supported == max(p for p in parts if p is not None)
    assert one.times_supported == 1
    # `high` as a second value between is worse than `mid`, so only the price changes.
    two = weigh(Contest("counting", "t", (sides[0], sides[1], sides[2], sides[3])), scores, num_places=1)
    alone = weigh(Contest("counting", "t", (sides[0], sides[1], sides[3])), scores, num_places=1)
    assert two.p_supported == pytest.approx(2 * (alone.p_supported or 0), abs=0.002)
    assert (two.times_supported, two.times_contradicted) == (2, 2)


def test_a_family_makes_each_verdict_harder() -> None:
    draw = np.random.default_rng(5)
    (alone,) = answers_of(("a", [groups := verdicts(draw, [0.9, 0.0], 5, 60, 0.2)]))
    others = [(f"o{n}", [verdicts(draw, [0.0, 0.0], 5, 60, 0.2)]) for n in range(9)]
    within = answers_of(("a", [groups]), *others)[0]
    assert within.places[0].difference == alone.places[0].difference
    assert alone.places[0].p_supported is not None
    assert within.places[0].p_supported is not None
    assert within.places[0].p_supported == pytest.approx(10 * alone.places[0].p_supported, rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("luck", [0.1, 0.8])
def test_false_support_is_no_more_frequent_than_alpha(luck: float) -> None:
    draw = np.random.default_rng(7)
    num_false = 0
    for _ in range(300):
        answers = answers_of(*((name, [verdicts(draw, [0.0, 0.0], 5, 60, luck)]) for name in "ab"))
        num_false += any(answer.verdict != "undecided" for answer in answers)
    # Two claims, support and contradiction each at 0.025: 0.05 for any false verdict, and 2.5 standard errors.
    assert num_false / 300 <= 2 * ALPHA + 2.5 * np.sqrt(0.05 * 0.95 / 300)


def test_fewer_than_three_seeds_decide_nothing() -> None:
    (answer,) = answers_of(("a", [verdicts(np.random.default_rng(8), [4.0, -4.0], 2, 60, 0.1)]))
    place = answer.places[0]
    assert (answer.verdict, place.ci_low, place.p_supported, place.more_seeds) == ("undecided", None, None, None)
    assert answer.reason == "counting -> place0: fewer than 3 seeds say nothing of the spread between seeds"
    assert place.mean_better is not None


def test_equal_sides_are_undecided_for_good() -> None:
    (group, _) = verdicts(np.random.default_rng(9), [0.0, 0.0], 4, 60, 0.1)
    (answer,) = answers_of(("a", [[group, group]]))
    assert (answer.verdict, answer.more_seeds) == ("undecided", None)
    assert answer.reason == "counting -> place0: both sides are equal"


def test_a_missing_run_leaves_its_claim_without_a_verdict_and_the_family_as_large() -> None:
    draw = np.random.default_rng(10)
    data = [(name, [verdicts(draw, [1.5, 0.0], 5, 60, 0.2)]) for name in "ab"]
    full, lacking = answers_of(*data), answers_of(*data, lacking=["b-0-1-s2"])
    assert [answer.verdict for answer in lacking] == ["supported", "missing"]
    assert lacking[0] == full[0]
    place = lacking[1].places[0]
    assert (place.missing_run_ids, place.num_seeds, place.p_supported) == (("b-0-1-s2",), 4, None)
    assert lacking[1].reason == "1 run is not complete"
    assert missing_run_ids(lacking) == ["b-0-1-s2"]
    gone = answers_of(*data, lacking=[f"b-0-1-s{seed}" for seed in range(5)])[1].places[0]
    assert (gone.mean_than, gone.difference, gone.mean_better) == (None, None, full[1].places[0].mean_better)


def seen(*seeds: int | None) -> Seen:
    runs = {seed: f"run{seed}" for seed in seeds}
    return Seen(Side({}, runs), tuple(runs.values()), tuple(np.array([True]) for _ in runs))


def test_seeds_are_paired_where_they_can_be() -> None:
    a, b, design = matched(seen(4, 0, 1, 2), seen(2, 1, 4, 7))
    assert (design, a.run_ids, b.run_ids) == ("paired", ("run4", "run1", "run2"), ("run4", "run1", "run2"))
    assert matched(seen(0, 1), seen(1, 0))[2] == "paired"
    # Two seeds in common are too few to throw the others away for.
    a, b, design = matched(seen(0, 1, 2, 3), seen(2, 3, 4, 5))
    assert (design, len(a.run_ids), len(b.run_ids)) == ("unpaired", 4, 4)
    assert matched(seen(0, 1), seen(2, 3))[2] == "unpaired"
    assert matched(seen(None), seen(0, 1, 2))[2] == "a_fixed"
    assert matched(seen(0, 1, 2), seen(None))[2] == "b_fixed"


CLAIMS = """
  - {name: over_sft, says: Better than SFT, better: {method: grpo_d}, than: {method: sft}, on: same_task,
     where: {source: counting}, published: 0.1168, reference: "Table 1, 2B"}
  - {name: below_base, says: SFT forgets, better: {method: base}, than: {method: sft}, on: cross_task}
  - {name: form, says: Form too, better: {method: grpo_d}, than: {method: sft}, on: same_task, metric: format}
"""


def spec(method: str, source: str | None = None, seed: int = 0) -> RunSpec:
    return RunSpec.model_validate({"method": method, "source": source, "seed": seed})


@pytest.fixture
def small(make_sweep: Any) -> Sweep:
    sweep = make_sweep(method="[base, sft, grpo_d]", source="[counting, geometry]", seed="[0, 1, 2]")
    text = sweep.path.read_text() + "claims:" + CLAIMS
    sweep.path.write_text(text)
    return load_sweep(sweep.path)


@pytest.fixture
def measured(results: Path, write_run: Any) -> Path:
    """Base right on all; sft on nothing across tasks, on half within; grpo_d on three of four within."""
    write_run(spec("base"), {"counting": [1] * 4, "geometry": [1] * 4})
    for seed in (0, 1, 2):
        for source, other in (("counting", "geometry"), ("geometry", "counting")):
            write_run(spec("sft", source, seed), {source: [1, 1, 0, 0], other: [0] * 4})
            write_run(spec("grpo_d", source, seed), {source: [1, 1, 1, 0], other: [0] * 4})
    return results


def test_run_folders_are_judged(small: Sweep, measured: Path) -> None:
    over_sft, below_base, form = judge_claims(measured, small)
    place = over_sft.places[0]
    assert (place.mean_better, place.mean_than, place.difference, place.num_seeds) == (0.75, 0.5, 0.25, 3)
    assert (place.relative_improvement, over_sft.published) == (0.5, 0.1168)
    assert (place.iqm_better, place.probability_of_improvement) == (0.75, 1.0)
    assert place.run_ids_better == tuple(spec("grpo_d", "counting", seed).run_id for seed in (0, 1, 2))
    assert place.run_ids_than == tuple(spec("sft", "counting", seed).run_id for seed in (0, 1, 2))
    # One of four examples tells the sides apart, and is absent from 0.75^4 = 0.32 of the resamples.
    assert over_sft.verdict == "undecided"
    # Nothing varies where base is right on all and sft on none: the least p there is.
    assert (below_base.verdict, [place.num_seeds for place in below_base.places]) == ("supported", [3, 3])
    assert below_base.places[0].run_ids_better == (spec("base").run_id,)
    assert not below_base.places[0].is_paired
    # The fixture writes the right form for the first two examples of every run.
    assert (form.metric, form.places[0].mean_better, form.places[0].difference) == ("format", 0.5, 0.0)
    assert judge_claims(measured, small) == judge_claims(measured, small)


def test_forms_that_are_not_on_record_are_missing(small: Sweep, measured: Path) -> None:
    run_id = spec("sft", "counting", 1).run_id
    file = measured / "runs" / run_id / "eval" / "counting.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps({**row, "format": None}) + "\n" for row in rows))
    over_sft, _, form = judge_claims(measured, small)
    assert (over_sft.verdict, form.verdict, form.places[0].missing_run_ids) == ("undecided", "missing", (run_id,))


def invoked(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_every_claim(small: Sweep, measured: Path) -> None:
    code, out, err = invoked("claims", small.path, "--results", measured)
    assert (code, err) == (0, "")
    for text in ("over_sft: Better than SFT", "+25.0", "+50.0 %", "published +11.7 % (Table 1, 2B)", "supported"):
        assert text in out
    assert max(map(len, out.splitlines())) <= 150
    code, out, _ = invoked("claims", small.path, "--results", measured, "--format", "json")
    first = json.loads(out)[0]
    assert (code, first["name"], first["verdict"], first["published"]) == (0, "over_sft", "undecided", 0.1168)
    assert first["places"][0]["run_ids_than"] == [spec("sft", "counting", seed).run_id for seed in (0, 1, 2)]
    assert first["places"][0]["better"] == {"method": "grpo_d"}
    code, out, _ = invoked("claims", small.path, "--results", measured, "--format", "markdown")
    rows = [line for line in out.splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1
    assert "| counting -> counting | 75.0 | 50.0 | +25.0 [" in out


def test_missing_runs_are_named_with_exit_3(small: Sweep, tmp_path: Path) -> None:
    code, out, err = invoked("claims", small.path, "--results", tmp_path / "none")
    assert code == 3
    assert "missing: 6 runs are not complete" in out
    assert err.startswith("13 runs missing: ")
    assert spec("sft", "geometry", 2).run_id in err


def test_mistakes_are_told_with_exit_2(small: Sweep, make_sweep: Any, measured: Path) -> None:
    code, _, err = invoked("claims", small.path, "--results", measured, "--format", "markdwn")
    assert (code, err) == (2, "unknown claim format 'markdwn': did you mean 'markdown'?\n")
    code, _, err = invoked("claims", small.path, "--results", measured, "--set", "method=[base, sft]")
    assert code == 2
    assert "no cell of the sweep has method 'grpo_d'" in err
    plain = make_sweep(method="[sft]", source="[counting]", seed="[0]")
    with pytest.raises(UserError, match="has no claims: add `claims:`"):
        judge_claims(measured, plain)


def test_every_format_shows_a_claim_over_values() -> None:
    draw = np.random.default_rng(11)
    answers = answers_of(("peak", [verdicts(draw, [0.0, 1.5, 0.0], 4, 60, 0.2)]))
    for form in CLAIM_FORMATS:
        assert "peak" in render_claims(answers, form)
    text = render_claims(answers)
    assert "best beta inside" in text
    assert " at 1 " in text
    assert "its p allows for the choice" in " ".join(text.split())
