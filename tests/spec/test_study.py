from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SpecError
from harness.spec.sweep import Sweep, load_sweep

HEAD = """name: s
axes:
  method: [base, sft, grpo, grpo_d]
  source: [counting, geometry]
  seed: [7, 8]
targets: [counting]
"""


def sweep(folder: Path, study: str, head: str = HEAD, overrides: tuple[str, ...] = ()) -> Sweep:
    file = folder / "s.yaml"
    file.write_text(head + "study:\n" + "".join(f"  {line}\n" for line in study.splitlines()))
    return load_sweep(file, overrides)


def test_a_grid_is_every_point_once_with_its_seeds(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, "space: {format_weight: [0, 0.5, 1]}\nsampler: grid")
    assert loaded.searches == [{}]
    # 2 methods with a format weight x 2 sources x 2 seeds, at each of 3 points; base once, sft 2 x 2.
    assert [cell.spec.method.type for cell in loaded.cells].count("base") == 1
    assert len(loaded.runs) == 1 + 4 + 3 * 8
    cells = loaded.trial({}, {"method.format_weight": 0.5})
    assert len(cells) == 8 and all(cell.spec.method.format_weight == 0.5 for cell in cells)
    assert all(cell.settings["method.format_weight"] == 0.5 for cell in cells)


def test_searches_of_their_own_share_nothing_but_the_space(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, "per: [method, source]\nspace: {lr: {low: 1e-5, high: 1e-3, log: true}}\nnum_trials: 3")
    assert loaded.searches == [
        {"method": method, "source": source}
        for method in ("sft", "grpo", "grpo_d")
        for source in ("counting", "geometry")
    ]
    cells = loaded.trial({"method": "grpo", "source": "geometry"}, {"method.lr": 1e-4})
    assert [(c.spec.method.type, c.spec.source, c.spec.seed, c.spec.method.lr) for c in cells] == [
        ("grpo", "geometry", 7, 1e-4),
        ("grpo", "geometry", 8, 1e-4),
    ]
    # Nothing was tried yet, so only what the space leaves alone is known.
    assert [run.spec.method.type for run in loaded.runs.values()] == ["base"]
    told = loaded.with_trials([({"method": "sft", "source": "counting"}, {"method.lr": 1e-4})])
    assert len(told.runs) == 1 + 2


def test_conditions_leave_out_what_does_not_exist(tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path,
        "space:\n  schedule: [constant, othink]\n"
        "  explore_frac: {choices: [0.1, 0.5], where: {schedule: othink}}\nsampler: grid",
    )
    assert loaded.study is not None
    assert loaded.study.grid({}) == [
        {"method.schedule": "constant"},
        {"method.schedule": "othink", "method.schedule.explore_frac": 0.1},
        {"method.schedule": "othink", "method.schedule.explore_frac": 0.5},
    ]


def test_ranges_with_steps_have_both_ends(tmp_path: Path) -> None:
    loaded = sweep(
        tmp_path,
        "space:\n  group_size: {low: 4, high: 16, step: 6}\n  beta: {low: 0.0, high: 0.3, step: 0.1}\nsampler: grid",
    )
    assert loaded.study is not None
    group_size, beta = loaded.study.space
    assert group_size.values() == (4, 10, 16) and group_size.is_whole
    assert beta.values() == pytest.approx((0.0, 0.1, 0.2, 0.3)) and not beta.is_whole


def test_a_study_looks_at_validation_examples(tmp_path: Path) -> None:
    study = "space: {lr: [1e-4]}\nsampler: grid"
    assert sweep(tmp_path, study).evaluation.splits == ("validation",)
    both = HEAD + "evaluation: {splits: [validation, test]}\n"
    assert sweep(tmp_path, study, both).evaluation.splits == ("validation", "test")
    with pytest.raises(SpecError, match=r"s\.yaml:7: a study is judged on validation examples"):
        sweep(tmp_path, study, HEAD + "evaluation: {splits: [test]}\n")


def test_overrides_reach_the_cells_of_trials(tmp_path: Path) -> None:
    loaded = sweep(tmp_path, "space: {lr: [1e-4, 1e-3]}\nsampler: grid", overrides=("seed=[3]", "num_steps=5"))
    trained = [run.spec for run in loaded.runs.values() if run.spec.method.type != "base"]
    assert len(trained) == 3 * 2 * 2
    assert {(spec.seed, spec.method.num_steps) for spec in trained} == {(3, 5)}


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("sampler: grid", "a study needs a `space`"),
        ("space: {lrr: [1]}", "unknown setting 'lrr': did you mean 'lr'?"),
        ("space: {lr: {low: 1, high: 0.1}}", "high 0.1 of lr must be above low 1"),
        ("space: {lr: {low: 0, high: 1, log: true}}", "low of lr must be above 0"),
        ("space: {lr: {low: 0.1, high: 1}}\nsampler: grid", "a grid needs choices or a step for method.lr"),
        ("space: {lr: {low: 0.1, high: 1}}", "never ends by itself: give num_trials or timeout_s"),
        ("space: {lr: [1, 1]}", "method.lr lists a choice twice"),
        ("space: {lr: {hi: 1}}", "unknown key 'hi' in study.space.lr"),
        ("space: {lr: [1]}\nsampler: tpee", "unknown sampler 'tpee': did you mean 'tpe'?"),
        ("space: {lr: [1]}\nnum_trials: 0", "study.num_trials must be a whole number above 0, not 0"),
        ("space: {lr: [1]}\nsampler: grid\nobjectives: [speed]", "unknown objective 'speed'"),
        ("space: {lr: [1]}\nsampler: grid\nfirst: [{lr: 2}]", "lr 2 lies outside the space"),
        ("space: {lr: [1]}\nsampler: grid\nfirst: [{beta: 2}]", "beta is not in the space"),
        ("per: [seed]\nspace: {seed: [1]}\nsampler: grid", "seed is in `per` and in the space"),
        ("space: {beta: {choices: [1], where: {schedule: constant}}}\nsampler: grid", "neither in `per` nor earlier"),
        ("space: {lr: [1]}\nsampler: grid\npruner: median\nobjectives: [counting, same_task]", "a single objective"),
    ],
)
def test_mistakes_are_told_with_their_line(tmp_path: Path, study: str, message: str) -> None:
    with pytest.raises(SpecError, match=r"s\.yaml:\d+: ") as caught:
        sweep(tmp_path, study)
    assert message in str(caught.value)


def test_a_space_that_no_cell_has_is_a_mistake(tmp_path: Path) -> None:
    head = "name: s\naxes: {method: [sft], source: [counting]}\ntargets: [counting]\n"
    with pytest.raises(
        SpecError, match=r"no cell of the sweep has a setting of the study's space: method\.schedule\.beta"
    ):
        sweep(tmp_path, "space: {beta: [0, 0.1]}\nsampler: grid", head)
