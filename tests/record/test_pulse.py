"""Signs of life: a watcher goes by its own clock, whatever the clocks of others say."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from types import SimpleNamespace

import pytest

from harness.record import pulse as module
from harness.record.process import ProcessId
from harness.record.pulse import Heart, Watch, beat, seems_gone

FAR = 10**9
"""Seconds; some thirty years."""


@pytest.fixture
def clock(monkeypatch):
    """The watcher's own clock, moved by hand; that of the wall goes on."""
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "pulse"
    file.touch()
    return file


@pytest.fixture
def elsewhere():
    """A process of which nothing is known but its signs of life."""
    return dataclasses.replace(ProcessId.this(), host="elsewhere")


def test_silence_is_measured_from_the_first_look(file, clock):
    watch = Watch()
    assert watch.silent_s(file) == 0
    clock.now += 7
    assert watch.silent_s(file) == 7
    assert not watch.has_changed(file)
    os.utime(file, (1, 1))
    assert watch.silent_s(file) == 0
    assert watch.has_changed(file)
    clock.now += 2
    assert watch.silent_s(file) == 2
    file.unlink()
    assert watch.silent_s(file) == float("inf")


@pytest.mark.parametrize("shift", [-FAR, FAR])
def test_a_time_that_is_set_back_or_ahead_is_a_sign_of_life_and_no_more(file, clock, elsewhere, shift):
    watch = Watch()
    assert not watch.is_gone(elsewhere, file, 60)
    clock.now += 59
    os.utime(file, (time.time() + shift,) * 2)
    assert not watch.is_gone(elsewhere, file, 60)
    clock.now += 60
    assert not watch.is_gone(elsewhere, file, 60)
    clock.now += 1
    assert watch.is_gone(elsewhere, file, 60)


@pytest.mark.parametrize("shift", [-FAR, FAR])
def test_a_file_of_another_time_has_its_silence_all_the_same(file, clock, elsewhere, shift):
    os.utime(file, (time.time() + shift,) * 2)
    watch = Watch()
    assert not watch.is_gone(elsewhere, file, 60)
    clock.now += 61
    assert watch.is_gone(elsewhere, file, 60)


def test_what_is_known_of_a_process_goes_before_its_silence(file, clock, elsewhere):
    here = ProcessId.this()
    dead = dataclasses.replace(here, started=here.started - 1)
    watch = Watch()
    assert watch.is_gone(dead, file, 60)
    assert not watch.is_gone(here, file, 60)
    clock.now += 61
    assert watch.is_gone(here, file, 60)  # alive, but stopped for longer than it may be


def test_a_guess_for_show_goes_by_the_clocks(file, elsewhere):
    assert not seems_gone(elsewhere, file, 60)
    os.utime(file, (time.time() - 119,) * 2)
    assert not seems_gone(elsewhere, file, 60)
    os.utime(file, (time.time() - 121,) * 2)
    assert seems_gone(elsewhere, file, 60)
    assert not seems_gone(ProcessId.this(), file, 60)
    file.unlink()
    assert seems_gone(elsewhere, file, 60)
    assert not seems_gone(ProcessId.this(), file, 60)


def test_a_beat_is_seen_and_makes_no_file(file, clock):
    watch = Watch()
    os.utime(file, (1, 1))
    watch.silent_s(file)
    clock.now += 5
    beat(file)
    assert watch.silent_s(file) == 0
    file.unlink()
    with pytest.raises(FileNotFoundError):
        beat(file)
    assert not file.exists()


def test_a_heart_beats_and_looks_until_it_is_stopped(file):
    os.utime(file, (1, 1))
    looks = threading.Semaphore(0)
    heart = Heart(file, 0.01, lost=pytest.fail, look=looks.release)
    assert looks.acquire(timeout=10) and looks.acquire(timeout=10)
    assert file.stat().st_mtime > 1
    heart.stop()
    os.utime(file, (1, 1))
    time.sleep(0.05)
    assert file.stat().st_mtime == 1


def test_a_heart_says_once_that_its_file_is_gone(file):
    lost = []
    gone = threading.Event()
    heart = Heart(file, 0.01, lost=lambda: (lost.append(threading.current_thread().name), gone.set()))
    file.unlink()
    assert gone.wait(timeout=10)
    file.touch()  # back again: somebody else's
    time.sleep(0.05)
    assert lost == ["heart"]
    heart.stop()
