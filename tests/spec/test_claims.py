"""Claims of a sweep file: how they are read, which runs they compare, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.spec.claims import Claim
from harness.spec.contests import contests
from harness.spec.run import RunSpec
from harness.spec.sweep import Sweep, load_sweep

HEAD = """name: s
axes:
  method: [base, sft, grpo, grpo_d]
  source: [counting, geometry]
  seed: [0, 1]
blocks:
  - where: {method: grpo}
    axes: {beta: [0.04, 0, 0.01]}
targets: [counting, geometry, charts]
claims:
"""
OVER_SFT = "name: a, says: it is, better: {method: grpo_d}, than: {method: sft}"
FIRST_LINE = len(HEAD.splitlines()) + 1


def sweep(folder: Path, *claims: str, overrides: tuple[str, ...] = (), head: str = HEAD) -> Sweep:
    file = folder / "s.yaml"
    file.write_text(head + "".join(f"  - {{{claim}}}\n" for claim in claims))
    return load_sweep(file, overrides)


def run_id(method: str, source: str | None = None, seed: int = 0, **settings: object) -> str:
    record = {"method": {"type": method, **settings}, "source": source, "seed": seed}
    return RunSpec.model_validate(record).run_id


def test_a_claim_is_read_with_full_names(tmp_path: Path) -> None:
    said = f"{OVER_SFT}, on: same_task, where: {{source: counting, target: [counting]}}, published: 1, reference: T 1"
    (claim,) = sweep(tmp_path, said).claims
    assert (claim.name, claim.says, claim.on, claim.metric, claim.over) == ("a", "it is", "same_task", "accuracy", None)
    assert [(c.key, c.values) for c in (*claim.better, *claim.than)] == [("method", ("grpo_d",)), ("method", ("sft",))]
    assert [(c.key, c.values) for c in claim.where] == [("source", ("counting",)), ("target", ("counting",))]
    assert (claim.published, claim.reference) == (1.0, "T 1")
    interior = "name: b, says: it does, interior_maximum_over: beta, on: cross_task, metric: format"
    (claim,) = sweep(tmp_path, interior).claims
    assert (claim.over, claim.metric, claim.published) == ("method.schedule.beta", "format", None)


def test_a_sweep_without_claims_has_none(tmp_path: Path) -> None:
    assert sweep(tmp_path, head=HEAD.removesuffix("claims:\n")).claims == ()


def test_a_claim_is_about_every_place_of_its_table(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, f"{OVER_SFT}, on: cross_task")
    [(claim, places)] = contests(loaded.claims, loaded.cells)
    assert isinstance(claim, Claim)
    assert [(place.source, place.target) for place in places] == [
        *(("counting", "geometry"), ("counting", "charts")),
        *(("geometry", "counting"), ("geometry", "charts")),
    ]
    better, than = places[0].sides
    assert better.runs == {seed: run_id("grpo_d", "counting", seed) for seed in (0, 1)}
    assert than.runs == {seed: run_id("sft", "counting", seed) for seed in (0, 1)}


def test_base_stands_for_every_source_and_no_seed(tmp_path: Path) -> None:
    where = "where: {seed: [1], source: geometry}"
    said = f"name: a, says: x, better: {{method: base}}, than: {{method: sft}}, on: same_task, {where}"
    loaded = sweep(tmp_path, said)
    [(_, [place])] = contests(loaded.claims, loaded.cells)
    assert (place.source, place.target) == ("geometry", "geometry")
    assert [side.runs for side in place.sides] == [{None: run_id("base")}, {1: run_id("sft", "geometry", 1)}]
    assert [side.has_seeds for side in place.sides] == [False, True]


def test_conditions_on_what_a_run_lacks_leave_it_in(tmp_path: Path) -> None:
    # Only grpo has a beta here: grpo_d runs an othink schedule, sft none.
    said = "name: a, says: x, better: {method: grpo}, than: {method: sft}, on: same_task, where: {beta: 0.01}"
    loaded = sweep(tmp_path, said)
    [(_, places)] = contests(loaded.claims, loaded.cells)
    assert places[0].sides[0].runs[0] == run_id("grpo", "counting", 0, schedule={"type": "constant", "beta": 0.01})
    assert places[0].sides[1].runs[0] == run_id("sft", "counting", 0)


def test_defaults_select_as_well(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, f"{OVER_SFT}, on: same_task, where: {{schedule: othink, format_weight: 1}}")
    [(_, places)] = contests(loaded.claims, loaded.cells)
    assert len(places) == 2


def test_an_interior_maximum_has_a_side_per_value_in_ascending_order(tmp_path: Path) -> None:
    said = "name: a, says: x, interior_maximum_over: beta, where: {method: grpo, source: counting}, on: same_task"
    loaded = sweep(tmp_path, said)
    [(_, [place])] = contests(loaded.claims, loaded.cells)
    assert [side.settings for side in place.sides] == [{"method.schedule.beta": beta} for beta in (0, 0.01, 0.04)]
    assert [len(side.runs) for side in place.sides] == [2, 2, 2]


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        ("name: a, says: x", "the claim has no 'on': name, says, on are required"),
        (f"{OVER_SFT}, on: same_tsk", "unknown on 'same_tsk': did you mean 'same_task'?"),
        (f"{OVER_SFT}, on: same_task, metrc: format", "unknown key 'metrc' in claims: did you mean 'metric'?"),
        (f"{OVER_SFT}, on: same_task, metric: formt", "unknown metric 'formt': did you mean 'format'?"),
        (f"{OVER_SFT}, on: same_task, published: 11 %", "published must be a number, 0.1 for ten percent, not '11 %'"),
        (f"{OVER_SFT}, on: same_task, published: true", "published must be a number"),
        (f"{OVER_SFT}, on: same_task, published: .nan", "published must be a number"),
        (f"{OVER_SFT}, on: same_task, interior_maximum_over: beta", "or `interior_maximum_over` in their place"),
        ("name: a, says: x, on: same_task, better: {method: sft}", "a claim has `better` and `than`, or"),
        ("name: a, says: x, on: same_task, interior_maximum_over: bta", "unknown setting 'bta': did you mean 'beta'?"),
        ("name: a b, says: x, on: same_task, interior_maximum_over: beta", "a claim's name must be a word"),
        ("name: a, says: 3, on: same_task, interior_maximum_over: beta", "says must be text, not 3"),
        ("name: a, says: x, on: same_task, better: {method: dpo}, than: {method: sft}", "unknown method 'dpo'"),
        ("name: a, says: x, on: same_task, better: {methd: sft}, than: {method: sft}", "did you mean 'method'?"),
        ("name: a, says: x, on: same_task, better: {}, than: {method: sft}", "better is empty: select runs by"),
        ("name: a, says: x, on: same_task, better: {method: []}, than: {method: sft}", "better.method is empty"),
        (
            "name: a, says: x, on: same_task, better: {schedule: {type: linear}}, than: {method: sft}",
            "better.schedule takes a value or a list of values, not a mapping",
        ),
        (
            "name: a, says: x, on: same_task, better: {method: sft, target: charts}, than: {method: base}",
            "a target belongs in `where`",
        ),
        (
            "name: a, says: x, on: same_task, better: {method: grpo, beta: 0.02}, than: {method: sft}",
            "no cell of the sweep has method.schedule.beta 0.02: did you mean '0.0",
        ),
        (f"{OVER_SFT}, on: same_task, where: {{target: relations}}", "no cell of the sweep has target 'relations'"),
        (f"{OVER_SFT}, on: same_task, where: {{target: charts}}", "no source and target on same_task has runs on both"),
        (
            "name: a, says: x, on: same_task, better: {method: grpo}, than: {method: sft}",
            "method 'grpo' has several runs of one seed for source counting, which differ in method.schedule.beta: say",
        ),
        (
            "name: a, says: x, on: same_task, better: {method: sft}, than: {num_steps: 75, method: sft}",
            "better and than select the same run for source counting",
        ),
        (
            "name: a, says: x, on: same_task, interior_maximum_over: beta, where: {beta: [0, 0.01]}",
            "needs at least 3 values of method.schedule.beta, and for counting -> counting the sweep has 0.0, 0.01",
        ),
        ("name: a, says: x, on: same_task, interior_maximum_over: schedule", "method.schedule is no number"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(tmp_path: Path, claim: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        sweep(tmp_path, claim)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 's.yaml'}:{FIRST_LINE}: ")
    assert "\n" not in str(caught.value)


def test_two_claims_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=f":{FIRST_LINE + 1}: two claims are named 'a'"):
        sweep(tmp_path, f"{OVER_SFT}, on: same_task", f"{OVER_SFT}, on: cross_task")


def test_an_option_may_take_a_claims_runs_away(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, f"{OVER_SFT}, on: same_task", overrides=("method=[grpo]",))
    with pytest.raises(SpecError, match="no cell of the sweep has method 'grpo_d': did you mean 'grpo'"):
        contests(loaded.claims, loaded.cells)


def test_a_search_whose_points_are_not_known_yet_is_loaded(tmp_path: Path) -> None:
    study = "study: {space: {lr: {low: 1e-5, high: 1e-3}}, num_trials: 2}\nclaims:\n"
    loaded = sweep(tmp_path, f"{OVER_SFT}, on: same_task", head=HEAD.replace("claims:\n", study))
    assert loaded.claims[0].name == "a"
