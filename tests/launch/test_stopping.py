"""`harness stop`: drivers, and workers whose driver is gone, asked through the folders."""

from __future__ import annotations

import json

from harness.launch.stopping import stop_sweep, wait_for_end
from harness.record.folder import RunFolder
from harness.record.lease import claim, read_owner
from harness.record.state import read_state


def test_a_driver_stops_its_workers_and_goes(sweep, results, run_ids, order, start_driver, drive, wait_until):
    order({run_ids[0]: "wait"})
    driver = start_driver(1)
    wait_until((RunFolder(results, run_ids[0]).path / "here").exists)
    stopped = stop_sweep(results, sweep.name, run_ids)
    assert [one.process.pid for one in stopped.drivers] == [driver.pid] and stopped.orphans == ()
    told: list[int] = []
    wait_for_end(results, stopped, told.append)
    assert told[-1] == 0
    outcome = json.loads(driver.communicate(timeout=20)[0])
    assert (outcome["interrupted"], outcome["num_pending"]) == (True, 3)
    assert read_state(RunFolder(results, run_ids[0])).status == "pending"
    assert not list((results / "drivers").iterdir())  # neither its presence nor the request stays
    assert stop_sweep(results, sweep.name, run_ids).nobody
    order({})
    assert drive(sweep).num_completed == 3


def test_another_sweeps_driver_is_left_alone(sweep, results, run_ids, order, start_driver, wait_until):
    order({run_ids[0]: "wait"})
    driver = start_driver(1)
    wait_until((RunFolder(results, run_ids[0]).path / "here").exists)
    assert stop_sweep(results, "another", run_ids).nobody
    assert driver.poll() is None
    stop_sweep(results, sweep.name, run_ids)
    driver.communicate(timeout=20)


def test_a_worker_without_a_driver_is_asked_through_its_lease(results):
    folder = RunFolder(results, "sft-counting-s0-0123456789-v1")
    lease = claim(folder.path, 0)
    assert not lease.stop_requested
    stopped = stop_sweep(results, "any", [folder.run_id])
    assert stopped.orphans == (folder.run_id,) and stopped.drivers == ()
    assert lease.stop_requested
    lease.release()
    wait_for_end(results, stopped, lambda count: None)
    owner = read_owner(folder.path)
    assert owner is not None and owner.released
    # The next owner is not asked.
    assert not claim(folder.path, 0).stop_requested
