"""The executor against a real SLURM, with a small worker: what each end of a job comes to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from slurm_cluster import attempts, end_of, wait_until

from harness.errors import UserError
from harness.launch.executor import Demand, End
from harness.launch.executors.slurm import SlurmExecutor
from harness.record.atomic import read_json
from harness.spec import Execution
from harness.spec.executor import ExecutorSettings

pytestmark = pytest.mark.slurm


def test_runs_with_equal_demands_are_one_array_on_both_nodes(cluster, make_executor, launch) -> None:
    executor = make_executor()
    launches = [launch(0, "exit 0"), launch(1, "exit 7"), launch(2, "exit 0", host_gib=0.8)]
    assert executor.has_room(Demand())
    workers = executor.start(launches)
    first, second, other = (worker.handle["job"] for worker in workers)
    assert first.split("_") == [second.split("_")[0], "0"] and "_" not in other

    assert [end_of(worker) for worker in workers] == [End(0), End(7), End(0)]
    places = [worker.place for worker in workers]
    assert {places[0], places[1]} == {f"slurm {first} on n1", f"slurm {second} on n2"}
    assert cluster.squeue("%i=%m").count(f"{other}=1G") == 1  # 0.8 GiB and a quarter
    for one in launches:
        (attempt,) = attempts(one)
        # Two cores of the job reach the worker, in its threads and in what its step may use.
        assert attempt["num_threads"] == 2 == read_json(one.folder.job_json)["num_threads"]
        assert (attempt["OMP_NUM_THREADS"], attempt["MKL_NUM_THREADS"]) == ("2", "2")
        assert (attempt["PYTHONUNBUFFERED"], attempt["PYTHONFAULTHANDLER"]) == ("1", "1")
        assert (attempt["TOKENIZERS_PARALLELISM"], attempt["SLURM_CPUS_PER_TASK"]) == ("false", "2")
        assert attempt["cwd"] == str(Path.cwd())
        assert one.folder.log.read_text() == "attempt 0\n"


def test_a_chosen_number_of_threads_is_kept(cluster, make_executor, launch) -> None:
    one = launch(0, "exit 0", num_threads=1)
    (worker,) = make_executor().start([one])
    assert end_of(worker) == End(0)
    assert attempts(one)[0]["num_threads"] == 1 and attempts(one)[0]["OMP_NUM_THREADS"] == "1"


def test_a_time_limit_saves_and_the_same_job_goes_on(cluster, make_executor, launch) -> None:
    one = launch(0, "once")
    (worker,) = make_executor(time_min=1, grace_s=30).start([one])
    wait_until(lambda: attempts(one))
    assert end_of(worker, 150) == End(0)
    assert len(attempts(one)) == 2 and one.folder.log.read_text() == "attempt 0\nsaved\nattempt 1\n"


def test_a_preempted_job_saves_and_goes_on(cluster, make_executor, launch) -> None:
    one = launch(0, "once")
    (worker,) = make_executor(partition="low").start([one])
    wait_until(lambda: attempts(one))
    for node in ("n1", "n2"):
        cluster.submit("--partition=high", "--exclusive", f"--nodelist={node}", "--wrap=sleep 2")
    wait_until(lambda: "saved" in one.folder.log.read_text(), 20)
    assert worker.poll() is None
    assert end_of(worker) == End(0) and len(attempts(one)) == 2


def test_a_run_that_never_gets_further_is_not_queued_for_ever(cluster, make_executor, launch) -> None:
    one = launch(0, "wait")
    (worker,) = make_executor(partition="low").start([one])
    for attempt in range(3):
        wait_until(lambda: len(attempts(one)) == attempt + 1)  # noqa: B023
        for node in ("n1", "n2"):
            cluster.submit("--partition=high", "--exclusive", f"--nodelist={node}", "--wrap=sleep 1")
    end = end_of(worker)
    assert end == End(end.code, "SLURM ended it 3 times in a row before it got any further")
    # The second node's job may come so late that it ends the next attempt before that listens to signals.
    assert end.code in (143, -signal.SIGTERM)


def test_stop_lets_a_running_worker_save_and_takes_a_waiting_one_out(cluster, make_executor, launch) -> None:
    executor = make_executor()
    launches = [launch(seed, "wait") for seed in range(5)]
    workers = executor.start(launches)
    wait_until(lambda: attempts(launches[0]) and attempts(launches[1]))
    for worker in workers:
        worker.stop()
    ends = [end_of(worker, 15) for worker in workers]
    assert ends == [End(143)] * 2 + [End(143, "taken out of the queue")] * 3
    assert "saved" in launches[0].folder.log.read_text() and attempts(launches[2]) == []
    array = workers[0].handle["job"].split("_")[0]
    states = [line.split("=")[1] for line in cluster.squeue("%i=%T") if line.startswith(array)]
    assert set(states) == {"CANCELLED", "FAILED"}  # and nothing is queued again


def test_a_second_stop_ends_at_once(cluster, make_executor, launch) -> None:
    one = launch(0, "hold")
    (worker,) = make_executor().start([one])
    wait_until(lambda: attempts(one))
    worker.stop()
    assert worker.poll() is None
    worker.stop()
    assert end_of(worker, 10) == End(-signal.SIGKILL, "ended at once, as asked")
    wait_until(lambda: not Path(f"/proc/{attempts(one)[0]['pid']}").exists(), 5)


def test_a_worker_that_does_not_save_in_time_is_ended(cluster, make_executor, launch) -> None:
    one = launch(0, "hold")
    (worker,) = make_executor(grace_s=2).start([one])
    wait_until(lambda: attempts(one))
    worker.stop()
    assert end_of(worker, 15) == End(-signal.SIGKILL, "ended at once, as asked")


def test_a_killed_worker_is_told_by_its_signal(cluster, make_executor, launch) -> None:
    one = launch(0, "hold")
    (worker,) = make_executor().start([one])
    wait_until(lambda: attempts(one))
    os.kill(attempts(one)[0]["pid"], signal.SIGKILL)
    assert end_of(worker) == End(-signal.SIGKILL)


def test_scancel_by_hand_is_not_undone(cluster, make_executor, launch) -> None:
    one = launch(0, "wait")
    (worker,) = make_executor().start([one])
    wait_until(lambda: attempts(one))
    subprocess.run(["scancel", worker.handle["job"]], check=True)
    end = end_of(worker)
    assert end.code == 143 and "SLURM calls it" in end.words
    assert len(attempts(one)) == 1


def test_a_lost_node_hands_the_job_to_the_other(cluster, make_executor, launch) -> None:
    one = launch(0, "hold")
    (worker,) = make_executor().start([one])
    wait_until(lambda: attempts(one) and worker.poll() is None and " on n" in worker.place)
    node = worker.place.split()[-1]
    cluster.lose(node)
    try:
        wait_until(lambda: len(attempts(one)) == 2, 90)
        (one.folder.path / "go").touch()
        assert end_of(worker) == End(0)
        assert attempts(one)[1]["SLURMD_NODENAME"] == {"n1": "n2", "n2": "n1"}[node]
    finally:
        cluster.restore(node)


def test_another_driver_adopts_what_waits_and_what_runs(cluster, make_executor, launch, results) -> None:
    launches = [launch(seed, "hold") for seed in range(3)]
    handles = [json.loads(json.dumps(worker.handle)) for worker in make_executor().start(launches)]
    later = make_executor()
    adopted = [later.adopt(handle) for handle in handles]
    wait_until(lambda: attempts(launches[0]) and attempts(launches[1]))
    assert [worker.poll() for worker in adopted] == [None] * 3 and attempts(launches[2]) == []
    for one in launches:
        (one.folder.path / "go").touch()
    assert [end_of(worker) for worker in adopted] == [End(0)] * 3
    assert [later.adopt(handle) for handle in handles] == [None] * 3
    assert later.adopt({**handles[0], "job": "--user=root"}) is None
    assert later.adopt({"executor": "local"}) is None


def test_a_job_that_cannot_begin_says_why(cluster, make_executor, launch) -> None:
    executor = make_executor()
    one = launch(0, "exit 0")
    executor._command = ("/no/such/python",)
    (worker,) = executor.start([one])
    end = end_of(worker)
    assert end.code is None and "could not be started" in end.words and "/no/such/python" in end.words


def test_an_end_that_could_not_be_written_down_is_had_from_slurm(cluster, make_executor, launch) -> None:
    one = launch(0, "hold 74")
    (worker,) = make_executor().start([one])
    wait_until(lambda: attempts(one))
    (Path(worker.handle["folder"]) / "0.end.json").mkdir()  # as good as a full disk
    (one.folder.path / "go").touch()
    end = end_of(worker)
    assert end.code == 74 and end.words.startswith(f"SLURM calls its job {worker.handle['job']} FAILED")


def test_slots_bound_what_is_queued(cluster, make_executor, launch) -> None:
    executor = make_executor(slots=1)
    one = launch(0, "hold")
    assert executor.num_slots == 1 and executor.has_room(Demand())
    (worker,) = executor.start([one])
    assert not executor.has_room(Demand())
    (one.folder.path / "go").touch()
    end_of(worker)
    assert executor.has_room(Demand())


def test_what_slurm_refuses_is_one_sentence(cluster, make_executor, launch) -> None:
    with pytest.raises(UserError, match=r"^SLURM refuses the jobs of small: invalid partition specified: nowhere; "):
        make_executor(partition="nowhere").start([launch(0, "exit 0")])
    with_gpus = SlurmExecutor(ExecutorSettings(type="slurm"), Execution())
    with pytest.raises(UserError, match=r"gres.*\(each asks for 1 GPU; with execution.device cpu, for none\)$"):
        with_gpus.start([launch(1, "exit 0")])


def test_a_driver_in_a_job_asks_for_what_its_runs_need(cluster, make_executor, launch, monkeypatch) -> None:
    # As in a job of one core; sbatch and srun would take these over.
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "5")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "999999")
    one = launch(0, "exit 0")
    (worker,) = make_executor().start([one])
    assert end_of(worker) == End(0)
    assert os.environ["SLURM_JOB_ID"] == "1" and "SLURM_CONF" in os.environ


def test_polling_is_one_call_for_all(cluster, make_executor, launch, tmp_path, monkeypatch) -> None:
    calls = tmp_path / "calls"
    real = subprocess.run(["which", "squeue"], capture_output=True, text=True, check=True).stdout.strip()
    (tmp_path / "bin").mkdir()
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f'#!/bin/sh\necho >> {calls}\nexec {real} "$@"\n')
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", f"{squeue.parent}:{os.environ['PATH']}")
    executor = make_executor()
    launches = [launch(seed, "hold") for seed in range(8)]
    workers = executor.start(launches)
    before = len(calls.read_text().splitlines()) if calls.exists() else 0
    for _ in range(200):
        assert all(worker.poll() is None for worker in workers)
    assert len(calls.read_text().splitlines()) - before <= 2
    for worker in workers:
        worker.stop()
    for worker in workers:
        worker.poll()


def test_a_silent_controller_ends_nothing(cluster, make_executor, launch, tmp_path, monkeypatch) -> None:
    executor = make_executor()
    one = launch(0, "hold")
    (worker,) = executor.start([one])
    wait_until(lambda: attempts(one))
    conf = Path(os.environ["SLURM_CONF"])
    astray = tmp_path / "slurm.conf"
    astray.write_text(conf.read_text().replace("SlurmctldPort=", "SlurmctldPort=1"))
    monkeypatch.setenv("SLURM_CONF", str(astray))
    executor._queue.look()
    assert worker.poll() is None and not executor.has_room(Demand())
    monkeypatch.setenv("SLURM_CONF", str(conf))
    executor._queue.look()
    assert executor.has_room(Demand())
    (one.folder.path / "go").touch()
    assert end_of(worker) == End(0)
