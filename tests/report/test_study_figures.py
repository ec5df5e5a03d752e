"""Figures of made-up studies in a real SQLite file: their numbers by hand, what they leave out, and how they look."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial
from PIL import Image
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.record.studies import default_storage, study_name
from harness.record.sweep_record import write_sweep_record
from harness.report.figures.drawn import Drawn
from harness.report.figures.study import study_figures
from harness.report.figures.study_front import pareto_front
from harness.report.figures.study_importances import importances
from harness.report.figures.study_trials import read_trials
from harness.report.figures.style import SMALL_PT
from harness.report.figures.write import write_figures
from harness.spec.study import Parameter
from harness.spec.sweep import Sweep, load_sweep

LR, BETA, SCHEDULE, EXPLORE = "method.lr", "method.schedule.beta", "method.schedule", "method.schedule.explore_frac"
LR_SPACE = "{low: 1.0e-5, high: 1.0e-3, log: true}"
BETA_SPACE = "{low: 0.0, high: 0.2}"

AddTrial = Callable[..., None]


@pytest.fixture
def make_study(tmp_path: Path) -> Callable[..., Sweep]:
    """Loads a sweep named `s` over two seeds, with a study."""

    def make(space: str, method: str = "[grpo]", source: str = "[counting]", **study: str) -> Sweep:
        lines = ["name: s", "description: A search.", "axes:"]
        lines += [f"  method: {method}", f"  source: {source}", "  seed: [0, 1]", "study:", f"  space: {space}"]
        lines += [f"  {key}: {value}" for key, value in {"num_trials": "40", **study}.items()]
        lines += ["targets: [counting, geometry]", "evaluation: {num_examples: 4, num_validation: 50}"]
        path = tmp_path / "s.yaml"
        path.write_text("\n".join(lines) + "\n")
        return load_sweep(path)

    return make


@pytest.fixture
def add_trial(results: Path) -> AddTrial:
    """Adds a trial to the study of one of a sweep's searches: COMPLETE with these objectives, or in another state."""

    def add(
        sweep: Sweep,
        point: Mapping[str, Any],
        *values: float,
        search: int = 0,
        state: TrialState = TrialState.COMPLETE,
        shown: Mapping[int, float] | None = None,
        storage: str | None = None,
    ) -> None:
        assert sweep.study is not None
        combination = sweep.searches[search]
        study = optuna.create_study(
            study_name=study_name(sweep, combination),
            storage=storage or default_storage(results, sweep),
            directions=["maximize"] * len(sweep.study.objectives),
            load_if_exists=True,
        )
        run_ids = [cell.run_id for cell in sweep.trial(combination, point)]
        study.add_trial(
            create_trial(
                state=state,
                values=list(values) or None,
                params=dict(point),
                distributions={one.key: distribution(one) for one in sweep.study.space if one.key in point},
                user_attrs={"run_ids": run_ids},
                intermediate_values=dict(shown or {}),
            )
        )

    return add


def distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.choices:
        return CategoricalDistribution(parameter.choices)
    if parameter.is_whole:
        return IntDistribution(int(parameter.low), int(parameter.high), step=int(parameter.step or 1))
    return FloatDistribution(parameter.low, parameter.high, log=parameter.log)


def drawn_of(results: Path, sweep: Sweep) -> dict[str, Drawn]:
    return {drawn.name: drawn for drawn in study_figures(results, sweep)}


def footnote(figure: Figure) -> str:
    return " ".join(figure.texts[0].get_text().split())


def ids(sweep: Sweep, point: Mapping[str, Any], search: int = 0) -> str:
    return " ".join(cell.run_id for cell in sweep.trial(sweep.searches[search], point))


def test_a_slice_holds_what_its_trials_showed(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}", pruner="median")
    add_trial(sweep, {LR: 1e-4}, 0.5, shown={25: 0.4, 50: 0.5})
    add_trial(sweep, {LR: 3e-4}, 0.625)
    add_trial(sweep, {LR: 5e-4}, 0.625)
    # Optuna's order of places is not that of insertion.
    add_trial(sweep, {LR: 9e-4}, state=TrialState.PRUNED, shown={50: 0.25, 25: 0.3})
    add_trial(sweep, {LR: 8e-4}, state=TrialState.PRUNED)
    add_trial(sweep, {LR: 7e-4}, state=TrialState.FAIL)
    drawn = drawn_of(results, sweep)
    assert list(drawn) == ["study_slices"]  # one parameter: nothing to weigh, no lines, no front
    numbers = drawn["study_slices"].numbers
    assert list(numbers["trial"]) == [0, 1, 2, 3]
    assert list(numbers["state"]) == ["complete", "complete", "complete", "pruned"]
    assert list(numbers["value"]) == [1e-4, 3e-4, 5e-4, 9e-4]
    assert list(numbers["accuracy"]) == [50, 62.5, 62.5, 25]
    assert list(numbers["is_best"]) == [False, True, False, False]  # among equals the earliest
    assert set(numbers["study"]) == {study_name(sweep, {})}
    assert set(numbers["parameter"]) == {LR}
    assert set(numbers["objective"]) == {"same_task"}
    assert numbers["run_ids"][3] == ids(sweep, {LR: 9e-4})
    assert len(numbers["run_ids"][3].split()) == 2
    note = footnote(drawn["study_slices"].figure)
    assert "6 trials: 3 complete, 2 pruned, 1 failed." in note
    assert "2 runs per trial, 50 validation examples per run and target." in note
    axes = drawn["study_slices"].figure.axes[0]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "lr"


def test_categories_stand_side_by_side_and_numbers_in_order(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study("{schedule: [othink, linear], lr: [3.0e-4, 1.0e-4]}", "[grpo_d]")
    for schedule, lr, value in (("linear", 1e-4, 0.1), ("othink", 1e-4, 0.2), ("linear", 3e-4, 0.3)):
        add_trial(sweep, {SCHEDULE: schedule, LR: lr}, value)
    by_schedule, by_lr, _ = drawn_of(results, sweep)["study_slices"].figure.axes
    assert [label.get_text() for label in by_schedule.get_xticklabels()] == ["othink", "linear"]
    assert [label.get_text() for label in by_lr.get_xticklabels()] == ["0.0001", "0.0003"]
    first, _second, *_ = by_schedule.collections
    assert np.asarray(first.get_offsets())[:, 0] == pytest.approx([0.96, 0, 1.04])


def test_a_front_keeps_what_nothing_beats(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}", objectives="[same_task, cross_task]")
    pairs = [(0.5, 0.5), (0.75, 0.25), (0.25, 0.25), (0.75, 0.25), (0.75, 0.125)]
    for lr, values in zip((1e-4, 2e-4, 3e-4, 4e-4, 5e-4), pairs, strict=True):
        add_trial(sweep, {LR: lr}, *values)
    drawn = drawn_of(results, sweep)
    assert list(drawn) == ["study_slices", "study_front"]
    numbers = drawn["study_front"].numbers
    assert list(numbers["on_front"]) == [True, True, False, True, False]
    assert list(numbers["accuracy_x"]) == [50, 75, 25, 75, 75]
    assert list(numbers["accuracy_y"]) == [50, 25, 25, 25, 12.5]
    assert set(zip(numbers["objective_x"], numbers["objective_y"], strict=True)) == {("same_task", "cross_task")}
    panel = drawn["study_front"].figure.axes[0]
    assert sorted(text.get_text() for text in panel.texts) == ["0", "1, 3"]
    # One row of slices per objective, each with its own best.
    slices = drawn["study_slices"].numbers
    assert list(slices[slices["is_best"]]["trial"]) == [1, 0]


def test_the_front_is_optunas(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}", objectives="[same_task, cross_task]")
    rng = np.random.default_rng(3)
    points = rng.integers(0, 8, size=(20, 2)) / 8
    for x, y in points:
        add_trial(sweep, {LR: 1e-4}, float(x), float(y))
    study = optuna.load_study(study_name=study_name(sweep, {}), storage=default_storage(results, sweep))
    front = pareto_front([(float(x), float(y)) for x, y in points])
    assert [at for at, on_front in enumerate(front) if on_front] == sorted(one.number for one in study.best_trials)
    assert pareto_front([]) == []


def test_three_objectives_make_three_pairs(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}", objectives="[same_task, cross_task, counting]")
    add_trial(sweep, {LR: 1e-4}, 0.5, 0.25, 0.5)
    add_trial(sweep, {LR: 2e-4}, 0.25, 0.75, 0.25)
    numbers = drawn_of(results, sweep)["study_front"].numbers
    fronts = numbers[numbers["on_front"]].groupby(["objective_x", "objective_y"])["trial"].apply(list).to_dict()
    assert fronts == {
        ("same_task", "cross_task"): [0, 1],
        ("same_task", "counting"): [0],
        ("cross_task", "counting"): [0, 1],
    }


def search_two(sweep: Sweep, add_trial: AddTrial, num_trials: int, value: Callable[[float, float], float]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(num_trials):
        lr, beta = float(10 ** rng.uniform(-5, -3)), float(rng.uniform(0, 0.2))
        add_trial(sweep, {LR: lr, BETA: beta}, value(lr, beta))


def test_a_parameter_that_decides_everything_has_the_importance(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}, beta: {BETA_SPACE}}}")
    search_two(sweep, add_trial, 40, lambda lr, beta: lr * 500)
    numbers = drawn_of(results, sweep)["study_importances"].numbers
    share = dict(zip(numbers["parameter"], numbers["importance"], strict=True))
    assert share[LR] > 0.9
    assert sum(share.values()) == pytest.approx(1)
    assert list(numbers["num_trials"]) == [40, 40]


def test_low_values_are_not_what_importances_look_for(results: Path, make_study, add_trial: AddTrial) -> None:
    """Where beta decides among the good and the learning rate among the bad, beta is what matters."""
    sweep = make_study(f"{{lr: {LR_SPACE}, beta: {BETA_SPACE}}}")
    search_two(sweep, add_trial, 40, lambda lr, beta: 0.5 + beta if beta > 0.1 else 0.5 - 100 * lr)
    numbers = drawn_of(results, sweep)["study_importances"].numbers
    share = dict(zip(numbers["parameter"], numbers["importance"], strict=True))
    assert share[BETA] > share[LR]


@pytest.mark.parametrize(("num_trials", "slope"), [(9, 1.0), (10, 0.0)])
def test_too_few_or_equal_trials_have_no_importances(
    results: Path, make_study, add_trial: AddTrial, num_trials: int, slope: float
) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}, beta: {BETA_SPACE}}}")
    search_two(sweep, add_trial, num_trials, lambda lr, beta: 0.5 + slope * beta)
    assert list(drawn_of(results, sweep)) == ["study_slices", "study_parallel"]


def test_parameters_that_some_trials_lack(results: Path, make_study, add_trial: AddTrial) -> None:
    space = f"{{lr: {LR_SPACE}, schedule: [othink, linear], "
    space += "explore_frac: {low: 0.1, high: 0.9, where: {schedule: othink}}}"
    sweep = make_study(space, "[grpo_d]")
    for place in range(10):
        point = {LR: 1e-4 * (place + 1) / 2, SCHEDULE: ("othink", "linear")[place % 2]}
        add_trial(sweep, point | ({} if place % 2 else {EXPLORE: 0.5}), place / 10)
    drawn = drawn_of(results, sweep)
    assert set(drawn["study_importances"].numbers["parameter"]) == {LR, SCHEDULE}
    assert "have one value: explore_frac." in footnote(drawn["study_importances"].figure)
    slices = drawn["study_slices"].numbers
    assert list(slices[slices["parameter"] == EXPLORE]["trial"]) == [0, 2, 4, 6, 8]
    lines = drawn["study_parallel"].numbers
    of_second = lines[lines["trial"] == 1].set_index("parameter")["value"]
    assert of_second[EXPLORE] is None
    assert of_second[SCHEDULE] == "linear"
    panel = drawn["study_parallel"].figure.axes[0]
    heights = [list(line.get_ydata()) for line in panel.lines if len(line.get_xdata()) == 4]
    assert len(heights) == 10
    assert heights[-1][1:] == pytest.approx([1, -0.2, 1])  # the best trial, drawn last: linear, no value, the top
    assert heights[0][1:] == pytest.approx([0, 0.5, 0])
    # log(0.5e-4 / 1e-5) / log(100)
    assert heights[0][0] == pytest.approx(0.349485)


def test_searches_stand_together_while_they_fit(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}", "[sft, grpo]", "[counting, geometry]", per="[method, source]")
    for search, value in ((0, 0.5), (1, 0.25), (3, 0.75)):
        add_trial(sweep, {LR: 1e-4}, value, search=search)
    add_trial(sweep, {LR: 1e-4}, search=2, state=TrialState.RUNNING)
    [drawn] = drawn_of(results, sweep).values()
    assert list(drawn.numbers["combination"]) == ["sft, counting", "sft, geometry", "grpo, geometry"]
    assert list(drawn.numbers["is_best"]) == [True, True, True]
    assert [axes.get_title(loc="left") for axes in drawn.figure.axes[:3]] == list(drawn.numbers["combination"])
    assert "3 trials of 3 searches: 3 complete." in footnote(drawn.figure)
    assert "No complete trial yet: grpo, counting." in footnote(drawn.figure)


def test_many_rows_of_slices_make_a_figure_per_search(results: Path, make_study, add_trial: AddTrial) -> None:
    space = f"{{lr: {LR_SPACE}, weight_decay: {{low: 0.0, high: 0.1}}}}"
    objectives = "[same_task, cross_task, counting]"
    sweep = make_study(space, "[sft, grpo, grpo_d]", per="[method]", objectives=objectives)
    for search in range(3):
        add_trial(sweep, {LR: 1e-4, "method.weight_decay": 0.05}, 0.5, 0.5, 0.5, search=search)
    names = [name for name in drawn_of(results, sweep) if name.startswith("study_slices")]
    assert names == ["study_slices_sft", "study_slices_grpo", "study_slices_grpo_d"]


def test_nothing_without_a_storage(results: Path, make_study, make_sweep, tmp_path: Path) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}")
    assert drawn_of(results, sweep) == {}
    assert not results.exists()
    default_storage(results, sweep)  # makes the folder
    assert drawn_of(results, sweep) == {}
    elsewhere = tmp_path / "other.db"
    assert list(study_figures(results, sweep, f"sqlite:///{elsewhere}")) == []
    assert not any((results / "studies").iterdir())
    assert not elsewhere.exists()
    without = make_sweep(method="[grpo]", source="[counting]", seed="[0]")
    assert drawn_of(results, without) == {}


def test_nothing_before_the_first_complete_trial(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}")
    add_trial(sweep, {LR: 1e-4}, state=TrialState.RUNNING)
    assert drawn_of(results, sweep) == {}


def test_a_storage_that_is_none(results: Path, make_study, tmp_path: Path) -> None:
    text = tmp_path / "notes.db"
    text.write_text("not a database, but long enough to be looked at " * 20)
    with pytest.raises(UserError, match=r"cannot open the study's storage sqlite:///.*notes\.db"):
        list(study_figures(results, make_study(f"{{lr: {LR_SPACE}}}"), f"sqlite:///{text}"))


def test_importances_of_an_objective_are_its_own(results: Path, make_study, add_trial: AddTrial) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}, beta: {BETA_SPACE}}}", objectives="[same_task, cross_task]")
    rng = np.random.default_rng(1)
    for _ in range(40):
        lr, beta = float(10 ** rng.uniform(-5, -3)), float(rng.uniform(0, 0.2))
        add_trial(sweep, {LR: lr, BETA: beta}, lr * 500, beta * 4)
    data = read_trials(results, sweep)
    assert data is not None
    [search] = data.searches
    assert importances(search, 0)[LR] > 0.9
    assert importances(search, 1)[BETA] > 0.9


def test_files_are_whole_and_the_same_twice(results: Path, make_study, add_trial: AddTrial, tmp_path: Path) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}, beta: {BETA_SPACE}}}", objectives="[same_task, cross_task]")
    rng = np.random.default_rng(2)
    for _ in range(12):
        lr, beta = float(10 ** rng.uniform(-5, -3)), float(rng.uniform(0, 0.2))
        add_trial(sweep, {LR: lr, BETA: beta}, round(float(rng.uniform()), 2), round(float(rng.uniform()), 2))
    first = write_figures(results, sweep.path, tmp_path / "first")
    second = write_figures(results, sweep, tmp_path / "second")
    names = [f"study_{kind}" for kind in ("slices", "importances", "parallel", "front")]
    assert [file.name for file in first.files] == [f"{name}.{suffix}" for name in names for suffix in ("png", "csv")]
    for one, other in zip(first.files, second.files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    for name in names:
        with Image.open(tmp_path / "first" / f"{name}.png") as image:
            pixels = np.asarray(image.convert("L"))
        assert 0.005 < (pixels < 200).mean() < 0.5, name
        rows = list(csv.DictReader((tmp_path / "first" / f"{name}.csv").read_text().splitlines()))
        assert all(row["study"] == study_name(sweep, {}) and row["run_ids"] for row in rows), name
    for drawn in drawn_of(results, sweep).values():
        sizes = [text.get_fontsize() for text in drawn.figure.findobj(Text) if text.get_text()]
        assert min(sizes) >= SMALL_PT, drawn.name


def test_the_verb_draws_a_study_from_another_storage(
    results: Path, make_study, add_trial: AddTrial, tmp_path: Path
) -> None:
    sweep = make_study(f"{{lr: {LR_SPACE}}}")
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    add_trial(sweep, {LR: 1e-4}, 0.5, storage=url)
    options = ["--results", str(results), "--out", str(tmp_path / "out")]
    ended = CliRunner().invoke(app, ["figures", str(sweep.path), *options, "--storage", url])
    assert ended.stdout.split() == [str(tmp_path / "out" / f"study_slices.{suffix}") for suffix in ("png", "csv")]
    assert CliRunner().invoke(app, ["figures", str(sweep.path), *options]).stdout == ""
    # A record does not tell what was searched.
    write_sweep_record(results, sweep)
    assert CliRunner().invoke(app, ["figures", "s", *options, "--storage", url]).stdout == ""
