"""Real worker processes on one machine: who shares what, with how many threads, and how they end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.errors import FencedError, UserError
from harness.launch.executor import Demand, End, Launch, make_executor
from harness.launch.executors import local as module
from harness.launch.executors.local import LocalExecutor, LocalWorker
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.record.lease import Lease, read_owner, reserve
from harness.spec import Execution, Job, RunSpec
from harness.spec.executor import ExecutorSettings
from harness.spec.sweep import Sweep

SLEEP = ("/bin/sh", "-c", "exec sleep 60")
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
FAMILY = (
    "import os, subprocess, sys, time; child = subprocess.Popen(['sleep', '60']);"
    "print(child.pid, flush=True); time.sleep(60)"
)

MakeLaunch = Callable[..., Launch]
UNKNOWN = Demand()


def peak(gib: float, **others: object) -> Demand:
    return Demand(device_gib=gib, **others)  # type: ignore[arg-type]


@pytest.fixture
def make_launch(results: Path) -> MakeLaunch:
    """Launches of runs that are reserved, each of another seed."""
    made: list[Lease] = []

    def make(demand: Demand = UNKNOWN, **settings: object) -> Launch:
        spec = RunSpec(method={"type": "sft"}, source="counting", seed=len(made))
        folder = RunFolder(results, spec.run_id)
        lease = reserve(folder.path, None, pulse=results)
        assert lease is not None
        made.append(lease)
        job = Job(spec=spec, targets=("counting",), results=str(results), reserved=lease.token, **settings)
        return Launch(job, folder, demand, lease.files)

    return make


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that there are GPUs, of as many GiB each; their workers are real."""

    def have(*sizes: float, cores: int = 16) -> None:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        lines = [f"echo '{index}, GPU-{index}, {round(size * 1024)}'" for index, size in enumerate(sizes)]
        (folder / "nvidia-smi").write_text("\n".join(["#!/bin/sh", *lines]))
        (folder / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(len(sizes)))))
        monkeypatch.setattr(module, "num_cores", lambda: cores)
        monkeypatch.setattr(module, "host_memory_gib", lambda: None)

    return have


@pytest.fixture
def ended() -> Iterator[list[LocalWorker]]:
    """Workers that are ended behind the test."""
    workers: list[LocalWorker] = []
    yield workers
    deadline = time.monotonic() + 20
    for worker in workers:
        worker.stop(), worker.stop()
        while worker.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)


def started(executor: LocalExecutor, launch: Launch, ended: list[LocalWorker]) -> LocalWorker:
    assert executor.has_room(launch.demand)
    [worker] = executor.start([launch])
    ended.append(worker)
    return worker


def placed(worker: LocalWorker) -> list[int]:
    gpus: list[int] = worker.handle["gpus"]
    return gpus


def end(worker: LocalWorker) -> None:
    worker.stop(), worker.stop()
    while worker.poll() is None:
        time.sleep(0.005)


def test_a_worker_gets_its_threads_and_its_device(
    results, gpus, make_launch, worker, wait_until, monkeypatch, sweep: Sweep
):
    gpus(10, 10, cores=16)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    executor = LocalExecutor(command=worker)
    assert (executor.num_slots, executor.queues) == (2, False)
    launches = [make_launch(), make_launch(), make_launch(num_threads=3)]
    workers = executor.start(launches[:2])
    wait_until(lambda: all(worker.poll() is not None for worker in workers))
    workers += executor.start(launches[2:])
    wait_until(lambda: workers[2].poll() is not None)
    assert [worker.poll() for worker in workers] == [End(0)] * 3, launches[0].folder.log.read_text()
    # Sixteen cores, and up to four workers on each of two GPUs. A number that a job has is kept.
    for launch, threads, device in zip(launches, (2, 2, 3), ("3", "GPU-b", "3"), strict=True):
        environment = read_json(launch.folder.path / "environment.json")
        assert environment == {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": device,
        }
        assert read_json(launch.folder.job_json)["num_threads"] == threads
        assert read_json(launch.folder.job_json)["reserved"] == launch.job.reserved == 1


def test_the_first_of_a_kind_goes_alone_and_others_share_as_far_as_their_peaks_fit(gpus, make_launch, ended):
    gpus(10)
    executor = LocalExecutor(command=SLEEP)
    first = started(executor, make_launch(UNKNOWN), ended)
    for demand in (UNKNOWN, peak(0.1)):
        assert not executor.has_room(demand)
    end(first)
    # 4 + 4 is 8, with the margin 9.2 of the 9.5 that are given away; a third does not fit, however small.
    started(executor, make_launch(peak(4)), ended)
    assert not executor.has_room(peak(4.3))
    assert not executor.has_room(UNKNOWN)
    assert not executor.has_room(peak(0.1, alone=True))
    second = started(executor, make_launch(peak(4)), ended)
    assert placed(second) == [0]
    assert not executor.has_room(peak(0.3))
    with pytest.raises(RuntimeError, match="there is no room for another worker"):
        executor.start([make_launch(peak(0.3))])
    end(second)
    assert executor.has_room(peak(4))


def test_one_that_ran_out_of_memory_shares_with_nobody(gpus, make_launch, ended):
    gpus(10)
    executor = LocalExecutor(command=SLEEP)
    started(executor, make_launch(peak(1, alone=True)), ended)
    assert not executor.has_room(peak(1))


def test_the_emptiest_gpu_comes_first(gpus, make_launch, ended):
    gpus(10, 10)
    executor = LocalExecutor(command=SLEEP)
    places = [placed(started(executor, make_launch(peak(4)), ended)) for _ in range(4)]
    assert places == [[0], [1], [0], [1]]
    assert not executor.has_room(peak(4))


def test_the_smallest_gpu_sets_what_fits(gpus, make_launch, ended):
    gpus(80, 10)
    executor = LocalExecutor(command=SLEEP)
    started(executor, make_launch(peak(6)), ended)
    started(executor, make_launch(peak(6)), ended)
    assert not executor.has_room(peak(6))


def test_memory_that_is_not_known_is_not_shared(gpus, make_launch, ended, monkeypatch):
    gpus(10)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a")
    executor = LocalExecutor(command=SLEEP)
    started(executor, make_launch(peak(1)), ended)
    assert not executor.has_room(peak(1))


def test_a_run_on_several_devices_gets_them_all(gpus, make_launch, ended):
    gpus(10, 10, 10, 10, 10)
    executor = LocalExecutor(execution=Execution(devices=2), command=SLEEP)
    assert executor.num_slots == 2  # the fifth is left over
    demand = Demand(devices=2, device_gib=6)
    assert placed(started(executor, make_launch(demand), ended)) == [0, 1]
    assert placed(started(executor, make_launch(demand), ended)) == [2, 3]
    assert not executor.has_room(demand)


def test_a_number_of_slots_overrides_what_fits(gpus, make_launch, ended):
    gpus(10, 10)
    executor = LocalExecutor(ExecutorSettings(slots=3), command=SLEEP)
    assert executor.num_slots == 3
    places = [placed(started(executor, make_launch(demand), ended)) for demand in (UNKNOWN, peak(99), UNKNOWN)]
    assert places == [[0], [1], [0]]
    assert not executor.has_room(peak(0.1))


def test_host_memory_bounds_how_many_share_a_machine(make_launch, ended, monkeypatch):
    monkeypatch.setattr(module, "num_cores", lambda: 16)
    monkeypatch.setattr(module, "host_memory_gib", lambda: 10.0)
    cpu = Execution(device="cpu")
    executor = LocalExecutor(execution=cpu, command=SLEEP)
    assert executor.num_slots == 8
    assert executor.has_room(Demand(host_gib=99))  # alone it is tried, whatever was measured elsewhere
    started(executor, make_launch(Demand(host_gib=4)), ended)
    started(executor, make_launch(Demand(host_gib=4)), ended)
    assert not executor.has_room(Demand(host_gib=0.3))
    chosen = LocalExecutor(ExecutorSettings(slots=3), cpu, command=SLEEP)
    for _ in range(3):
        started(chosen, make_launch(Demand(host_gib=9)), ended)
    assert not chosen.has_room(UNKNOWN)


@pytest.mark.parametrize("cores", [1, 2, 3, 7, 16])
@pytest.mark.parametrize(("num_gpus", "devices"), [(0, 1), (0, 2), (1, 1), (4, 1), (4, 2), (5, 2)])
@pytest.mark.parametrize("slots", [None, 1, 3])
def test_threads_are_divided_and_not_more_than_there_are_cores(
    gpus, make_launch, monkeypatch, cores, num_gpus, devices, slots
):
    gpus(*[10] * num_gpus, cores=cores)
    if not num_gpus and devices > cores:
        with pytest.raises(UserError):
            LocalExecutor(execution=Execution(devices=devices))
        return
    executor = LocalExecutor(ExecutorSettings(slots=slots), Execution(devices=devices), command=["/bin/true"])
    launch = make_launch(Demand(devices))
    [worker] = executor.start([launch])
    while worker.poll() is None:
        time.sleep(0.001)
    threads = read_json(launch.folder.job_json)["num_threads"]
    assert threads >= 1
    assert executor.num_slots * devices * threads <= cores or threads == 1
    if not num_gpus:  # no core is left over that a whole thread of each process could have
        assert executor.num_slots * devices * (threads + 1) > cores


def test_slots_by_default(monkeypatch, gpus):
    gpus()
    for cores, slots in ((1, 1), (2, 1), (3, 1), (8, 4)):
        monkeypatch.setattr(module, "num_cores", lambda cores=cores: cores)
        assert LocalExecutor().num_slots == slots
    gpus(10, 10)
    assert LocalExecutor().num_slots == 2
    assert LocalExecutor(execution=Execution(device="cpu")).num_slots == 8


def test_more_devices_than_there_are_is_one_sentence(gpus):
    gpus(10, 10)
    assert LocalExecutor(execution=Execution(devices=2)).num_slots == 1
    with pytest.raises(UserError, match=r"^execution\.devices is 3, but this machine has 2 GPUs$"):
        LocalExecutor(execution=Execution(devices=3))
    gpus(cores=4)
    with pytest.raises(UserError, match=r"but this machine has no GPU for them and 4 CPU cores$"):
        LocalExecutor(execution=Execution(device="cpu", devices=5))
    assert LocalExecutor(execution=Execution(device="cpu", devices=4)).num_slots == 1


def test_the_executor_of_a_sweep_by_name():
    executor = make_executor(ExecutorSettings(slots=3), Execution(device="cpu"))
    assert isinstance(executor, LocalExecutor) and executor.num_slots == 3


def test_a_worker_that_an_earlier_driver_started_is_adopted(gpus, make_launch, ended, results):
    gpus(10, 10)
    launch = make_launch(peak(1))
    worker = started(LocalExecutor(command=SLEEP), launch, ended)
    handle = json.loads(json.dumps(worker.handle))
    second = LocalExecutor(command=SLEEP)
    adopted = second.adopt(handle)
    assert adopted is not None
    assert (adopted.pid, adopted.place, adopted.handle) == (worker.pid, worker.place, worker.handle)
    assert adopted.poll() is None
    # Nobody knows what it takes: the next goes elsewhere, and a third waits.
    assert placed(started(second, make_launch(peak(1)), ended)) == [1]
    assert placed(started(second, make_launch(peak(1)), ended)) == [1]
    assert not second.has_room(UNKNOWN)
    adopted.stop()
    deadline = time.monotonic() + 20
    while adopted.poll() is None:
        assert time.monotonic() < deadline
        worker.poll()  # as its parent, or it stays a zombie: dead either way
        time.sleep(0.005)
    assert adopted.poll() == End(None)
    assert second.has_room(UNKNOWN)
    assert second.adopt(handle) is None  # over
    for changed in (
        {"executor": "slurm"},
        {"process": handle["process"] | {"started": 1, "pid": os.getpid()}},
        {"process": handle["process"] | {"host": "elsewhere", "pid": os.getpid()}},
    ):
        assert second.adopt(handle | changed) is None


def test_a_deaf_worker_is_killed_after_its_grace(make_launch, ended, wait_until):
    executor = LocalExecutor(ExecutorSettings(slots=1, grace_s=0.3), command=[sys.executable, "-c", DEAF])
    launch = make_launch()
    worker = started(executor, launch, ended)
    wait_until(lambda: launch.folder.log.read_text() == "up\n")
    assert worker.poll() is None
    began = time.monotonic()
    worker.stop()
    wait_until(lambda: worker.poll() is not None, seconds=10)
    assert worker.poll() == End(-signal.SIGKILL)
    assert time.monotonic() - began >= 0.3
    worker.stop()  # over: nothing is sent to whoever has its number by now


def test_a_second_wish_to_stop_ends_a_worker_at_once(make_launch, ended, wait_until):
    executor = LocalExecutor(ExecutorSettings(slots=1, grace_s=60), command=[sys.executable, "-c", DEAF])
    launch = make_launch()
    worker = started(executor, launch, ended)
    wait_until(lambda: launch.folder.log.read_text() == "up\n")
    worker.stop()
    worker.stop()
    wait_until(lambda: worker.poll() is not None, seconds=10)
    assert worker.poll() == End(-signal.SIGKILL)


def test_what_a_killed_worker_had_started_goes_with_it(make_launch, ended, wait_until):
    launch = make_launch()
    worker = started(LocalExecutor(command=[sys.executable, "-c", FAMILY]), launch, ended)
    wait_until(lambda: launch.folder.log.read_text().endswith("\n"))
    child = int(launch.folder.log.read_text())
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: worker.poll() is not None)
    wait_until(lambda: _state(child) in (None, "Z"), seconds=10)


def _state(pid: int) -> str | None:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def test_a_worker_that_comes_late_finds_itself_passed_over_and_writes_nothing(make_launch, worker, wait_until, results):
    launch = make_launch()
    waits = f'until [ -e "{results}/go" ]; do sleep 0.01; done; exec "{worker[0]}" "{worker[1]}" "$0"'
    [late] = LocalExecutor(command=["/bin/sh", "-c", waits]).start([launch])
    assert reserve(launch.folder.path, read_owner(launch.folder.path), pulse=results)
    (results / "go").touch()
    wait_until(lambda: late.poll() is not None)
    assert late.poll() == End(75), launch.folder.log.read_text()
    assert {path.name for path in launch.folder.path.iterdir()} == {"lease", "job.json", "log.txt"}


def test_a_driver_that_was_passed_over_starts_nothing(make_launch, results):
    launch = make_launch()
    assert reserve(launch.folder.path, read_owner(launch.folder.path), pulse=results)
    with pytest.raises(FencedError):
        LocalExecutor(command=SLEEP).start([launch])
    assert {path.name for path in launch.folder.path.iterdir()} == {"lease"}
