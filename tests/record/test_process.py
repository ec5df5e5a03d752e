"""Which process something is: a number alone says nothing."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import pytest

from harness.record.process import ProcessId, age_s, boot_id

linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are told apart by Linux's /proc")


@pytest.fixture
def child():
    """A process that waits for its input to end."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    yield process
    process.kill()
    process.stdin.close()
    process.wait()


def test_a_process_comes_back_from_json_as_it_was():
    this = ProcessId.this()
    assert ProcessId.from_json(this.as_json()) == this == ProcessId.of(os.getpid())
    assert this.as_json().keys() == {"host", "boot_id", "pid_namespace", "pid", "started"}
    for other in (None, [], "x", 3, {"pid": 3}, this.as_json() | {"colour": "red"}):
        with pytest.raises(TypeError):
            ProcessId.from_json(other)


@linux
def test_a_process_lives_until_it_has_ended_though_nobody_looked(child):
    process = ProcessId.of(child.pid)
    assert process.is_alive is True
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_alive is False  # a zombie: its number is still taken
    child.wait()
    assert process.is_alive is False


@linux
def test_a_process_that_is_stopped_is_alive(child):
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert ProcessId.of(child.pid).is_alive is True


@linux
def test_a_number_that_was_given_away_again_is_another_process(child):
    process = ProcessId.of(child.pid)
    assert dataclasses.replace(process, started=process.started - 1).is_alive is False
    # Without a start on record the number is all there is.
    assert dataclasses.replace(process, started=None).is_alive is True


@linux
@pytest.mark.parametrize(
    "elsewhere",
    [{"host": "elsewhere"}, {"boot_id": "another boot"}, {"boot_id": None}, {"pid_namespace": "pid:[1]"}],
)
def test_nothing_is_known_of_a_process_elsewhere(elsewhere):
    here = ProcessId.this()
    there = dataclasses.replace(here, **elsewhere)
    assert (here.is_here, here.is_alive) == (True, True)
    assert (there.is_here, there.is_alive) == (False, None)
    assert dataclasses.replace(there, pid=2**22 + 1).is_alive is None


@linux
def test_the_age_counts_from_the_start_of_the_interpreter():
    assert boot_id()
    before = time.monotonic()
    code = "from harness.record.process import age_s; print(age_s())"
    age = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    # The kernel counts in hundredths.
    assert 0 < age <= time.monotonic() - before + 0.02
    assert age_s() > age
