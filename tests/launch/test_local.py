"""Slots, devices, thread budgets and the end of worker processes."""

from __future__ import annotations

import signal
import sys

import pytest

from harness.errors import UserError
from harness.launch.local import LocalExecutor, listed_gpus, num_cores, visible_gpus
from harness.launch.lock import is_locked, take_lock
from harness.record.atomic import read_json
from harness.record.folder import RunFolder
from harness.spec import Execution, Job


def job_of(sweep, results, run_id):
    run = sweep.runs[run_id]
    return Job(spec=run.spec, targets=run.targets, evaluation=sweep.evaluation, results=str(results), wandb=False)


def test_a_worker_gets_its_threads_and_its_device(sweep, results, run_ids, monkeypatch, wait_until, worker):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-b")
    executor = LocalExecutor(None, worker)
    assert executor.num_slots == 2
    workers = []
    for run_id in run_ids[:2]:
        folder = RunFolder(results, run_id)
        workers.append(executor.start(job_of(sweep, results, run_id), folder, take_lock(folder.path)))
    wait_until(lambda: all(worker.poll() is not None for worker in workers))
    assert [worker.poll() for worker in workers] == [0, 0]
    threads = max(1, num_cores() // 2)
    for run_id, device in zip(run_ids, ("3", "GPU-b"), strict=False):
        assert read_json(RunFolder(results, run_id).path / "environment.json") == {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": device,
        }
        assert read_json(RunFolder(results, run_id).job_json)["num_threads"] == threads


def test_slots(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LocalExecutor().num_slots == max(1, num_cores() // 2)
    assert LocalExecutor(3).num_slots == 3
    with pytest.raises(UserError, match="slots must be at least 1, not 0"):
        LocalExecutor(0)


def test_a_run_on_several_devices_gets_them_all(sweep, results, run_ids, monkeypatch, wait_until, worker):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3,4")
    # Five devices hold two runs on two each; the fifth is left over.
    executor = LocalExecutor(None, worker, execution=Execution(devices=2))
    assert executor.num_slots == 2
    workers = []
    for run_id in run_ids[:2]:
        folder = RunFolder(results, run_id)
        workers.append(executor.start(job_of(sweep, results, run_id), folder, take_lock(folder.path)))
    wait_until(lambda: all(worker.poll() is not None for worker in workers))
    threads = max(1, num_cores() // 4)
    for run_id, devices in zip(run_ids, ("0,1", "2,3"), strict=False):
        environment = read_json(RunFolder(results, run_id).path / "environment.json")
        assert environment["CUDA_VISIBLE_DEVICES"] == devices
        assert environment["OMP_NUM_THREADS"] == str(threads)


def test_more_devices_than_there_are_is_one_sentence(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert LocalExecutor(execution=Execution(devices=2)).num_slots == 1
    with pytest.raises(UserError, match=r"execution\.devices is 3, but this machine has 2 GPUs"):
        LocalExecutor(execution=Execution(devices=3))
    cores = num_cores()
    with pytest.raises(UserError, match=f"has no GPU for them and {cores} CPU cores"):
        LocalExecutor(execution=Execution(device="cpu", devices=cores + 1))
    assert LocalExecutor(execution=Execution(device="cpu", devices=cores)).num_slots == 1


def test_a_full_executor_starts_no_more_and_a_deaf_worker_is_killed(sweep, results, run_ids, wait_until):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    executor = LocalExecutor(1, [sys.executable, "-c", deaf], grace_s=0.2)
    folder = RunFolder(results, run_ids[0])
    lock = take_lock(folder.path)
    worker = executor.start(job_of(sweep, results, run_ids[0]), folder, lock)
    wait_until(lambda: folder.log.read_text() == "up\n")
    with pytest.raises(RuntimeError, match="all 1 slots are taken"):
        executor.start(job_of(sweep, results, run_ids[0]), folder, lock)
    lock.release()
    assert is_locked(folder.path)  # the worker holds it still
    assert take_lock(folder.path) is None
    worker.stop()
    wait_until(lambda: worker.poll() is not None, seconds=10)
    assert worker.poll() == -signal.SIGKILL
    assert not is_locked(folder.path)


def test_visible_gpus_reads_the_variable_as_cuda_does():
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "0, 2,-1,3"}) == ("0", "2")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-8f,MIG-1"}) == ("GPU-8f", "MIG-1")


def test_gpus_are_taken_from_nvidia_smi_where_nothing_is_chosen(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1a-2b)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-3c)'\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert visible_gpus({}) == ("GPU-1a-2b", "GPU-3c")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert visible_gpus({}) == ()


def test_a_gpu_cut_into_mig_devices_counts_as_these():
    listing = """\
GPU 0: NVIDIA A100 (UUID: GPU-aa)
  MIG 3g.20gb     Device  0: (UUID: MIG-GPU-aa/1/0)
  MIG 3g.20gb     Device  1: (UUID: MIG-bb)
GPU 1: NVIDIA A100 (UUID: GPU-cc)
"""
    assert listed_gpus(listing) == ("MIG-GPU-aa/1/0", "MIG-bb", "GPU-cc")
    assert listed_gpus("No devices found.\n") == ()


def test_a_lock_is_for_one_and_comes_free(tmp_path):
    assert not is_locked(tmp_path)
    lock = take_lock(tmp_path)
    assert is_locked(tmp_path)
    assert take_lock(tmp_path) is None
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)
    take_lock(tmp_path).release()
