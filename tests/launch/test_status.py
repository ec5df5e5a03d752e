"""Plans and status: what is read from run folders, as JSON and as text."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time

import pytest
from run_files import put_state

from harness.launch.plan import make_plan
from harness.launch.status.status import all_status, print_status, sweep_status
from harness.launch.worker_end import end_sentence, log_tail, tells_of_memory
from harness.record.atomic import read_json, write_json
from harness.record.folder import RunFolder
from harness.record.lease import OWNER, claim, read_owner, reserve
from harness.record.state import RunState
from harness.spec import Job
from harness.spec.sweep import load_sweep


def text_of(show):
    out = io.StringIO()
    show(out)
    return out.getvalue()


def test_plan_of_a_fresh_results_folder(sweep, results, run_ids):
    plan = make_plan(sweep, results)
    assert json.loads(json.dumps(plan.as_json())) == {
        "sweep": "small",
        "num_runs": 3,
        "num_runs_naive": 3,
        "runs": [
            {
                "run_id": run_id,
                "method": "sft",
                "source": "counting",
                "seed": seed,
                "targets": ["counting"],
                "status": "pending",
            }
            for seed, run_id in enumerate(run_ids)
        ],
    }
    assert not list(results.iterdir())  # planning writes nothing


def test_text_for_a_file_is_not_cut_off_and_shows_the_axes_that_a_run_id_hides(sweep_file, results):
    sweep = load_sweep(sweep_file, ["seed=[0]", "lr=[0.001, 0.002]"])
    lines = text_of(make_plan(sweep, results).print).splitlines()
    first, second = sweep.runs
    assert lines[0].split() == ["run", "settings", "targets", "status"]
    assert lines[1].split() == [first, "method.lr=0.001", "counting", "pending"]
    assert lines[2].split() == [second, "method.lr=0.002", "counting", "pending"]
    assert lines[3] == "small: 2 runs (2 pending); a full grid would be 2"


def test_status_rows(sweep, results, run_ids):
    failed, dead, fresh = run_ids
    put_state(
        RunFolder(results, failed), RunState(status="failed", error="[bad] x", heartbeat=0.5, step=1, num_steps=4)
    )
    other = RunFolder(results, dead)
    claim(other.path, 0, lease_s=60)
    owner = read_owner(other.path).path / OWNER
    record = read_json(owner)
    write_json(owner, record | {"process": record["process"] | {"host": "elsewhere"}})
    put_state(other, RunState(status="running", phase="train", step=3, num_steps=4, heartbeat=time.time()))
    rows = [row.as_json() for row in sweep_status(sweep, results)]
    assert rows[0] == {
        "run_id": failed,
        "method": "sft",
        "source": "counting",
        "seed": 0,
        "targets": ["counting"],
        "status": "failed",
        "step": 1,
        "num_steps": 4,
        "error": "[bad] x",
        "updated": "1970-01-01T00:00:00+00:00",
        "note": None,
    }
    assert (rows[1]["status"], rows[1]["note"]) == ("running", "train")
    assert (rows[2]["run_id"], rows[2]["status"], rows[2]["updated"]) == (fresh, "pending", None)
    text = text_of(lambda out: print_status(sweep_status(sweep, results), out))
    assert f"{failed}  counting  failed   1/4   1970-01-01T00:00:00+00:00  [bad] x\n" in text
    assert text.endswith("3 runs: 1 running, 1 failed, 1 pending\n")
    # Two leases of silence on another machine: it seems to be dead.
    os.utime(owner, (time.time() - 121,) * 2)
    assert [row.note for row in sweep_status(sweep, results)] == [None, "interrupted", None]


@pytest.mark.parametrize("state", [None, RunState(status="failed", error="x"), RunState(status="running", step=1)])
def test_a_run_is_running_while_somebody_holds_it_and_no_longer(sweep, results, run_ids, state):
    folder = RunFolder(results, run_ids[0])
    if state is not None:
        put_state(folder, state)
    before = sweep_status(sweep, results)[0]
    assert (before.status, before.note) == {
        None: ("pending", None),
        "failed": ("failed", None),
        "running": ("pending", "interrupted"),
    }[state and state.status]
    lease = reserve(folder.path, None, pulse=results)
    starting = sweep_status(sweep, results)[0]
    assert (starting.status, starting.note) == ("running", "starting")
    worker = claim(folder.path, lease.token)
    put_state(folder, RunState(status="running", phase="evaluate", target="counting", step=4, num_steps=4))
    doing = sweep_status(sweep, results)[0]
    assert (doing.status, doing.note) == ("running", "evaluate counting")
    worker.release()
    after = sweep_status(sweep, results)[0]
    assert (after.status, after.note) == ("pending", "interrupted")


def test_status_without_a_sweep_lists_every_run_with_a_job(sweep, results, run_ids):
    assert all_status(results) == []
    assert text_of(lambda out: print_status([], out)) == "no runs\n"
    for run_id in run_ids[:2]:
        run = sweep.runs[run_id]
        job = Job(spec=run.spec, targets=("geometry",), evaluation=sweep.evaluation)
        write_json(RunFolder(results, run_id).job_json, job.model_dump(mode="json"))
    (results / "runs" / "stray").mkdir()
    rows = all_status(results)
    assert [row.run_id for row in rows] == sorted(run_ids[:2])
    assert {row.targets for row in rows} == {("geometry",)}
    assert {row.num_steps for row in rows} == {run.spec.method.num_steps}


def test_sentences_for_silent_ends():
    assert end_sentence(-11, ["x"]) == "the worker was ended by SIGSEGV (a crash in native code)"
    assert end_sentence(-15, []) == "the worker was ended by SIGTERM"
    assert end_sentence(-999, []) == "the worker was ended by signal 999"
    assert end_sentence(0, []) == "the worker ended with exit code 0 and left no complete summary"
    assert end_sentence(-9, [], "out of memory") == "the worker was ended by SIGKILL (out of memory)"
    assert end_sentence(None, ["x"], "node n2 died") == "the worker was lost: node n2 died"
    assert end_sentence(None, []) == "the worker was lost"


@pytest.mark.parametrize(
    "line",
    [
        "[4242.1] Out of memory: Killed process 77 (python)",
        "slurmstepd: error: Detected 1 oom_kill event in StepId=3.0. Some of the step tasks have been OOM Killed.",
        "Memory cgroup out of memory: Killed process 77",
    ],
)
def test_words_of_the_system_about_memory(line):
    assert tells_of_memory(["step 1", line, "bye"])
    assert not tells_of_memory(["step 1", "RuntimeError: out of luck", "memory: 3 GiB"])


def test_log_tail(tmp_path):
    log = tmp_path / "log.txt"
    assert log_tail(log) == []
    log.write_bytes(b"old\n" + b"a\n\nb\xff\n")
    assert log_tail(log, start=4) == ["a", "b�"]
    assert log_tail(log, num_lines=1) == ["b�"]


def test_a_plan_of_many_runs_is_quick(sweep_file, results):
    sweep = load_sweep(sweep_file, [f"seed={list(range(2000))}"])
    _ = sweep.runs
    start = time.perf_counter()
    assert make_plan(sweep, results).num_runs == 2000
    assert time.perf_counter() - start < 1.0


def test_launch_imports_neither_torch_nor_pandas():
    code = (
        "import sys, harness.launch.driver, harness.launch.plan, harness.launch.status.status;"
        "print([name for name in ('torch', 'pandas', 'numpy', 'scipy', 'wandb') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
