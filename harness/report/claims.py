"""What a sweep's runs say of its claims: supported, contradicted, undecided at this n, or missing.

Every source and target of every claim is a place, and all places of a sweep are one family: Holm's correction keeps the
chance of any false verdict at 2.5 % for support and at 2.5 % for contradiction. A claim is supported where each of its
places is, and contradicted where one of them is. A claim whose runs are not all complete has no verdict: looking again
whenever a run ends would find anything sooner or later. Its place stays in the family, so that no other verdict becomes
easier. The paper's numbers stand beside ours and are no part of a verdict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.record.sweep_record import with_recorded_trials
from harness.report.collect import measure_pairs
from harness.report.effects import Need, need
from harness.report.stats import MIN_SEEDS, holm, iqm, probability_of_improvement
from harness.report.weighing import Evidence, Scores, weigh
from harness.spec.claims import Claim, ClaimTable, Metric
from harness.spec.contests import Contest, contests
from harness.spec.methods import Evaluation, Split

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

Verdict = Literal["supported", "contradicted", "undecided", "missing"]

ALPHA = 0.025
"""One-sided family-wise error, of support and of contradiction each."""


@dataclass(frozen=True)
class ValueMean:
    """One value of the setting that an interior maximum is over: its mean in [0, 1], and the runs behind it."""

    value: float
    mean: float | None
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class PlaceAnswer:
    """A claim at one source and target. Means, differences and improvements are fractions; None where unknown.

    Attributes:
        source: The task trained on.
        target: The task evaluated on.
        better: The settings of the side that should be ahead; of an interior maximum the best value between the ends.
        than: Those of the other side; of an interior maximum the better end.
        mean_better: In [0, 1], over the runs that are compared.
        mean_than: In [0, 1].
        iqm_better: Interquartile mean over those runs.
        iqm_than: The same.
        difference: In [-1, 1], with its 95 % interval.
        ci_low: Of the difference; None with fewer than three seeds.
        ci_high: The same.
        relative_improvement: The difference over `mean_than`, with its 95 % interval.
        relative_low: None too where a resampled `mean_than` is 0.
        relative_high: The same.
        probability_of_improvement: That a run of `better` is above one of `than`, over all pairs.
        num_seeds: Seeds that are compared; the fewer of two unpaired sides.
        is_paired: Whether both sides have these seeds; `base`, without a seed, is set against each.
        p_supported: Holm-adjusted, one-sided.
        p_contradicted: The same of the opposite.
        verdict: On this place alone.
        reason: What keeps it from being decided; None where it is, or where only more seeds would do it.
        more_seeds: That would decide it if effect and spread stay as they are; None unless undecided and not equal.
        examples_needed: Test examples that it takes besides; None where the present ones can do.
        run_ids_better: The runs behind `mean_better`.
        run_ids_than: The runs behind `mean_than`.
        missing_run_ids: The runs that are not complete.
        values: Of an interior maximum, every value; else empty.
    """

    source: str
    target: str
    better: Mapping[str, Any]
    than: Mapping[str, Any]
    mean_better: float | None
    mean_than: float | None
    iqm_better: float | None
    iqm_than: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    relative_improvement: float | None
    relative_low: float | None
    relative_high: float | None
    probability_of_improvement: float | None
    num_seeds: int
    is_paired: bool
    p_supported: float | None
    p_contradicted: float | None
    verdict: Verdict
    reason: str | None
    more_seeds: int | None
    examples_needed: int | None
    run_ids_better: tuple[str, ...]
    run_ids_than: tuple[str, ...]
    missing_run_ids: tuple[str, ...]
    values: tuple[ValueMean, ...]


@dataclass(frozen=True)
class ClaimAnswer:
    """A claim, its verdict, and the places that it rests on.

    Attributes:
        name: The claim's.
        says: The claim in words.
        on: Its table.
        metric: What is compared.
        over: Of an interior maximum, the setting's full name.
        verdict: On all places together.
        reason: What it lacks, or what would decide it, as a sentence; None where it is decided.
        more_seeds: As in :class:`PlaceAnswer`: for every open place that points the claim's way, or, where some point
            the other way, for the one of these that is decided soonest.
        examples_needed: The same.
        published: The paper's relative improvement as a fraction.
        reference: Where the paper states it.
        split: What the examples are of.
        num_examples: Per run and target.
        places: In the order of the sweep.
    """

    name: str
    says: str
    on: ClaimTable
    metric: Metric
    over: str | None
    verdict: Verdict
    reason: str | None
    more_seeds: int | None
    examples_needed: int | None
    published: float | None
    reference: str | None
    split: Split
    num_examples: int
    places: tuple[PlaceAnswer, ...]

    def as_json(self) -> dict[str, Any]:
        """The answer as ``harness claims --format json`` prints it."""
        return dataclasses.asdict(self)


def judge_claims(results_dir: str | Path, sweep: Sweep) -> list[ClaimAnswer]:
    """The answers to a sweep's claims, in the order of the file; the same run folders give the same answers.

    Args:
        results_dir: The results folder.
        sweep: With its claims.

    Raises:
        UserError: The sweep has no claims.
        SpecError: A claim asks for what no cell has, as `--set` may bring about.
    """
    sweep = with_recorded_trials(sweep, results_dir)
    if not sweep.claims:
        raise UserError(f"{sweep.path}: the sweep has no claims: add `claims:`, as harness/spec/claims.py tells")
    asked = contests(sweep.claims, sweep.cells)
    places = (place for _, of_claim in asked for place in of_claim)
    pairs = ((run_id, place.target) for place in places for side in place.sides for run_id in side.runs.values())
    measured = measure_pairs(results_dir, pairs, sweep.evaluation)

    def scores_of(metric: Metric) -> Scores:
        def scores(run_id: str, target: str) -> NDArray[np.bool_] | None:
            found = measured[run_id, target]
            return None if found is None else found.correct if metric == "accuracy" else found.formats

        return scores

    return judge(asked, scores_of, sweep.evaluation)


def judge(
    asked: Sequence[tuple[Claim, Sequence[Contest]]], scores_of: Callable[[Metric], Scores], evaluation: Evaluation
) -> list[ClaimAnswer]:
    """The answers to some claims, all of their places as one family.

    Args:
        asked: Each claim with its places.
        scores_of: The verdicts of runs, for a metric.
        evaluation: What they are of.
    """
    places = [(claim, place) for claim, of_claim in asked for place in of_claim]
    evidence = [
        weigh(place, scores_of(claim.metric), num_places=len(places), name=claim.metric) for claim, place in places
    ]
    judged = iter(_judged([place for _, place in places], evidence))
    return [_answer(claim, [next(judged) for _ in of_claim], evaluation) for claim, of_claim in asked]


def missing_run_ids(answers: Sequence[ClaimAnswer]) -> list[str]:
    """The runs that the claims lack, each once."""
    return list(dict.fromkeys(run_id for one in answers for place in one.places for run_id in place.missing_run_ids))


def _judged(places: Sequence[Contest], evidence: Sequence[Evidence]) -> list[PlaceAnswer]:
    """Every place of the family with its verdict."""
    raw = [(None, None) if one.missing_run_ids else (one.p_supported, one.p_contradicted) for one in evidence]
    supported = holm([1.0 if p is None else p for p, _ in raw])
    contradicted = holm([1.0 if p is None else p for _, p in raw])
    # Holm tests the least p that it does not reject at alpha over the number of those left.
    levels = [ALPHA / max(1, sum(p > ALPHA for p in adjusted)) for adjusted in (supported, contradicted)]
    return [
        _place(contest, one, None if p[0] is None else (up, down), (levels[0], levels[1]))
        for contest, one, p, up, down in zip(places, evidence, raw, supported, contradicted, strict=True)
    ]


def _place(
    contest: Contest, evidence: Evidence, p: tuple[float, float] | None, levels: tuple[float, float]
) -> PlaceAnswer:
    better, than, comparison = evidence.better, evidence.than, evidence.comparison
    verdict, reason = _verdict(contest, evidence, p)
    lack: Need | None = None
    if verdict == "undecided" and comparison is not None and evidence.parts is not None:
        points_up = comparison.difference.mean > 0
        times = evidence.times_supported if points_up else evidence.times_contradicted
        level = levels[0 if points_up else 1] / times
        lack = need(evidence.parts, comparison.difference.mean, level, evidence.num_seeds)
        reason = None if lack else "both sides are equal"
    nothing = (None, None, None)
    difference = nothing if comparison is None else comparison.difference
    relative = nothing if comparison is None else comparison.relative
    both = better.verdicts and than.verdicts
    return PlaceAnswer(
        source=contest.source,
        target=contest.target,
        better=better.side.settings,
        than=than.side.settings,
        mean_better=better.mean,
        mean_than=than.mean,
        iqm_better=iqm(better.accuracies) if better.verdicts else None,
        iqm_than=iqm(than.accuracies) if than.verdicts else None,
        difference=difference[0],
        ci_low=difference[1],
        ci_high=difference[2],
        relative_improvement=relative[0],
        relative_low=relative[1],
        relative_high=relative[2],
        probability_of_improvement=probability_of_improvement(better.accuracies, than.accuracies) if both else None,
        num_seeds=evidence.num_seeds,
        is_paired=evidence.design == "paired",
        p_supported=None if p is None else p[0],
        p_contradicted=None if p is None else p[1],
        verdict=verdict,
        reason=reason,
        more_seeds=None if lack is None else lack.seeds - evidence.num_seeds,
        examples_needed=None if lack is None else lack.examples,
        run_ids_better=better.run_ids,
        run_ids_than=than.run_ids,
        missing_run_ids=evidence.missing_run_ids,
        values=tuple(
            ValueMean(next(iter(one.side.settings.values())), one.mean, one.run_ids) for one in evidence.values
        ),
    )


def _verdict(contest: Contest, evidence: Evidence, p: tuple[float, float] | None) -> tuple[Verdict, str | None]:
    if evidence.missing_run_ids:
        num_asked = len({run_id for side in contest.sides for run_id in side.runs.values()})
        return "missing", f"{len(evidence.missing_run_ids)} of {num_asked} runs are not complete"
    if p is None:
        return "undecided", f"fewer than {MIN_SEEDS} seeds say nothing of the spread between seeds"
    if p[0] <= ALPHA:
        return "supported", None
    return ("contradicted", None) if p[1] <= ALPHA else ("undecided", None)


def _answer(claim: Claim, places: Sequence[PlaceAnswer], evaluation: Evaluation) -> ClaimAnswer:
    verdicts = [place.verdict for place in places]
    verdict: Verdict = "undecided"
    if "missing" in verdicts:
        verdict = "missing"
    elif "contradicted" in verdicts:
        verdict = "contradicted"
    elif set(verdicts) == {"supported"}:
        verdict = "supported"
    reason, more_seeds, examples = None, None, None
    if verdict == "missing":
        missing = {run_id for place in places for run_id in place.missing_run_ids}
        reason = f"{len(missing)} {'run is' if len(missing) == 1 else 'runs are'} not complete"
    elif verdict == "undecided":
        reason, more_seeds, examples = _what_would_decide([place for place in places if place.verdict == "undecided"])
    return ClaimAnswer(
        name=claim.name,
        says=claim.says,
        on=claim.on,
        metric=claim.metric,
        over=claim.over,
        verdict=verdict,
        reason=reason,
        more_seeds=more_seeds,
        examples_needed=examples,
        published=claim.published,
        reference=claim.reference,
        split=evaluation.table_split,
        num_examples=evaluation.num(evaluation.table_split),
        places=tuple(places),
    )


def _what_would_decide(places: Sequence[PlaceAnswer]) -> tuple[str, int | None, int | None]:
    """The sentence, the seeds and the examples for a claim's open places."""
    against = [place for place in places if (place.difference or 0.0) < 0 and place.more_seeds is not None]
    if against:
        soonest = min(against, key=lambda place: (place.examples_needed or 0, place.more_seeds or 0))
        seeds, examples = soonest.more_seeds or 0, soonest.examples_needed
        where = f"against it, {soonest.source} -> {soonest.target}"
    else:
        stuck = next((place for place in places if place.more_seeds is None), None)
        if stuck is not None:
            return f"{stuck.source} -> {stuck.target}: {stuck.reason}", None, None
        seeds = max(place.more_seeds or 0 for place in places)
        examples = max((place.examples_needed for place in places if place.examples_needed), default=None)
        where = "for it"
    seeds_text = f"{seeds} more {'seed' if seeds == 1 else 'seeds'}"
    if examples is None:
        return f"{seeds_text} would decide it if the effect stays as it is ({where})", seeds, None
    besides = f"about {examples} test examples" + (f" and {seeds_text}" if seeds else "")
    return f"no number of seeds would decide it on these examples; {besides} might ({where})", seeds, examples
