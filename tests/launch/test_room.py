"""A disk that is really full, and has room again."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from small_disk import fill, small_disk

from harness.launch import room as module
from harness.launch.room import LONGEST_S, LOOK_S, Room

MIB = 1 << 20


@pytest.fixture
def clock(monkeypatch):
    """The driver's clock, moved by hand."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


@pytest.fixture
def told():
    return []


def test_a_full_disk_is_told_once_and_gone_on_with_once_there_is_room(tmp_path, clock, told):
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        room = Room(disk)  # a quarter of so small a disk is enough
        assert room.is_there(told.append) and not room.waiting
        ballast = fill(disk)
        room.ran_out(told.append)
        room.ran_out(told.append)
        assert told == [f"paused: the disk of {disk} is full; the sweep goes on by itself once there is room"]
        for _ in range(3):
            clock.now += LOOK_S
            assert not room.is_there(told.append)
        ballast.unlink()
        assert not room.is_there(told.append)  # looked at every two seconds
        clock.now += LOOK_S
        assert room.is_there(told.append) and not room.waiting
        assert told[1:] == ["going on: there is room on the disk again"]
        assert room.is_there(told.append) and len(told) == 2
        assert list(disk.iterdir()) == []  # nothing is left of the try


def test_a_little_room_is_not_enough(tmp_path, clock, told):
    with small_disk(tmp_path / "disk", 8 * MIB) as disk:
        room = Room(disk, enough_bytes=2 * MIB)
        fill(disk, leave=MIB)
        room.ran_out(told.append)
        clock.now += LOOK_S
        assert not room.is_there(told.append)
        (disk / "ballast").unlink()
        fill(disk, leave=3 * MIB)
        clock.now += LOOK_S
        assert room.is_there(told.append)


def test_room_that_is_soon_gone_again_is_looked_for_less_and_less_often(tmp_path, clock, told):
    room = Room(tmp_path, enough_bytes=MIB)
    waits = []
    for _ in range(7):
        room.ran_out(told.append)
        began = clock.now
        while not room.is_there(told.append):
            clock.now += 1.0
        waits.append(clock.now - began)
    assert waits == [2, 4, 8, 16, 32, 60, 60]
    assert len(told) == 14
    clock.now += 2 * LONGEST_S
    room.ran_out(told.append)
    clock.now += LOOK_S
    assert room.is_there(told.append)


def test_further_workers_that_ran_out_do_not_put_the_next_look_off(tmp_path, clock, told):
    room = Room(tmp_path, enough_bytes=MIB)
    room.ran_out(told.append)
    for _ in range(3):
        clock.now += 0.5
        room.ran_out(told.append)
    clock.now += 0.5
    assert room.is_there(told.append)
