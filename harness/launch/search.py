"""The searches of a study: Optuna proposes points, the driver runs them, and what came out is told back.

One process owns the study (the driver), so a point is proposed once however many workers run, and SQLite is enough.
The sampler is made anew for each proposal from the study's seed and the trial's number: it carries nothing in memory,
so a search that was stopped proposes what an uninterrupted one would have proposed, given the same trials before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from harness.errors import SpecError, UserError
from harness.launch.feed import End
from harness.launch.objectives import final_values, interim_values, timeline
from harness.record.studies import storage_error, study_name
from harness.spec.expand import Cell
from harness.spec.keys import Value
from harness.spec.methods import Trained
from harness.spec.study import Parameter, Point, Study
from harness.spec.sweep import Sweep

ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclass
class Proposal:
    """A trial under way."""

    search: Search
    trial: Trial
    point: dict[str, Value]
    cells: tuple[Cell, ...]
    ends: dict[str, End] = field(default_factory=dict)
    pruned: bool = False

    @property
    def run_ids(self) -> list[str]:
        """Its runs."""
        return list(dict.fromkeys(cell.run_id for cell in self.cells))

    @property
    def over(self) -> bool:
        """Whether all its runs have ended."""
        return all(run_id in self.ends for run_id in self.run_ids)


class Search:
    """One Optuna study: the space searched for one combination of the study's `per`.

    Args:
        sweep: With a study.
        combination: One of the sweep's searches.
        storage: A URL as Optuna takes it.

    Raises:
        UserError: The storage cannot be opened.
    """

    def __init__(self, sweep: Sweep, combination: Mapping[str, Value], storage: str) -> None:
        assert sweep.study is not None
        self.sweep, self.combination, self.settings = sweep, dict(combination), sweep.study
        self.name = study_name(sweep, combination)
        try:
            self.study = optuna.create_study(
                study_name=self.name,
                storage=storage,
                directions=["maximize"] * len(self.settings.objectives),
                pruner=make_pruner(self.settings, max_resource=_max_resource(sweep)),
                load_if_exists=True,
            )
        except Exception as error:
            raise storage_error(storage, error) from error
        if self.settings.sampler == "grid":
            self._enqueue(self.settings.grid(self.combination))
        elif not self.trials:
            self._enqueue(self.settings.first)

    def _enqueue(self, points: list[dict[str, Value]] | tuple[Point, ...]) -> None:
        """Lines up points that were not proposed yet, or failed."""
        known = [
            trial.params or trial.system_attrs.get("fixed_params", {})
            for trial in self.trials
            if trial.state != TrialState.FAIL
        ]
        for point in points:
            if dict(point) not in known:
                self.study.enqueue_trial(dict(point))

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials, in order of their numbers."""
        return self.study.get_trials(deepcopy=False)

    @property
    def num_begun(self) -> int:
        """Trials that were proposed."""
        return sum(trial.state != TrialState.WAITING for trial in self.trials)

    @property
    def num_left(self) -> int | None:
        """Trials still to propose; None for no limit but time."""
        waiting = sum(trial.state == TrialState.WAITING for trial in self.trials)
        if self.settings.sampler == "grid":
            limit = self.settings.num_trials
            return waiting if limit is None else min(waiting, max(limit - self.num_begun, 0))
        return None if self.settings.num_trials is None else max(self.settings.num_trials - self.num_begun, 0)

    def ask(self) -> Proposal | None:
        """The next trial; None for one that no run can be made of, which has failed by that."""
        # Of the number that this trial will have.
        waiting = [trial.number for trial in self.trials if trial.state == TrialState.WAITING]
        number = waiting[0] if waiting else len(self.trials)
        self.study.sampler = make_sampler(self.settings, number)
        return self._proposal(self.study.ask())

    def under_way(self) -> list[Proposal]:
        """Trials that an earlier driver proposed and did not see the end of."""
        found = [self._reattached(trial) for trial in self.trials if trial.state == TrialState.RUNNING]
        return [proposal for proposal in found if proposal is not None]

    def _reattached(self, frozen: FrozenTrial) -> Proposal | None:
        self.study.sampler = make_sampler(self.settings, frozen.number)
        return self._proposal(Trial(self.study, frozen._trial_id))

    def _proposal(self, trial: Trial) -> Proposal | None:
        point: dict[str, Value] = {}
        for parameter in self.settings.space:
            if parameter.exists({**self.combination, **point}):
                point[parameter.key] = _suggest(trial, parameter)
        try:
            cells = self.sweep.trial(self.combination, point)
            if not cells:
                raise SpecError("the point takes effect in no cell of the sweep")
        except SpecError as error:
            # Such as a beta_min that was drawn above its beta_max: the point's fault, and no reason to end the search.
            trial.set_user_attr("error", error.message)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        proposal = Proposal(self, trial, point, cells)
        trial.set_user_attr("run_ids", proposal.run_ids)
        return proposal

    def tell(self, proposal: Proposal, results: Path) -> None:
        """Tells Optuna how a trial ended, unless another driver has done so."""
        values = None
        if proposal.pruned:
            state = TrialState.PRUNED
        elif any(end != "completed" for end in proposal.ends.values()):
            state = TrialState.FAIL
        else:
            state = TrialState.COMPLETE
            values = final_values(results, proposal.cells, self.settings.objectives)
            # All of its line, also what came after the last look: later trials are compared with it.
            for place, value in self._news(proposal, results).items():
                proposal.trial.report(value, place)
        self.study.tell(proposal.trial, values, state=state, skip_if_finished=True)

    def should_prune(self, proposal: Proposal, results: Path) -> bool:
        """Whether a trial looks worse than the ones before it, by what its runs have shown so far."""
        for place, value in self._news(proposal, results).items():
            proposal.trial.report(value, place)
            if proposal.trial.should_prune():
                return True
        return False

    def _news(self, proposal: Proposal, results: Path) -> dict[int, float]:
        """What Optuna does not know yet of a trial's line of progress; nothing where nobody prunes."""
        if self.settings.pruner == "none":
            return {}
        [objective] = self.settings.objectives
        interim = [interim_values(results, cell, objective) for cell in proposal.cells]
        frozen = self.trials[proposal.trial.number]
        if frozen.state.is_finished():
            return {}
        line = timeline(interim, _num_steps(proposal.cells))
        return {place: value for place, value in line.items() if place not in frozen.intermediate_values}


def make_sampler(study: Study, number: int) -> optuna.samplers.BaseSampler:
    """The sampler of a trial, seeded by the study's seed and the trial's number.

    Raises:
        UserError: `cmaes` without the package of that name.
    """
    seed = (study.seed * 1_000_003 + number) % 2**32
    match study.sampler:
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed)
        case "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        case "gp":
            return optuna.samplers.GPSampler(seed=seed)
        case "cmaes":
            if find_spec("cmaes") is None:
                raise UserError("the sampler 'cmaes' needs the extra: pip install 'grpo-d-harness[cmaes]'")
            return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case _:
            return optuna.samplers.RandomSampler(seed=seed)


def make_pruner(study: Study, max_resource: int) -> optuna.pruners.BasePruner:
    """The pruner.

    Args:
        study: Names it.
        max_resource: The last place of a trial's line of progress.
    """
    match study.pruner:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner()
        case "hyperband":
            return optuna.pruners.HyperbandPruner(max_resource=max_resource)
        case _:
            return optuna.pruners.NopPruner()


def _suggest(trial: Trial, parameter: Parameter) -> Value:
    if parameter.choices:
        return trial.suggest_categorical(parameter.key, parameter.choices)
    if parameter.is_whole:
        low, high, step = int(parameter.low), int(parameter.high), int(parameter.step or 1)
        return trial.suggest_int(parameter.key, low, high, step=step, log=parameter.log)
    return trial.suggest_float(parameter.key, parameter.low, parameter.high, step=parameter.step, log=parameter.log)


def _num_steps(cells: tuple[Cell, ...]) -> int:
    methods = [cell.spec.method for cell in cells]
    return max(method.num_steps for method in methods if isinstance(method, Trained))


def _max_resource(sweep: Sweep) -> int:
    return max(
        _num_steps(cells) * len(cells)
        for cells in (sweep.trial(combination, sweep.probe) for combination in sweep.searches)
    )
