"""What a study found: the best trial of each search, and a sweep file that uses it on fresh seeds.

A winner was chosen on validation examples because it did best there, so its validation accuracy flatters it. The sweep
file that is written asks for the test split and for seeds that the search did not use.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from harness.errors import DataError, UserError
from harness.record.studies import default_storage, study_name
from harness.report.collect import measure
from harness.report.stats import MIN_SEEDS, Estimate, bootstrap_of_sum, interval_rng
from harness.spec.expand import Cell
from harness.spec.keys import Value
from harness.spec.methods import Evaluation
from harness.spec.study import targets_of
from harness.spec.sweep import Sweep
from harness.spec.yaml_places import read_yaml


@dataclass(frozen=True)
class Winner:
    """The best trial of one search.

    Attributes:
        combination: What was searched on its own.
        study: Optuna's name of the study.
        num_trials: By state, such as ``{"COMPLETE": 18, "PRUNED": 2}``.
        number: The winner's number.
        point: Its settings.
        values: The objectives, in [0, 1], in the study's order.
        estimate: The first objective on the validation verdicts of its runs, with an interval over seeds and each
            target's examples (over examples alone below three seeds).
        num_examples: Validation examples per run and target.
        run_ids: Its runs.
        runners_up: Points and first objectives of the next best, best first.
    """

    combination: Mapping[str, Value]
    study: str
    num_trials: Mapping[str, int]
    number: int
    point: Mapping[str, Value]
    values: tuple[float, ...]
    estimate: Estimate
    num_examples: int
    run_ids: tuple[str, ...]
    runners_up: tuple[tuple[Mapping[str, Value], float], ...]


def find_winners(
    sweep: Sweep, results: str | Path, storage: str | None = None, *, partial: bool = False
) -> list[Winner]:
    """The best complete trial of every search; among equals the earliest.

    With several objectives the first decides; the front is Optuna's to show.

    Args:
        sweep: With a study.
        results: The results folder.
        storage: A URL as Optuna takes it; by default the study's SQLite file.
        partial: Whether a search without a complete trial is left out.

    Raises:
        UserError: The sweep has no study, or, unless `partial`, a search has no complete trial yet.
    """
    import optuna

    if sweep.study is None:
        raise UserError(f"{sweep.path} has no study: there is nothing to choose from")
    winners = []
    for combination in sweep.searches:
        name = study_name(sweep, combination)
        trials = []
        with contextlib.suppress(KeyError):
            trials = optuna.load_study(study_name=name, storage=storage or default_storage(results, sweep)).trials
        complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
        if not complete:
            if partial:
                continue
            raise UserError(f"the search {name} has no complete trial: harness run {sweep.path}")
        ranked = sorted(complete, key=lambda trial: -trial.values[0])
        best = ranked[0]
        cells = sweep.trial(combination, best.params)
        states = [trial.state.name for trial in trials]
        winners.append(
            Winner(
                combination=combination,
                study=name,
                num_trials={state: states.count(state) for state in dict.fromkeys(states)},
                number=best.number,
                point=best.params,
                values=tuple(best.values),
                estimate=_estimate(results, cells, sweep.study.objectives[0], sweep.evaluation),
                num_examples=sweep.evaluation.num_validation,
                run_ids=tuple(dict.fromkeys(cell.run_id for cell in cells)),
                runners_up=tuple((trial.params, trial.values[0]) for trial in ranked[1:4]),
            )
        )
    return winners


def _estimate(results: str | Path, cells: Sequence[Cell], objective: str, evaluation: Evaluation) -> Estimate:
    """Of an objective on validation examples: the mean over a trial's runs of the mean over each one's targets.

    Raises:
        DataError: A seed's runs are not all in the results folder.
    """
    asked = evaluation.model_copy(update={"splits": ("validation",)})
    # By target and seed, the sum over that seed's runs of their verdicts, each times its weight in the mean.
    sums: dict[str, dict[int, NDArray[np.float64]]] = {}
    runs = {cell.run_id: cell for cell in cells}
    per_seed = len(runs) / len({cell.spec.seed for cell in runs.values()})
    for run_id, cell in runs.items():
        targets = targets_of(objective, cell.spec.source, cell.targets)
        for target in targets:
            measured = measure(results, run_id, target, asked)
            if measured is None:
                raise DataError(f"{run_id} of the best trial has no validation verdicts on {target} in {results}")
            of_target = sums.setdefault(target, {})
            verdicts = measured.correct / (len(targets) * per_seed)
            of_target[cell.spec.seed] = of_target.get(cell.spec.seed, 0.0) + verdicts
    seeds = list(dict.fromkeys(cell.spec.seed for cell in runs.values()))
    parts = []
    for of_target in sums.values():
        nothing = np.zeros_like(next(iter(of_target.values())))
        parts.append([of_target.get(seed, nothing) for seed in seeds])
    return bootstrap_of_sum(parts, interval_rng("winner", *runs), over_seeds=len(seeds) >= MIN_SEEDS)


def winner_lines(winners: Sequence[Winner], objectives: Sequence[str]) -> list[str]:
    """A sentence or two per search, for people."""
    lines = []
    for winner in winners:
        counts = ", ".join(f"{count} {state.lower()}" for state, count in winner.num_trials.items())
        values = ", ".join(f"{name} {value:.1%}" for name, value in zip(objectives, winner.values, strict=True))
        low, high = winner.estimate.low, winner.estimate.high
        interval = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
        lines.append(f"{winner.study}: {counts}; trial {winner.number}: {_shown(winner.point)}")
        lines.append(f"  {values}{interval} on {winner.num_examples} validation examples, {len(winner.run_ids)} runs")
        for point, value in winner.runners_up:
            lines.append(f"  then {value:.1%}: {_shown(point)}")
    return lines


def tuned_sweep(sweep: Sweep, winners: Sequence[Winner], num_seeds: int, provenance: Mapping[str, Any]) -> str:
    """The text of a sweep file with the winners' settings, on seeds that the search did not use and the test split.

    Args:
        sweep: The study's.
        winners: Of all its searches.
        num_seeds: How many seeds it asks for.
        provenance: `commit` and `dirty` of the code.
    """
    assert sweep.study is not None
    written = read_yaml(sweep.path).value
    tried = [cell for winner in winners for cell in sweep.trial(winner.combination, winner.point)]
    used = {cell.spec.seed for cell in tried}
    seeds = [seed for seed in range(num_seeds + len(used)) if seed not in used][:num_seeds]
    axes = {key: value for key, value in written.get("axes", {}).items() if key != "seed"}
    blocks = list(written.get("blocks", ()))
    for winner in winners:
        cells = sweep.trial(winner.combination, winner.point)
        methods = list(dict.fromkeys(cell.spec.method.type for cell in cells))
        combination = {key: sweep.data.get(value, value) for key, value in winner.combination.items()}
        where = {**combination, "method": methods[0] if len(methods) == 1 else methods}
        blocks.append({"where": where, "set": {key.removeprefix("method."): v for key, v in winner.point.items()}})
    evaluation = {key: value for key, value in written.get("evaluation", {}).items() if key != "splits"}
    content = {
        "name": f"{sweep.name}_tuned",
        "description": f"The winners of {sweep.name}, on fresh seeds and test examples.",
        **({"base": written["base"]} if "base" in written else {}),
        "axes": {**axes, "seed": seeds},
        "blocks": blocks,
        "targets": [sweep.data.get(target, target) for target in sweep.targets],
        **({"evaluation": evaluation} if evaluation else {}),
    }
    dirty = " with changes that were not committed" if provenance.get("dirty") else ""
    study = sweep.study
    comment = [
        f"Written by `harness tune {sweep.path}` at commit {provenance.get('commit')}{dirty}.",
        f"Each search: sampler {study.sampler}, seed {study.seed}, pruner {study.pruner}; seeds of its runs "
        f"{', '.join(map(str, sorted(used)))}. The best of many on",
        "validation examples is flattered by them: only this file's own runs, on the test split, say how good it is.",
        "",
        *winner_lines(winners, study.objectives),
    ]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)
    return "\n".join(f"# {line}".rstrip() for line in comment) + "\n" + text


def _shown(point: Mapping[str, Value]) -> str:
    words = {key.removeprefix("method."): value for key, value in point.items()}
    return ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in words.items()
    )
