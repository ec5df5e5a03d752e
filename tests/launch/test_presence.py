"""That a driver is there, and that it can be asked to stop."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.launch.presence import Presence, drivers, read_driver
from harness.record.atomic import read_json, write_json
from harness.record.process import ProcessId
from harness.record.pulse import Watch

DRIVER = """
import sys, time
from pathlib import Path
from harness.launch.presence import Presence
presence = Presence(Path(sys.argv[1]), "other", 60.0)
print(presence.path, flush=True)
while not presence.stop_requested:
    time.sleep(0.01)
presence.close()
"""


@pytest.fixture
def other(results):
    """Another driver."""
    process = subprocess.Popen([sys.executable, "-c", DRIVER, str(results)], stdout=subprocess.PIPE, text=True)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_driver_is_there_while_it_is(results):
    assert list(drivers(results)) == []
    presence = Presence(results, "small", 60.0)
    [driver] = drivers(results)
    assert (driver.sweep, driver.process, driver.lease_s) == ("small", ProcessId.this(), 60.0)
    assert driver.path == presence.path and driver.path.parent == results / "drivers"
    assert read_driver(presence.path) == driver
    assert driver.seems_alive and not driver.is_gone(Watch())
    presence.close()
    assert list(drivers(results)) == [] == list((results / "drivers").iterdir())
    assert read_driver(presence.path) is None
    presence.close()


def test_it_beats_by_itself(results, wait_until):
    presence = Presence(results, "small", 0.12)
    os.utime(presence.path, (1, 1))
    wait_until(lambda: presence.path.stat().st_mtime > 1)
    presence.close()


def test_another_driver_can_be_asked_to_stop(results, other):
    mine = Presence(results, "small", 60.0)
    found = {driver.sweep: driver for driver in drivers(results)}
    assert found.keys() == {"small", "other"} and found["other"].process.pid == other.pid
    found["other"].request_stop()
    assert other.wait(timeout=30) == 0
    assert not mine.stop_requested
    assert [driver.sweep for driver in drivers(results)] == ["small"]
    read_driver(mine.path).request_stop()
    assert mine.stop_requested
    mine.close()
    assert list((results / "drivers").iterdir()) == []


def test_a_driver_that_was_killed_is_gone_at_once_and_one_elsewhere_after_its_silence(results, other):
    other.send_signal(signal.SIGKILL)
    other.wait()
    [driver] = drivers(results)  # its file is left
    assert not driver.seems_alive and driver.is_gone(Watch())
    there = dataclasses.replace(driver, process=dataclasses.replace(driver.process, host="elsewhere"), lease_s=0.1)
    watch = Watch()
    assert there.seems_alive and not there.is_gone(watch)
    time.sleep(0.15)
    assert there.is_gone(watch)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"sweep": "s"}', '{"sweep": "s", "process": 3}'])
def test_a_file_that_cannot_be_read_is_no_driver(results, content):
    path = results / "drivers" / "x.json"
    path.parent.mkdir()
    path.write_text(content)
    assert read_driver(path) is None and list(drivers(results)) == []


def test_a_silence_that_is_no_number_is_no_driver(results):
    presence = Presence(results, "small", 60.0)
    write_json(presence.path, read_json(presence.path) | {"lease_s": "long"})
    assert list(drivers(results)) == []
    presence.close()
