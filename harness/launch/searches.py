"""A study's searches as the runs of a driver, and where Optuna keeps them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from optuna.trial import TrialState

from harness.errors import SpecError, UserError
from harness.launch.feed import End
from harness.launch.objectives import check_objectives
from harness.launch.search import ENDED, Proposal, Search
from harness.record.folder import RunFolder
from harness.record.lease import BEATS, Lease, read_owner, reserve
from harness.record.pulse import Watch
from harness.record.studies import default_storage
from harness.record.sweep_record import write_sweep_record
from harness.spec.sweep import Sweep, SweepRun


class Searches:
    """A study's searches as a driver's feed; they take turns, so that all have the same budget at any time.

    Args:
        sweep: With a study.
        results: The results folder.
        pulse: The driver's sign of life.
        storage: A URL as Optuna takes it; by default a SQLite file in the results folder.

    Raises:
        SpecError: An objective without a target, or a pruner without evaluations to go by.
        UserError: The storage cannot be opened, or another driver on these results is searching the study.
    """

    def __init__(self, sweep: Sweep, results: str | Path, pulse: Path, storage: str | None = None) -> None:
        assert sweep.study is not None
        self._results, self._sweep, self._study = Path(results), sweep, sweep.study
        if self._study.pruner != "none" and not sweep.evaluation.every:
            raise SpecError("a pruner goes by evaluations during training: set evaluation.every", file=sweep.path)
        for found in sweep.searches:
            check_objectives(self._study, sweep.trial(found, sweep.probe))
        # The process that owns the study; two would both propose, and both tell.
        self._lease = _take(self._results / "studies" / f".{sweep.name}", pulse, sweep)
        storage = storage or default_storage(results, sweep)
        self._searches = [Search(sweep, found, storage) for found in sweep.searches]
        self._started = time.monotonic()
        # With them the runs of trials that are over: counted where they are complete, made again where they were lost.
        self._beside = list(self._known((TrialState.COMPLETE,)).runs.values())
        self._old = [proposal for search in self._searches for proposal in search.under_way()]
        self._open: list[Proposal] = []
        self._looked: dict[str, int] = {}
        self._record()

    @property
    def num_runs(self) -> int:
        """Runs of the trials so far, of those still to propose at the size of a trial, and beside them."""
        coming = 0
        for search in self._searches:
            cells = self._sweep.trial(search.combination, self._sweep.probe)
            coming += (search.num_left or 0) * len({cell.run_id for cell in cells})
        return len(self._known().runs) + coming

    @property
    def exhausted(self) -> bool:
        """Whether no trial is open and none will follow."""
        return not (self._beside or self._old or self._open or self._next())

    def more(self) -> list[SweepRun]:
        """The runs of the next trial; first those without a setting of the space, and trials that were cut off."""
        if self._beside:
            runs, self._beside = self._beside, []
            return runs
        proposal = self._old.pop(0) if self._old else None
        while proposal is None:
            search = self._next()
            if search is None:
                return []
            proposal = search.ask()
            self._record()
        self._open.append(proposal)
        return [SweepRun(cell.run_id, cell.spec, cell.targets) for cell in proposal.cells]

    def ended(self, run_id: str, end: End) -> None:
        """Notes the end of a run, and tells the trials that it completes."""
        for proposal in [proposal for proposal in self._open if run_id in proposal.run_ids]:
            proposal.ends[run_id] = end
            if proposal.over:
                proposal.search.tell(proposal, self._results)
                self._open.remove(proposal)

    def is_unwanted(self, run_id: str) -> bool:
        """Whether every trial that wants a run was pruned."""
        wanting = [proposal for proposal in self._open if run_id in proposal.run_ids]
        if self._study.pruner == "none" or not wanting:
            return False
        is_news = self._is_news(run_id)
        for proposal in wanting:
            if not proposal.pruned and is_news:
                proposal.pruned = proposal.search.should_prune(proposal, self._results)
        return all(proposal.pruned for proposal in wanting)

    def close(self) -> None:
        """Leaves the study to another driver."""
        self._lease.release()

    def _is_news(self, run_id: str) -> bool:
        """Whether a run's metrics have grown since they were last looked at."""
        path = RunFolder(self._results, run_id).metrics
        size = path.stat().st_size if path.exists() else 0
        before, self._looked[run_id] = self._looked.get(run_id, 0), size
        return size > before

    def _next(self) -> Search | None:
        late = self._study.timeout_s is not None and time.monotonic() - self._started > self._study.timeout_s
        able = [search for search in self._searches if search.num_left != 0]
        return None if late or not able else min(able, key=lambda search: search.num_begun)

    def _known(self, states: Sequence[TrialState] = (TrialState.RUNNING, *ENDED)) -> Sweep:
        return self._sweep.with_trials(
            (search.combination, trial.params)
            for search in self._searches
            for trial in search.trials
            if trial.state in states and trial.user_attrs.get("run_ids")
        )

    def _record(self) -> None:
        trials = [
            {
                "study": search.name,
                "number": trial.number,
                "combination": search.combination,
                "point": trial.params,
                "run_ids": trial.user_attrs["run_ids"],
            }
            for search in self._searches
            for trial in search.trials
            if trial.user_attrs.get("run_ids")
        ]
        write_sweep_record(self._results, self._known(), trials)


def _take(folder: Path, pulse: Path, sweep: Sweep) -> Lease:
    """The lease of a study; one of a driver on another machine that may be dead is watched for as long as it takes."""
    watch, lease_s = Watch(), sweep.execution.lease_s
    while (owner := read_owner(folder)) is not None and not owner.is_gone(watch):
        if owner.process.is_alive or watch.has_changed(owner.pulse):
            break
        time.sleep(lease_s / BEATS)
    else:
        lease = reserve(folder, owner, pulse=pulse, lease_s=lease_s)
        if lease is not None:
            return lease
    raise UserError(f"another driver is searching {sweep.name}: wait for it, or stop it with `harness stop`")
