"""One run, from its spec to its summary: load, train, keep the weights, evaluate on every target.

Started as ``python -m harness.worker <job.json>``, it starts the further processes of a run on several devices itself;
under torchrun they are there already. Exit codes: 0 completed, 1 failed with the reason in `state.json`, 143 asked to
stop (SIGTERM, SIGINT or a request in its lease) and resumable, 74 no room on the disk, 75 another worker has the run.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from harness.errors import DataError, FencedError, HarnessError, Interrupted, ProcessLostError
from harness.record.atomic import read_jsonl
from harness.record.failures import DISK_FULL, FAILED, FENCED, STOPPED, Failure, failure_of, is_disk_full
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.lease import Lease, claim
from harness.record.log import print_leniently
from harness.record.mirror.mirror import Mirror
from harness.record.mirror.tensorboard_sink import TensorboardSink
from harness.record.mirror.wandb_sink import WandbSink
from harness.record.process import age_s
from harness.record.pulse import Heart
from harness.record.quarantine import set_aside
from harness.record.recorder import Recorder, job_folder
from harness.record.state import SUMMARY_KEYS, answers, mark_failed, read_state
from harness.spec import Job
from harness.spec.methods import Split, Trained
from harness.spec.names import METHODS, resolve
from harness.spec.profiles import evaluation_tokens
from harness.train.group import Group, open_group

STAGE = "HARNESS_STAGE"
"""Tells the further processes of a run where its owner keeps unfinished files."""

RECORD_COMPLETIONS_EVERY = 10
"""Steps between two samples of completions on record."""


class StopFlag:
    """Set by SIGTERM or SIGINT, or by a request in the lease; the loop looks at it between steps."""

    def __init__(self) -> None:
        self.is_set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._set)

    def _set(self, number: int, frame: Any) -> None:
        self.is_set = True

    def look(self, lease: Lease) -> None:
        """Looks for a request."""
        self.is_set = self.is_set or lease.stop_requested


def main(job_path: Path) -> int:
    """Carries out a job.

    Args:
        job_path: A `job.json` as the driver writes it.

    Returns:
        The exit code.
    """
    print_leniently()
    stop = StopFlag()
    job = Job.model_validate_json(job_path.read_text())
    folder = job_folder(job)
    if os.environ.get("RANK", "0") != "0":
        return _work(job, job_path, folder, stop, Files(Path(os.environ.get(STAGE, folder.path))))
    try:
        folder.refuse_links()
        lease = claim(folder.path, job.reserved, job.execution.lease_s)
    except FencedError as error:
        print(f"not begun: {error}", flush=True)
        return FENCED
    except DataError as error:
        print(f"not begun: {error}", flush=True)
        return FAILED
    except OSError as error:
        print(f"not begun: {error}", flush=True)
        return DISK_FULL if is_disk_full(error) else FAILED
    heart = Heart(lease.pulse, lease.beat_s, lost=_fenced_off, look=lambda: stop.look(lease))
    os.environ[STAGE] = str(lease.files.stage)
    try:
        return _work(job, job_path, folder, stop, lease.files)
    finally:
        heart.stop()
        lease.release()


def _fenced_off() -> None:
    """Ends this process at once: what it does is nobody's any more, and its devices are another's."""
    print("fenced off: another process has taken the run over", flush=True)
    os._exit(FENCED)


def _work(job: Job, job_path: Path, folder: RunFolder, stop: StopFlag, files: Files) -> int:
    group = open_group(job.execution.devices, [sys.executable, "-m", "harness.worker", str(job_path)])
    is_main = os.environ.get("RANK", "0") == "0"
    recorder = Recorder(folder, job, _mirrors(job, folder) if is_main else (), files)
    try:
        run(job, folder, recorder, stop, group, files)
    except Interrupted as error:
        print(error, flush=True)
        return STOPPED
    except FencedError:
        _fenced_off()
    except Exception as error:
        if isinstance(error, HarnessError):
            print(f"failed: {error}", file=sys.stderr, flush=True)
        else:
            traceback.print_exc()
        reason = group.reason(error)
        try:
            if is_main:
                recorder.fail(*_told(reason, folder))
            elif read_state(folder).status != "failed":  # the first process may have been quicker, and knows more
                mark_failed(folder, files, str(reason), failure=failure_of(reason), detail=traceback.format_exc())
        except OSError as worse:
            return DISK_FULL if is_disk_full(worse) else FAILED
        return DISK_FULL if is_disk_full(reason) else FAILED
    finally:
        group.close()
    return 0


def _mirrors(job: Job, folder: RunFolder) -> list[Mirror]:
    def wandb() -> WandbSink:
        from harness.tasks.example_pictures import ExamplePictures

        return WandbSink(folder, ExamplePictures(job.data), follows=True)

    mirrors = [Mirror(folder, "W&B", wandb)] if job.wandb else []
    return [*mirrors, Mirror(folder, "TensorBoard", lambda: TensorboardSink(folder))] if job.tensorboard else mirrors


def _told(reason: Exception, folder: RunFolder) -> tuple[Exception, Failure | None]:
    """The first process's reason to fail; that of another process, and its class, where it could still write one."""
    state = read_state(folder)
    if isinstance(reason, ProcessLostError) and state.status == "failed":
        return ProcessLostError(f"{reason}: {state.error}"), state.failure
    return reason, None


def run(job: Job, folder: RunFolder, recorder: Recorder, stop: StopFlag, group: Group, files: Files) -> None:
    """Trains and evaluates what the folder does not hold yet, in one process or as one of a group.

    Raises:
        Interrupted: It was asked to stop; the state says so and a checkpoint is there.
        FencedError: The run has another owner by now.
    """
    import torch
    import transformers

    from harness.policy import load_policy
    from harness.policy.learning import choose_learning
    from harness.train.allocator import keep_freed_memory
    from harness.train.processes import Processes
    from harness.train.randomness import repeatable

    started = time.monotonic()
    transformers.utils.logging.disable_progress_bar()
    repeatable()
    if job.num_threads:
        torch.set_num_threads(job.num_threads)
    processes = Processes(job.execution.device, group.take_listener())
    if processes.device.type == "cpu":
        keep_freed_memory()
    if processes.is_main:
        for sentence in set_aside(folder, files, getattr(job.spec.method, "num_steps", 0)):
            print(sentence, flush=True)
        recorder.start(str(processes.device), num_processes=processes.count, num_threads=torch.get_num_threads())
    processes.wait()
    recorder.measured |= {"device": processes.device_name, "num_threads": torch.get_num_threads(), "evaluate_s": {}}
    trained = folder.weights.is_dir()
    spec = job.spec
    policy = load_policy(
        str(folder.weights) if trained else spec.model,
        processes.device,
        precision=spec.precision,
        max_pixels=spec.max_pixels,
    )
    policy.family.checkpointing = job.execution.gradient_checkpointing
    if isinstance(spec.method, Trained) and not trained:
        choose_learning(
            policy,
            vision=spec.vision == "trained",
            lora_rank=spec.lora_rank,
            lora_alpha=spec.lora_alpha,
            seed=spec.seed,
        )
        _train(job, spec.method, policy, folder, recorder, processes, stop, files)
    elif processes.is_main:
        _keep_rows(folder, recorder)
    if processes.is_main:
        # Here, so that it goes even when the worker that trained was killed before it could.
        shutil.rmtree(folder.checkpoint, ignore_errors=True)
    evaluated = {
        key: _evaluate(split, job, policy, folder, recorder, processes, stop) for split, key in SUMMARY_KEYS.items()
    }
    recorder.measured |= processes.peak_memory()
    if processes.is_main:
        summary = {
            "method": job.spec.method.type,
            "source": job.spec.source,
            "seed": job.spec.seed,
            **evaluated,
            "train": _last_metrics(folder),
            "attempt_s": time.monotonic() - started,
        }
        recorder.complete(summary)
    processes.end()


def _keep_rows(folder: RunFolder, recorder: Recorder) -> None:
    """Training is over (or there is none): all rows on record stay."""
    rows = read_jsonl(folder.metrics) if folder.metrics.exists() else []
    recorder.resume_from(max((int(row["step"]) + 1 for row in rows), default=0))


def _train(
    job: Job,
    settings: Trained,
    policy: Any,
    folder: RunFolder,
    recorder: Recorder,
    processes: Any,
    stop: StopFlag,
    files: Files,
) -> None:
    from harness.tasks.base import load_task
    from harness.train.loop import Loop

    assert job.spec.source is not None
    method = resolve(METHODS, "method", settings.type)(  # type: ignore[attr-defined]
        job.spec, policy, load_task(job.spec.source, job.data), processes, job.execution
    )
    loop = Loop(
        method,
        policy,
        settings,
        processes,
        checkpoints=folder.checkpoint,
        checkpoint_every=job.checkpoint_every,
        replacing=files.replacing,
        before_save=lambda step: recorder.mark(step) if processes.is_main else None,
        micro_batch_tokens=job.execution.micro_batch_tokens,
        halvings=job.execution.halvings,
        sharded=job.execution.sharding == "fsdp",
    )
    first = loop.resume()
    if processes.is_main:
        recorder.resume_from(first)
        recorder.progress("train", first, settings.num_steps)
    recorder.measured |= {"start_s": age_s(), "train_s": 0.0, "num_steps": 0}
    started = time.monotonic()
    try:
        for record in loop.run(lambda: stop.is_set):
            done = record.step + 1
            if record.step == first:
                recorder.measured["first_step_s"] = age_s()
            if processes.is_main:
                recorder.measured |= processes.own_peak_memory()
                recorder.metrics(record.step, record.metrics)
                if record.batch.samples and (record.step % RECORD_COMPLETIONS_EVERY == 0 or loop.done):
                    recorder.completions(record.step, record.batch.samples)
                recorder.progress("train", done, settings.num_steps)
            every = job.evaluation.every
            if every and (done % every == 0 or loop.done):
                _validate(job, policy, recorder, processes, record.step)
            recorder.measured |= {"train_s": time.monotonic() - started, "num_steps": done - first}
    except Interrupted:
        if processes.is_main:
            recorder.interrupt(loop.step)
        raise
    if processes.is_main:
        recorder.mark(loop.step)
        with files.replacing(folder.weights) as unfinished:
            policy.save(unfinished, loop.whole_weights())
    processes.wait()


def _validate(job: Job, policy: Any, recorder: Recorder, processes: Any, step: int) -> None:
    from harness.evaluate import evaluate, num_asked, summarise
    from harness.tasks.base import load_task

    for target in job.targets:
        task = load_task(target, job.data)
        rows = evaluate(
            policy,
            task,
            "validation",
            num_asked(job.evaluation.num_validation, task, "validation"),
            processes,
            max_new_tokens=job.evaluation.max_new_tokens or evaluation_tokens(job.spec.model),
        )
        if processes.is_main:
            summary = summarise(rows, task.protocol)
            recorder.validation(step, target, {key: summary[key] for key in ("accuracy", "format")}, rows)


def _evaluate(
    split: Split, job: Job, policy: Any, folder: RunFolder, recorder: Recorder, processes: Any, stop: StopFlag
) -> dict[str, Any]:
    """A split's evaluations on record, those that this job asks for made where they are missing or too short."""
    from harness.evaluate import evaluate, num_asked, summarise
    from harness.tasks.base import load_task

    evaluations = {target: _summarised(target, read_jsonl(path)) for target, path in folder.evaluations(split).items()}
    num_steps = getattr(job.spec.method, "num_steps", 0)
    for target in job.targets if split in job.evaluation.splits else ():
        if answers(evaluations.get(target), job.evaluation, split):
            continue
        # Asked together: a process that stopped alone would leave the others waiting for its rows.
        if processes.add({"stop": float(stop.is_set)})["stop"]:
            if processes.is_main:
                recorder.interrupt(num_steps)
            raise Interrupted("stopped between two evaluations")
        if processes.is_main:
            recorder.progress("evaluate", num_steps, num_steps, target)
        started = time.monotonic()
        task = load_task(target, job.data)
        rows = evaluate(
            policy,
            task,
            split,
            num_asked(job.evaluation.num(split), task, split),
            processes,
            max_new_tokens=job.evaluation.max_new_tokens or evaluation_tokens(job.spec.model),
        )
        # A sweep that asks for another length must not be answered by these; a later attempt may lack the data.
        about = {"max_new_tokens": job.evaluation.max_new_tokens, "protocol": task.protocol}
        rows = [row | about | {"split_size": task.num_examples[split]} for row in rows]
        if processes.is_main:
            recorder.evaluation(target, rows, split)
        if split == "test":
            recorder.measured["evaluate_s"][target] = time.monotonic() - started
        evaluations[target] = summarise(rows, task.protocol)
    return evaluations


def _summarised(target: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a summary holds of rows on record; the first ones on record did not name their protocol."""
    from harness.evaluate import summarise
    from harness.tasks.base import load_task

    return summarise(rows, rows[0].get("protocol") or load_task(target).protocol)


def _last_metrics(folder: RunFolder) -> dict[str, float]:
    """The last value of every metric but times, which no two attempts share."""
    rows = read_jsonl(folder.metrics) if folder.metrics.exists() else []
    last = {key: value for row in rows for key, value in row.items()}
    return {key: value for key, value in last.items() if key != "step" and not key.startswith("time/")}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
