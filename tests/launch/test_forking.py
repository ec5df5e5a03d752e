"""Forked workers beside plainly started ones, and servers and drivers that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

import harness
from harness.launch.executor import End
from harness.launch.executors import forking
from harness.launch.executors.forking import SINGLE_THREADED, ForkedProcess, ForkServer, ForkServerError
from harness.record.atomic import read_json, read_jsonl, write_json
from harness.record.process import ProcessId
from harness.record.recorder import job_folder
from harness.spec import Evaluation, Execution, Job, RunSpec

ODD_JOBS = """\
import ctypes, faulthandler, gc, json, os, pathlib, signal, subprocess, sys, threading, time

def circumstances():
    spec = sys.modules["__main__"].__spec__
    handlers = {int(n): repr(signal.getsignal(n)).split(" at ")[0] for n in signal.valid_signals()}
    return {
        "argv": sys.argv, "main": [__name__, spec.name, spec.origin, __file__], "twice": "odd_jobs" in sys.modules,
        "path": sys.path, "flags": list(sys.flags), "cwd": os.getcwd(), "environment": dict(os.environ),
        "leads": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()], "handlers": handlers,
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])), "faults": faulthandler.is_enabled(),
        "garbage": gc.isenabled(), "threads": threading.active_count(), "stdin": os.readlink("/proc/self/fd/0"),
        "descriptors": sorted(os.readlink(f"/proc/self/fd/{n}") for n in "12"),
        "number": len([n for n in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{n}")]),
        "unbuffered": [sys.stdout.write_through, sys.stdout.encoding, sys.stderr.errors], "mask": os.umask(0o22),
    }

def main(order):
    out = pathlib.Path(order["out"])
    match order["do"]:
        case "tell":
            out.write_text(json.dumps(circumstances()))
            print("told")
        case "exit":
            sys.exit(order["code"])
        case "leave":
            os._exit(75)
        case "raise":
            raise ValueError("as ordered")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "crash":
            ctypes.string_at(0)
        case "save":
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
            out.write_text("up")
            time.sleep(60)
        case "ignore":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            out.write_text(str(subprocess.Popen(["sleep", "60"]).pid))
            time.sleep(60)
        case "wait":
            out.write_text(str(os.getpid()))
            deadline = time.monotonic() + 60
            while not out.with_suffix(".go").exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            out.write_text("done")

if __name__ == "__main__":
    main(json.loads(pathlib.Path(sys.argv[1]).read_text()))
"""
"""A module that does as its order says."""

MINE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "7"}


class Workplace:
    """Orders, their logs and what became of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        here = os.pathsep.join([str(self.folder), str(Path(harness.__file__).parents[1])])
        own = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}  # it changes
        return {**own, **SINGLE_THREADED, "PYTHONPATH": here, "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}

    def order(self, name: str, **order: Any) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps({"out": str(self.out(name)), **order}))
        return path

    def out(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def fork(self, server: ForkServer, name: str, grace_s: float = 30.0, **order: Any) -> ForkedProcess:
        return server.start(self.order(name, **order), MINE, self.log(name), grace_s)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("work")
    (folder / "odd_jobs.py").write_text(ODD_JOBS)
    return Workplace(folder)


@pytest.fixture(scope="module")
def server(workplace: Workplace) -> Iterator[ForkServer]:
    one = ForkServer(workplace.environment, "odd_jobs")
    one.wait(30)
    yield one
    one.close()


@pytest.fixture
def mortal(workplace: Workplace) -> Iterator[ForkServer]:
    """A server that is not needed afterwards."""
    one = ForkServer(workplace.environment, "odd_jobs")
    one.wait(30)
    yield one
    one.close()


def ended(worker: ForkedProcess, seconds: float = 30.0) -> End:
    deadline = time.monotonic() + seconds
    while (end := worker.poll()) is None:
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)
    return end


def test_a_forked_worker_finds_what_a_plain_one_finds(workplace: Workplace, server: ForkServer) -> None:
    order = workplace.order("both", do="tell")
    command = [sys.executable, "-m", "odd_jobs", str(order)]
    with workplace.log("both").open("ab") as log:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=workplace.environment | MINE,
            start_new_session=True,
            check=True,
            timeout=30,
        )
    plain = read_json(workplace.out("both"))
    assert plain["leads"] == [True, True]
    workplace.out("both").unlink()
    workplace.fork(server, "busy", do="wait")  # whose descriptors are none of the next one's business
    assert ended(workplace.fork(server, "both", do="tell")) == End(0)
    assert read_json(workplace.out("both")) == plain
    assert workplace.log("both").read_text() == "told\ntold\n"
    workplace.out("busy").with_suffix(".go").touch()


def test_ends_are_told_as_subprocess_tells_them(workplace: Workplace, server: ForkServer) -> None:
    expected: Mapping[str, tuple[int, dict[str, Any]]] = {
        "full": (74, {"do": "exit", "code": 74}),
        "stopped": (143, {"do": "exit", "code": 143}),
        "fenced": (75, {"do": "leave"}),
        "raised": (1, {"do": "raise"}),
        "killed": (-signal.SIGKILL, {"do": "die"}),
        "crashed": (-signal.SIGSEGV, {"do": "crash"}),
    }
    workers = {name: workplace.fork(server, name, **order) for name, (_, order) in expected.items()}
    assert {name: ended(worker).code for name, worker in workers.items()} == {
        name: code for name, (code, _) in expected.items()
    }
    assert "ValueError: as ordered" in workplace.log("raised").read_text()
    assert "Segmentation fault" in workplace.log("crashed").read_text()
    assert server.is_ready


def test_every_worker_gets_its_own_code(workplace: Workplace, server: ForkServer) -> None:
    workers = [workplace.fork(server, f"w{code}", do="exit", code=code) for code in range(40)]
    assert [ended(worker).code for worker in workers] == list(range(40))


def test_a_request_to_stop_reaches_it_and_a_deaf_one_is_killed_with_what_it_started(
    workplace: Workplace, server: ForkServer, wait_until: Callable[..., None]
) -> None:
    saving = workplace.fork(server, "saving", do="save")
    wait_until(workplace.out("saving").exists)
    assert saving.poll() is None
    saving.stop()
    assert ended(saving) == End(143)
    deaf = workplace.fork(server, "deaf", grace_s=0.2, do="ignore")
    wait_until(lambda: workplace.out("deaf").exists() and workplace.out("deaf").read_text())
    child = ProcessId.of(int(workplace.out("deaf").read_text()))
    assert child.is_alive
    deaf.stop()
    assert ended(deaf) == End(-signal.SIGKILL)
    wait_until(lambda: not child.is_alive)


def test_workers_outlive_their_server_and_no_code_is_made_up(
    workplace: Workplace, mortal: ForkServer, wait_until: Callable[..., None]
) -> None:
    worker = workplace.fork(mortal, "left", do="wait")
    wait_until(workplace.out("left").exists)
    os.kill(mortal.pid, signal.SIGKILL)
    wait_until(lambda: mortal.is_lost)
    assert worker.poll() is None
    with pytest.raises(ForkServerError, match="the fork server has ended: exit code -9"):
        workplace.fork(mortal, "next", do="tell")
    workplace.out("left").with_suffix(".go").touch()
    assert ended(worker).code is None
    assert workplace.out("left").read_text() == "done"
    assert not workplace.out("next").exists()


def test_a_silent_server_holds_nobody_up(
    workplace: Workplace, mortal: ForkServer, wait_until: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = workplace.fork(mortal, "unseen", do="wait")
    wait_until(workplace.out("unseen").exists)
    os.kill(mortal.pid, signal.SIGSTOP)
    workplace.out("unseen").with_suffix(".go").touch()
    wait_until(lambda: not worker.id.is_alive)
    assert worker.poll() is None
    monkeypatch.setattr(forking, "PATIENCE_S", 0.1)
    assert ended(worker).code is None
    assert workplace.out("unseen").read_text() == "done"


def test_a_dead_driver_takes_the_server_along_and_leaves_the_workers(
    workplace: Workplace, wait_until: Callable[..., None]
) -> None:
    order = workplace.order("orphan", do="wait")
    code = f"""
import os, signal
from pathlib import Path
from harness.launch.executors.forking import ForkServer
server = ForkServer(os.environ, "odd_jobs", [])
server.wait(30)
worker = server.start(Path({str(order)!r}), {{}}, Path({str(workplace.log("orphan"))!r}), 30.0)
print(server.pid, worker.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=workplace.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    server, worker = map(int, done.stdout.split())
    wait_until(lambda: not ProcessId.of(server).is_alive)
    wait_until(workplace.out("orphan").exists)
    assert ProcessId.of(worker).is_alive
    workplace.out("orphan").with_suffix(".go").touch()
    wait_until(lambda: workplace.out("orphan").read_text() == "done")


def test_an_order_that_got_no_answer_is_never_carried_out(
    workplace: Workplace, mortal: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forking, "PATIENCE_S", 0.1)
    os.kill(mortal.pid, signal.SIGSTOP)
    with pytest.raises(ForkServerError, match="the fork server has ended"):
        workplace.fork(mortal, "never", do="tell")
    assert not psutil.pid_exists(mortal.pid)
    assert not workplace.log("never").exists()


def test_what_one_worker_cannot_have_alone_is_refused(workplace: Workplace, server: ForkServer) -> None:
    with pytest.raises(ValueError, match="a worker's own variables are"):
        server.start(workplace.order("odd", do="tell"), {"HF_HOME": "/elsewhere"}, workplace.log("odd"), 1.0)
    order = workplace.order("odd", do="tell")
    with pytest.raises(ForkServerError, match="No such file or directory"):
        server.start(order, MINE, workplace.folder / "missing" / "log.txt", 1.0)
    assert ended(workplace.fork(server, "even", do="tell")) == End(0)


THREAD = "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
CUDA = "class cuda:\n    is_initialized = staticmethod(lambda: True)\n"
COUNTED = """\
import os
class cuda:
    is_initialized = staticmethod(lambda: False)
    _is_in_bad_fork = staticmethod(lambda: False)
os.register_at_fork(after_in_child=lambda: setattr(cuda, "_is_in_bad_fork", lambda: True))
"""
"""What torch says when devices were counted in the parent."""


@pytest.mark.parametrize(
    ("module", "content", "reason"),
    [
        ("threaded", THREAD, "2 threads run in the fork server"),
        ("torch", CUDA, "CUDA was started in the fork server"),
        ("broken", "import no_such_module\n", "No module named 'no_such_module'"),
    ],
)
def test_a_server_that_must_not_fork_says_why_and_is_none(
    workplace: Workplace, tmp_path: Path, module: str, content: str, reason: str
) -> None:
    (tmp_path / f"{module}.py").write_text(content)
    path = os.pathsep.join([str(tmp_path), workplace.environment["PYTHONPATH"]])
    server = ForkServer({**workplace.environment, "PYTHONPATH": path}, "odd_jobs", [module])
    with pytest.raises(ForkServerError, match=reason):
        server.wait(30)
    assert server.is_lost
    with pytest.raises(ForkServerError, match=reason):
        workplace.fork(server, "never", do="tell")
    server.close()


def test_a_child_that_could_not_use_cuda_is_none(workplace: Workplace, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text(COUNTED)
    path = os.pathsep.join([str(tmp_path), workplace.environment["PYTHONPATH"]])
    server = ForkServer({**workplace.environment, "PYTHONPATH": path}, "odd_jobs", ["torch"])
    server.wait(30)
    with pytest.raises(ForkServerError, match="CUDA was started in the fork server"):
        workplace.fork(server, "blind", do="tell")
    assert not workplace.out("blind").exists()
    assert psutil.Process(server.pid).children() == []
    server.close()


def test_edited_code_is_not_mixed_with_what_was_imported(tmp_path: Path) -> None:
    copied = Workplace(tmp_path)
    (tmp_path / "odd_jobs.py").write_text(ODD_JOBS)
    server = ForkServer(copied.environment, "odd_jobs")
    server.wait(30)
    before = copied.fork(server, "before", do="wait")
    (tmp_path / "odd_jobs.py").write_text(ODD_JOBS + "\n")
    with pytest.raises(ForkServerError, match=r"odd_jobs\.py has changed since the fork server imported it"):
        copied.fork(server, "after", do="tell")
    copied.out("before").with_suffix(".go").touch()
    assert ended(before) == End(0)  # whose end is still told
    server.close()


def real_job(model: Path, results: Path, **changes: Any) -> Job:
    method = {"type": "grpo_d", "num_steps": 3, "prompts_per_step": 2, "group_size": 4, "max_completion_length": 16}
    spec = RunSpec(model=str(model), method={**method, "lr": 1e-3}, source="counting", num_train=6)
    job = Job(
        spec=spec,
        targets=("counting",),
        evaluation=Evaluation(num_examples=4, max_new_tokens=16),
        results=str(results),
        num_threads=1,
        **{"wandb": False, "execution": Execution(device="cpu"), **changes},
    )
    folder = job_folder(job)
    folder.path.mkdir(parents=True)
    write_json(folder.job_json, job.model_dump(mode="json"))
    return job


def outcome(job: Job) -> tuple[Any, ...]:
    """Everything of a run that two attempts share."""
    folder = job_folder(job)
    rows = [
        {key: value for key, value in row.items() if not key.startswith("time/")} for row in read_jsonl(folder.metrics)
    ]
    weights = {file.name: file.read_bytes() for file in folder.weights.glob("*.safetensors")}
    return rows, weights, read_jsonl(folder.evaluation("counting")), read_json(folder.summary)["train"]


@pytest.mark.slow
def test_forked_runs_are_the_plain_ones_bit_for_bit(
    policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    environment = {**os.environ, **SINGLE_THREADED, "TOKENIZERS_PARALLELISM": "false"}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    server = ForkServer(environment)
    plain = real_job(policy_folder, tmp_path / "plain")
    with job_folder(plain).log.open("ab") as log:
        command = [sys.executable, "-m", "harness.worker", str(job_folder(plain).job_json)]
        code = subprocess.run(command, stdout=log, stderr=log, env=environment | threads, timeout=240, check=False)
    assert code.returncode == 0, job_folder(plain).log.read_text()
    try:
        server.wait(240)
        jobs = {
            "forked": real_job(policy_folder, tmp_path / "forked", wandb=True),
            "again": real_job(policy_folder, tmp_path / "again", wandb=True),
            "shared": real_job(policy_folder, tmp_path / "shared", execution=Execution(device="cpu", devices=2)),
        }
        for name, job in jobs.items():
            folder = job_folder(job)
            worker = server.start(folder.job_json, threads, folder.log, 30.0)
            assert ended(worker, 240) == End(0), folder.log.read_text()
            if name != "shared":  # whose sums are in another order
                assert outcome(job) == outcome(plain)
                assert list(folder.path.glob("wandb/offline-run-*/*.wandb")), folder.log.read_text()
        assert read_json(job_folder(jobs["shared"]).run_json)["resolved"]["num_processes"] == 2
    finally:
        server.close()
