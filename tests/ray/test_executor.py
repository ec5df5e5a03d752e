"""The executor on a real cluster of several nodes, with a small worker: what each end of a worker comes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness.errors import UserError
from harness.launch.executor import Demand, End
from harness.launch.executors import ray as ray_executor
from harness.record.atomic import read_json

from .conftest import HERE, about, add_node, end_of, lives, wait_until

pytestmark = pytest.mark.slow


def free_cores() -> float:
    import ray

    return ray.available_resources().get("CPU", 0.0)


def actors() -> list[str]:
    import ray

    return [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]


def test_workers_share_the_nodes_and_give_back_what_they_held(make_executor, launch, monkeypatch) -> None:
    monkeypatch.setenv("HARNESS_DATA", "/data")
    monkeypatch.setenv("WANDB_API_KEY", "planted")
    executor = make_executor()
    assert executor.num_slots == 2 and executor.has_room(Demand())
    first, second = launch("wait", 0), launch("exit 7", 1)
    (one,) = executor.start([first])
    (other,) = executor.start([second])
    assert not executor.has_room(Demand())  # whether Ray has placed them by now or not
    assert end_of(other) == End(7)
    seen = about(first)
    assert not executor.has_room(Demand()) or free_cores() == 2
    one.stop()
    assert end_of(one) == End(143) == one.poll()
    assert {place.split(" (")[0] for place in (one.place, other.place)} == {"ray node 127.0.0.2", "ray node 127.0.0.3"}
    assert first.folder.log.read_text() == "here\nsaved\n"
    environment = seen["environment"]
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TOKENIZERS_PARALLELISM", "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER")
    assert [environment[name] for name in names] == ["2", "2", "false", "1", "1"]
    assert read_json(first.folder.job_json)["num_threads"] == 2
    assert environment["HARNESS_DATA"] == "/data" and "WANDB_API_KEY" not in environment
    assert not [name for name in environment if name.startswith("RAY_")]
    assert seen["cwd"] == str(Path.cwd()) and seen["blocked"] == []
    wait_until(lambda: free_cores() == 4)
    wait_until(lambda: actors() == [])
    assert executor.has_room(Demand())


def test_a_worker_that_does_not_listen_is_ended_after_its_grace_or_on_a_second_request(make_executor, launch) -> None:
    patient, hasty = launch("deaf", 0), launch("deaf", 1)
    executor = make_executor(grace_s=0.5)
    (one,) = executor.start([patient])
    seen = about(patient)
    one.stop()
    assert end_of(one).code == -signal.SIGKILL
    executor = make_executor(grace_s=60)
    (other,) = executor.start([hasty])
    seen_too = about(hasty)
    wait_until(lambda: other.place)
    other.stop()
    other.stop()
    assert end_of(other, 10).code == -signal.SIGKILL
    pids = [seen["pid"], seen["child"], seen_too["pid"], seen_too["child"]]
    wait_until(lambda: not any(map(lives, pids)))


def test_a_worker_that_is_killed_tells_by_which_signal(make_executor, launch) -> None:
    one = launch("die")
    (worker,) = make_executor().start([one])
    assert end_of(worker) == End(-signal.SIGKILL)
    wait_until(lambda: not lives(about(one)["child"]))


def test_a_chosen_number_of_threads_is_kept_and_cores_are_divided_among_devices(make_executor, launch) -> None:
    kept, divided = launch("exit 0", 0, num_threads=3), launch("exit 0", 1, Demand(devices=2))
    workers = make_executor(devices=2, cpus=2).start([kept, divided])
    assert [end_of(worker) for worker in workers] == [End(0), End(0)]
    assert about(kept)["environment"]["OMP_NUM_THREADS"] == "3"
    assert about(divided)["environment"]["OMP_NUM_THREADS"] == "1"


def test_a_worker_ends_with_the_process_of_rays_that_kept_it(make_executor, launch) -> None:
    one = launch("deaf")
    (worker,) = make_executor().start([one])
    pid = about(one)["pid"]
    psutil.Process(pid).parent().kill()
    end = end_of(worker)
    assert end.code is None and "was lost" in end.words and len(end.words) < 200
    wait_until(lambda: not lives(pid), 5)
    wait_until(lambda: free_cores() == 4)


def test_a_node_is_lost_and_nothing_of_its_worker_is_left(cluster, make_executor, launch) -> None:
    node = add_node(cluster, "127.0.0.4", num_cpus=3)
    one = launch("deaf")
    executor = make_executor(cpus=3)  # as that node alone has
    (worker,) = executor.start([one])
    pids = [about(one)["pid"]]
    place = wait_until(lambda: worker.place)
    cluster.remove_node(node, allow_graceful=False)
    assert end_of(worker, 60) == End(None, f"{place} was lost")
    wait_until(lambda: not any(map(lives, pids)), 5)
    assert not executor.has_room(Demand())  # it may come back
    assert make_executor().has_room(Demand())


def test_the_next_driver_finds_the_worker_of_one_that_died(cluster, make_executor, launch) -> None:
    one = launch("wait", num_threads=1)
    one.files.write_json(one.folder.job_json, one.job.model_dump(mode="json"))
    command = [sys.executable, str(HERE / "drive.py"), cluster.address, str(one.folder.job_json)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:
        try:
            handle = json.loads(driver.stdout.readline())["handle"]
        finally:
            driver.kill()
    pid = about(one)["pid"]
    executor = make_executor()
    worker = executor.adopt(handle)
    assert worker.poll() is None and lives(pid) and dict(worker.handle) == handle
    wait_until(lambda: worker.place)
    worker.stop()
    assert end_of(worker) == End(143)
    wait_until(lambda: executor.adopt(handle) is None)
    assert executor.adopt({"executor": "local", "process": {}}) is None


def test_an_actor_that_no_driver_asks_leaves_by_itself(make_executor, launch, monkeypatch) -> None:
    monkeypatch.setattr(ray_executor, "KEEP_S", 0.5)
    (worker,) = make_executor().start([launch("exit 0")])
    (name,) = actors()
    assert name == worker.handle["actor"]
    wait_until(lambda: actors() == [])
    wait_until(lambda: free_cores() == 4)


def test_a_worker_that_waits_for_its_turn_gives_it_up_at_once(make_executor, launch) -> None:
    executor = make_executor(cpus=2)
    launches = [launch("wait", 0), launch("wait", 1)]
    holders = executor.start(launches)
    (late,) = executor.start([launch("wait", 2)])
    assert all(map(about, launches))
    assert late.poll() is None and late.place == ""
    late.stop()
    assert end_of(late) == End(None, "it was stopped before it had begun")
    wait_until(lambda: all(worker.place for worker in holders))
    for worker in holders:
        worker.stop()
    assert [end_of(worker).code for worker in holders] == [143, 143]


def test_what_no_node_has_is_refused_and_slots_are_a_limit(make_executor, launch) -> None:
    with pytest.raises(
        UserError, match=r"asks for 5 CPU cores, but the largest node of the Ray cluster has 2 CPU cores"
    ):
        make_executor(cpus=5)
    executor = make_executor(slots=1)
    assert executor.num_slots == 1
    (worker,) = executor.start([launch("exit 0")])
    assert not executor.has_room(Demand())
    assert end_of(worker) == End(0)
    wait_until(lambda: executor.has_room(Demand(host_gib=1.0)))
    with pytest.raises(UserError, match="asks for 8 CPU cores"):
        executor.has_room(Demand(devices=4))
