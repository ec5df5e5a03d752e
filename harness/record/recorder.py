"""What a worker tells of its run as it goes; the run folder is the record, W&B a copy of it."""

from __future__ import annotations

import dataclasses
import math
import os
import socket
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.record.atomic import file_digest, read_json, read_jsonl, remove_temporaries, sync
from harness.record.failures import Failure, failure_of
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.marks import write_mark
from harness.record.mirror.mirror import FINISH_TIMEOUT_S, Mirror
from harness.record.provenance import provenance
from harness.record.state import SUMMARY_KEYS, Phase, RunState, write_state
from harness.spec.methods import Split

if TYPE_CHECKING:
    from harness.spec.run import Job

STATE_INTERVAL_S = 1.0
"""Between two writes of `state.json`; a step of the embedded policy is far shorter."""

STOP_TIMEOUT_S = 5.0
"""For the mirrors of an interrupted run: whoever stopped it will kill it soon."""


class Recorder:
    """Writes the folder of one run for one worker.

    Order of calls: `start`, `resume_from` where a checkpoint was found, any of the events, and one of `complete`,
    `fail` and `interrupt`. A row's `step` is the index of the training step it belongs to, from 0; an evaluation
    between two steps belongs to the one just done.

    Args:
        folder: The run's.
        job: What the worker was handed.
        mirrors: What follows the folder for dashboards.
        files: The way to write, of who holds the folder; by default nobody else writes there.
    """

    def __init__(self, folder: RunFolder, job: Job, mirrors: Sequence[Mirror] = (), files: Files | None = None) -> None:
        self.folder = folder
        self._files = files or Files(folder.path)
        self._job = job
        self._mirrors = tuple(mirrors)
        self._state = RunState()
        self._written = -math.inf
        self._record: dict[str, Any] = {}
        self.measured: dict[str, Any] = {}
        """What this attempt took, in seconds and GiB; kept with the attempt when it ends."""

    def start(self, device: str, **resolved: Any) -> None:
        """Opens an attempt: `run.json`, and the state `running`.

        Args:
            device: The device that was chosen.
            **resolved: Whatever else the worker settled, as JSON values.
        """
        self.folder.path.mkdir(parents=True, exist_ok=True)
        remove_temporaries(self.folder.path)
        attempts = self._earlier_attempts()
        number = len(attempts) + 1
        source = provenance()
        attempt = {
            "number": number,
            "generation": number,
            "start_step": 0,
            "started": _now(),
            "ended": None,
            "outcome": None,
            "device": device,
            "host": source["host"],
            "pid": os.getpid(),
            "commit": source["commit"],
            "dirty": source["dirty"],
        }
        self._record = {
            "run_id": self.folder.run_id,
            "spec": self._job.spec.model_dump(mode="json"),
            "job": self._job.model_dump(mode="json", exclude={"spec"}),
            "resolved": {"device": device, **resolved},
            "provenance": source,
            "attempts": [*attempts, attempt],
        }
        self._files.write_json(self.folder.run_json, self._record)
        self._state = RunState(
            status="running",
            phase="load",
            pid=os.getpid(),
            host=socket.gethostname(),
            attempts=number,
        )
        self._write_state()

    def resume_from(self, step: int) -> None:
        """Goes on from a checkpoint taken when `step` steps were done: drops the rows of that step and later.

        Step 0 means from the start: the attempt is then the first of a new generation.
        """
        for path in (self.folder.metrics, self.folder.completions, self.folder.validations):
            if path.exists():
                # Written anew even where nothing is dropped: what a late owner still appends goes to the old file.
                self._files.write_jsonl(path, [row for row in read_jsonl(path) if row["step"] < step])
        attempts = self._record["attempts"]
        if step > 0 and len(attempts) > 1:
            attempts[-1]["generation"] = attempts[-2]["generation"]
        attempts[-1]["start_step"] = step
        self._files.write_json(self.folder.run_json, self._record)

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Appends a step's metrics to `metrics.jsonl`; a number that is not finite is kept as null."""
        numbers = {key: _number(value) for key, value in values.items()}
        self._files.append_jsonl(self.folder.metrics, {"step": step, **numbers})
        self._tell_mirrors()

    def completions(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends sampled completions to `completions.jsonl`.

        Args:
            step: The training step.
            rows: Each with id, question, completion, reward, accuracy, format and advantage.
        """
        self._files.append_jsonl(self.folder.completions, ({"step": step, **row} for row in rows))

    def validation(
        self, step: int, target: str, values: Mapping[str, float], rows: Iterable[Mapping[str, Any]] = ()
    ) -> None:
        """Appends an evaluation during training to `metrics.jsonl`, and what was answered to `validations.jsonl`.

        Args:
            step: The training step just done.
            target: The task.
            values: `accuracy` and `format` in [0, 1]; a key becomes `eval/<target>/<key>`.
            rows: One per validation example, as :meth:`evaluation` takes them.
        """
        self._files.append_jsonl(self.folder.validations, ({"step": step, "target": target, **one} for one in rows))
        row = {f"eval/{target}/{key}": _number(value) for key, value in values.items()}
        self._files.append_jsonl(self.folder.metrics, {"step": step, **row})
        self._tell_mirrors()

    def evaluation(self, target: str, rows: Iterable[Mapping[str, Any]], split: Split = "test") -> None:
        """Writes the file of an evaluation whole.

        Args:
            target: The task.
            rows: One per example, in order: index, id, question, completion, extracted, correct, format,
                accuracy_reward, solution, num_tokens.
            split: Of the examples; mirrors show the test split alone.
        """
        self._files.write_jsonl(self.folder.evaluation(target, split), rows)
        self._tell_mirrors()

    def progress(self, phase: Phase, step: int, num_steps: int, target: str | None = None) -> None:
        """Says how far the run is; written at most about once a second, but always when phase or target change."""
        before = self._state
        self._state = dataclasses.replace(
            before,
            phase=phase,
            step=step,
            num_steps=num_steps,
            target=target,
            peak_host_gib=self.measured.get("peak_host_gib"),
            peak_device_gib=self.measured.get("peak_device_gib"),
        )
        turned = (phase, target) != (before.phase, before.target)
        if turned or time.monotonic() - self._written >= STATE_INTERVAL_S:
            self._write_state()

    def sync(self) -> None:
        """Forces the appended rows to disk; to be called before a checkpoint that relies on them."""
        for path in (self.folder.metrics, self.folder.completions, self.folder.validations, self.folder.path):
            sync(path)

    def mark(self, step: int) -> None:
        """Forces the rows of the first `step` steps to disk and notes what they are; a checkpoint may rely on them."""
        self.sync()
        write_mark(self.folder, self._files, step)

    def complete(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`, which makes the run completed, and says where everything is.

        It holds the size and SHA-256 of each evaluation's file, so that no reader takes a damaged one for whole.

        Args:
            summary: Holds `evaluations`: target -> num_examples, num_correct, accuracy, format, protocol and more;
                and `validations` likewise, where there are any.

        Raises:
            ValueError: An evaluation of the summary has no file, or there are no evaluations in it.
        """
        if "evaluations" not in summary:
            raise ValueError("a summary needs its evaluations")
        missing = [
            target
            for split, key in SUMMARY_KEYS.items()
            for target in summary.get(key, ())
            if not self.folder.evaluation(target, split).exists()
        ]
        if missing:
            raise ValueError(f"no evaluation on record for {', '.join(missing)}")
        self.sync()
        self._end_attempt("completed")
        evidence = {
            str(path.relative_to(self.folder.path)): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
            for split, key in SUMMARY_KEYS.items()
            for path in (self.folder.evaluation(target, split) for target in summary.get(key, ()))
        }
        self._files.write_json(self.folder.summary, {"run_id": self.folder.run_id, **summary, "files": evidence})
        sync(self.folder.path)
        self._state = dataclasses.replace(self._state, status="completed", target=None)
        self._write_state()
        print(f"completed: {self.folder.path}", flush=True)
        # The mirrors come last: whether W&B can be reached is no part of being completed.
        self._finish_mirrors(exit_code=0)
        for mirror in self._mirrors:
            print(mirror.whereabouts, flush=True)

    def fail(self, error: BaseException, failure: Failure | None = None) -> None:
        """Records why the run failed.

        Args:
            error: As it was caught.
            failure: Its class, where another process knows it better than the error tells.
        """
        self._state = dataclasses.replace(
            self._state,
            status="failed",
            error=" ".join(str(error).split()) or type(error).__name__,
            error_type=type(error).__name__,
            failure=failure or failure_of(error),
            traceback="".join(traceback.format_exception(error)),
        )
        self._write_state()
        self._end_attempt("failed")
        self._finish_mirrors(exit_code=1)

    def interrupt(self, step: int) -> None:
        """Records that the run stopped after `step` steps, with a checkpoint to go on from."""
        self.sync()
        self._state = dataclasses.replace(self._state, status="pending", step=step)
        self._write_state()
        self._end_attempt("interrupted")
        self._finish_mirrors(exit_code=143, timeout_s=STOP_TIMEOUT_S)

    def _tell_mirrors(self) -> None:
        for mirror in self._mirrors:
            mirror.look()

    def _finish_mirrors(self, exit_code: int, timeout_s: float = FINISH_TIMEOUT_S) -> None:
        for mirror in self._mirrors:
            mirror.finish(exit_code, timeout_s)

    def _write_state(self) -> None:
        self._state = dataclasses.replace(self._state, heartbeat=time.time())
        write_state(self.folder, self._state, self._files)
        self._written = time.monotonic()

    def _earlier_attempts(self) -> list[dict[str, Any]]:
        try:
            attempts: list[dict[str, Any]] = read_json(self.folder.run_json)["attempts"]
        except FileNotFoundError:
            return []
        return attempts

    def _end_attempt(self, outcome: str) -> None:
        if not self._record:  # failed before `start`
            return
        self._record["attempts"][-1].update(ended=_now(), outcome=outcome, measured=self.measured)
        self._files.write_json(self.folder.run_json, self._record)


def job_folder(job: Job) -> RunFolder:
    """The run folder that a job writes to."""
    return RunFolder(Path(job.results), job.spec.run_id)


def _number(value: Any) -> float | int | None:
    """A JSON number for a Python, numpy or torch scalar."""
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
