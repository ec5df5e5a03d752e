"""How sure a search's best trial is: seeds are drawn, targets and sources are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import optuna
import pytest

from harness.errors import DataError
from harness.record.atomic import write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.record.studies import default_storage, study_name
from harness.report.winners import Winner, find_winners
from harness.spec.run import RunSpec
from harness.spec.sweep import load_sweep

Scores = Callable[[RunSpec], Mapping[str, Sequence[int]]]


@pytest.fixture
def winner(tmp_path: Path) -> Callable[..., Winner]:
    """The only trial of a search, whose runs have these validation verdicts."""

    def find(axes: str, objective: str, scores: Scores, *, targets: str = "counting, geometry, charts") -> Winner:
        file, results = tmp_path / "search.yaml", tmp_path / "results"
        file.write_text(
            f"name: search\nbase: {{method: grpo}}\naxes: {axes}\ntargets: [{targets}]\n"
            "evaluation: {num_validation: 4}\n"
            f"study: {{space: {{lr: [1e-4]}}, sampler: grid, objectives: [{objective}]}}\n"
        )
        sweep = load_sweep(file)
        for run_id, run in sweep.runs.items():
            folder, counted = RunFolder(results, run_id), {}
            for target, correct in scores(run.spec).items():
                verdicts = [{"index": n, "correct": bool(one), "format": True} for n, one in enumerate(correct)]
                write_jsonl(folder.evaluation(target, "validation"), verdicts)
                counted[target] = {
                    "num_examples": len(correct),
                    "num_correct": sum(correct),
                    "split_size": len(correct),
                }
            write_json(folder.summary, {"run_id": run_id, "evaluations": {}, "validations": counted})
        storage = default_storage(results, sweep)
        study = optuna.create_study(storage=storage, study_name=study_name(sweep, {}))
        choices = {"method.lr": optuna.distributions.CategoricalDistribution([1e-4])}
        study.add_trial(optuna.trial.create_trial(params={"method.lr": 1e-4}, distributions=choices, value=0.5))
        [found] = find_winners(sweep, results)
        return found

    return find


def test_targets_are_no_seeds(winner) -> None:
    # Three seeds that agree on everything: geometry always right, charts never. Nothing is left to chance.
    seeds = "{source: [counting], seed: [0, 1, 2]}"
    found = winner(seeds, "cross_task", lambda spec: {"counting": [0] * 4, "geometry": [1] * 4, "charts": [0] * 4})
    assert found.estimate == (0.5, 0.5, 0.5)


def test_sources_are_no_seeds(winner) -> None:
    # Four runs, but two seeds: too few for an interval over seeds; over examples there is nothing to draw.
    axes = "{source: [counting, geometry], seed: [0, 1]}"
    found = winner(axes, "same_task", lambda spec: {"counting": [1] * 4, "geometry": [0] * 4, "charts": [1] * 4})
    assert found.estimate == (0.5, 0.5, 0.5)


def test_seeds_that_differ_widen_the_interval(winner) -> None:
    # Seeds 0 and 1 are right everywhere, seed 2 nowhere: a draw of three seeds has 0 to 3 wrong ones, each end with
    # (1/3)^3 = 3.7 % and (2/3)^3 = 30 %. Both are more than the 2.5 % that an interval cuts off.
    scores = {0: [1] * 4, 1: [1] * 4, 2: [0] * 4}
    seeds = "{source: [counting], seed: [0, 1, 2]}"
    found = winner(
        seeds, "cross_task", lambda spec: dict.fromkeys(("counting", "geometry", "charts"), scores[spec.seed])
    )
    assert found.estimate == (pytest.approx(2 / 3), 0.0, 1.0)


def test_targets_of_other_sizes_count_alike(winner) -> None:
    # A target with fewer examples than asked for: the objective is the mean of 1/2 and 1, whatever their examples.
    def scores(spec: RunSpec) -> dict[str, list[int]]:
        return {"counting": [0] * 4, "geometry": [1, 0, 1, 0], "charts": [1, 1]}

    found = winner("{source: [counting], seed: [0]}", "cross_task", scores)
    assert found.estimate.mean == pytest.approx(0.75)
    # Over the four examples of geometry alone: from 0 right to 4 right, halved, plus the half of charts.
    assert (found.estimate.low, found.estimate.high) == (0.5, 1.0)


def test_a_winner_without_its_runs_is_an_error(winner) -> None:
    with pytest.raises(DataError, match="no validation verdicts on geometry"):
        winner("{source: [counting], seed: [0]}", "cross_task", lambda spec: {"counting": [1] * 4, "charts": [1] * 4})
