"""Who works on a folder, on real processes: one at a time, and nobody twice."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from small_disk import fill, small_disk

from harness.errors import FencedError
from harness.record import pulse as pulse_module
from harness.record.atomic import read_json, write_json
from harness.record.lease import LEASE, OWNER, RELEASED, claim, is_held, read_owner, request_stop, reserve
from harness.record.process import ProcessId
from harness.record.pulse import Heart, Watch

NUM_RACERS = 20

RACE = f"""
import multiprocessing, sys
from pathlib import Path
from harness.record.lease import read_owner, reserve
fork = multiprocessing.get_context("fork")
everybody = fork.Barrier({NUM_RACERS})
folder = Path(sys.argv[1])

def race(number):
    held = None
    for round in range(int(sys.argv[2])):
        over = read_owner(folder)
        everybody.wait()
        lease = reserve(folder, over, pulse=folder / "pulse")
        everybody.wait()
        if held is not None and held.files.stage.exists():
            print("not fenced", round, held.token, flush=True)
        held = lease
        if lease is not None:
            lease.files.check()
            print("won", round, lease.token, flush=True)

racers = [fork.Process(target=race, args=(number,)) for number in range({NUM_RACERS})]
[racer.start() for racer in racers]
[racer.join() for racer in racers]
sys.exit(max(racer.exitcode for racer in racers))
"""

CLAIM = """
import sys
from pathlib import Path
from harness.record.lease import claim
lease = claim(Path(sys.argv[1]), int(sys.argv[2]))
print(lease.token, flush=True)
input()
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def pulse(tmp_path):
    """A driver's sign of life."""
    path = tmp_path / "driver.json"
    path.touch()
    return path


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=50.0)
    monkeypatch.setattr(pulse_module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


def rewrite(owner, **changes):
    """Makes an owner another process than it is."""
    path = owner.path / OWNER
    record = read_json(path)
    write_json(path, record | {"process": record["process"] | changes})


def tokens(folder):
    return sorted(name for name in os.listdir(folder / LEASE))


def test_tokens_only_rise_and_the_last_owner_alone_is_left(folder, pulse):
    assert read_owner(folder) is None and not is_held(folder)
    first = reserve(folder, None, pulse=pulse)
    assert (first.token, first.reserved, tokens(folder)) == (1, 1, ["1"])
    worker = claim(folder, 1)
    assert (worker.token, worker.reserved, tokens(folder)) == (2, 1, ["2"])
    worker.release()
    second = reserve(folder, read_owner(folder), pulse=pulse)
    assert (second.token, second.reserved, tokens(folder)) == (3, 3, ["3"])
    owner = read_owner(folder)
    assert (owner.token, owner.role, owner.reserved, owner.process) == (3, "driver", 3, ProcessId.this())
    assert owner.pulse.samefile(pulse) and not owner.released
    assert is_held(folder)
    second.release()
    assert not is_held(folder) and read_owner(folder).is_gone(Watch())
    by_hand = claim(folder, 0)
    assert (by_hand.token, by_hand.reserved) == (4, 4)
    assert read_owner(folder).pulse == by_hand.pulse


def test_who_was_passed_over_can_write_no_more(folder, pulse):
    first = reserve(folder, None, pulse=pulse)
    first.files.write_json(folder / "a.json", 1)
    worker = claim(folder, 1)
    for late in (first.files.check, lambda: first.files.write_json(folder / "a.json", 2)):
        with pytest.raises(FencedError, match="another process has taken over"):
            late()
    assert read_json(folder / "a.json") == 1
    first.release()  # what was passed on stays
    assert read_owner(folder).token == worker.token and is_held(folder)
    worker.files.write_json(folder / "a.json", 3)
    assert read_json(folder / "a.json") == 3


@pytest.mark.parametrize("num_rounds", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_of_many_processes_one_gets_a_folder_each_time(folder, num_rounds):
    folder.mkdir()
    (folder / "pulse").touch()
    command = [sys.executable, "-c", RACE, str(folder), str(num_rounds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[0] for line in lines} == {"won"}
    won = sorted((int(number), int(token)) for _, number, token in lines)
    assert won == [(number, number + 1) for number in range(num_rounds)]
    assert tokens(folder) == [str(num_rounds)]  # what the others had prepared is gone


def test_a_worker_whose_reservation_was_passed_over_is_fenced_off(folder, pulse):
    with pytest.raises(FencedError, match="was given to another worker"):
        claim(folder, 1)  # nobody reserved it, or the folder was removed
    reserve(folder, None, pulse=pulse)
    second = reserve(folder, read_owner(folder), pulse=pulse)
    with pytest.raises(FencedError, match="was given to another worker"):
        claim(folder, 1)
    assert claim(folder, 2).token == 3
    with pytest.raises(FencedError):
        second.files.check()
    with pytest.raises(FencedError, match="was given to another worker"):
        claim(folder, 1)


def test_a_job_that_is_queued_again_claims_again_once_its_earlier_attempt_is_dead(folder, pulse):
    reserve(folder, None, pulse=pulse)
    earlier = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder), "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert earlier.stdout.readline() == b"2\n"
    assert read_owner(folder).process.pid == earlier.pid and is_held(folder)
    earlier.kill()
    earlier.wait()
    earlier.stdin.close(), earlier.stdout.close()
    assert not is_held(folder)
    began = time.monotonic()
    again = claim(folder, 1)
    assert (again.token, again.reserved) == (3, 1)
    assert time.monotonic() - began < 0.5  # known to be dead: nothing is waited for


def test_an_earlier_attempt_elsewhere_is_waited_for_while_it_shows_signs_of_life(folder, pulse):
    reserve(folder, None, pulse=pulse)
    claim(folder, 1, lease_s=0.6)
    earlier = read_owner(folder)
    rewrite(earlier, host="elsewhere")
    heart = Heart(earlier.path / OWNER, 0.1)
    claimed = {}

    def queued_again():
        claimed["lease"] = claim(folder, 1, lease_s=0.6)
        claimed["at"] = time.monotonic()

    thread = threading.Thread(target=queued_again)
    thread.start()
    time.sleep(1.0)  # longer than the lease
    assert not claimed
    heart.stop()
    silent = time.monotonic()
    thread.join(timeout=10)
    assert claimed["lease"].token == 3
    assert 0.4 < claimed["at"] - silent < 2.0  # its last beat was up to 0.1 s before


def test_an_earlier_attempt_that_is_passed_over_while_it_is_waited_for_ends_the_wait(folder, pulse):
    reserve(folder, None, pulse=pulse)
    claim(folder, 1, lease_s=60)
    rewrite(read_owner(folder), host="elsewhere")
    raised = []

    def queued_again():
        try:
            claim(folder, 1, lease_s=0.6)
        except FencedError as error:
            raised.append(error)

    thread = threading.Thread(target=queued_again)
    thread.start()
    time.sleep(0.2)
    reserve(folder, read_owner(folder), pulse=pulse)
    thread.join(timeout=10)
    assert len(raised) == 1


def test_a_token_that_was_passed_over_long_ago_is_not_given_by_a_late_renaming(folder, pulse):
    early = reserve(folder, None, pulse=pulse)
    over = read_owner(folder)
    for _ in range(5):
        last = reserve(folder, read_owner(folder), pulse=pulse)
    assert (early.token, last.token, tokens(folder)) == (1, 6, ["6"])
    assert reserve(folder, over, pulse=pulse) is None  # the number 2 is free again by name
    assert tokens(folder) == ["6"]
    last.files.check()


def test_what_a_killed_process_had_prepared_is_no_lease(folder, pulse):
    (folder / LEASE / ".0123456789ab" / "0123456789ab").mkdir(parents=True)
    assert read_owner(folder) is None
    assert reserve(folder, None, pulse=pulse).token == 1


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "3", "null", '{"token": 1}', '{"process": 3, "pulse": null, "role": "driver", "reserved": 1}'],
)
def test_an_owner_that_cannot_be_read_is_one_that_never_beats(folder, pulse, clock, content):
    lease = reserve(folder, None, pulse=pulse)
    (lease.path / OWNER).write_text(content)
    owner = read_owner(folder)
    assert (owner.token, owner.released, owner.lease_s) == (1, False, 60)
    watch = Watch()
    assert not owner.is_gone(watch)
    clock.now += 59
    assert not read_owner(folder).is_gone(watch)
    clock.now += 2
    assert read_owner(folder).is_gone(watch)
    with pytest.raises(FencedError):
        claim(folder, 1)
    assert reserve(folder, owner, pulse=pulse).token == 2


@pytest.mark.parametrize("changes", [{"reserved": "one"}, {"lease_s": "long"}, {"lease_s": None}, {"pulse": 3}])
def test_an_owner_with_values_of_another_kind_cannot_be_read(folder, pulse, changes):
    lease = reserve(folder, None, pulse=pulse)
    write_json(lease.path / OWNER, read_json(lease.path / OWNER) | changes)
    assert read_owner(folder).process.host == ""


def test_removing_the_leases_by_hand_lets_no_old_owner_write_again(folder, pulse):
    old = reserve(folder, None, pulse=pulse)
    shutil.rmtree(folder / LEASE)
    with pytest.raises(FencedError):
        old.files.check()
    new = reserve(folder, read_owner(folder), pulse=pulse)
    assert new.token == old.token == 1
    new.files.check()
    with pytest.raises(FencedError):
        old.files.write_json(folder / "a.json", 1)
    old.release()
    new.files.check()


def test_letting_go_needs_no_room(tmp_path, pulse):
    with small_disk(tmp_path / "disk", 65536) as disk:
        folder = disk / "run"
        lease = reserve(folder, None, pulse=pulse)
        fill(disk)
        with pytest.raises(OSError, match="No space left"):
            lease.files.write_json(folder / "a.json", "x" * 5000)
        assert is_held(folder)
        lease.release()
        owner = read_owner(folder)
        assert owner.released and owner.is_gone(Watch())
        assert os.path.exists(owner.path / RELEASED)


def test_after_a_boot_an_owner_goes_by_its_silence(folder, clock):
    claim(folder, 0, lease_s=60)
    rewrite(read_owner(folder), boot_id="an earlier boot")
    watch = Watch()
    assert not read_owner(folder).is_gone(watch)  # another container may have the name of this machine
    clock.now += 61
    assert read_owner(folder).is_gone(watch)


def test_clocks_that_are_set_change_nothing(folder, clock):
    claim(folder, 0, lease_s=60)
    rewrite(read_owner(folder), host="elsewhere")
    path = read_owner(folder).path / OWNER
    for then in (time.time() + 10**9, time.time() - 10**9):
        os.utime(path, (then, then))
        watch = Watch()
        assert not read_owner(folder).is_gone(watch)
        clock.now += 59
        assert not read_owner(folder).is_gone(watch)
        clock.now += 2
        assert read_owner(folder).is_gone(watch)


def test_an_owner_that_is_stopped_is_gone_after_its_lease_and_not_before(folder, pulse, clock):
    reserve(folder, None, pulse=pulse)
    worker = subprocess.Popen(
        [sys.executable, "-c", CLAIM, str(folder), "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert worker.stdout.readline() == b"2\n"
    worker.send_signal(signal.SIGSTOP)
    watch = Watch()
    assert not read_owner(folder).is_gone(watch)
    clock.now += 61
    assert read_owner(folder).is_gone(watch) and is_held(folder)
    worker.kill()
    worker.wait()
    worker.stdin.close(), worker.stdout.close()
    assert read_owner(folder).is_gone(Watch()) and not is_held(folder)


def test_a_worker_started_by_hand_waits_for_nobody(folder):
    lease = claim(folder, 0)
    with pytest.raises(FencedError, match=f"belongs to process {os.getpid()} on "):
        claim(folder, 0)
    rewrite(read_owner(folder), started=1)
    assert claim(folder, 0).token == 2
    with pytest.raises(FencedError):
        lease.files.check()


@pytest.mark.parametrize("other", [{"boot_id": "an earlier boot"}, {"host": "elsewhere"}])
def test_a_worker_started_by_hand_takes_over_from_one_that_is_silent_for_a_lease(folder, other):
    claim(folder, 0, lease_s=0.6)
    rewrite(read_owner(folder), **other)
    started = time.monotonic()
    assert claim(folder, 0, lease_s=0.6).token == 2
    assert 0.6 < time.monotonic() - started < 5


def test_a_worker_started_by_hand_leaves_a_folder_to_one_that_beats_elsewhere(folder):
    claim(folder, 0, lease_s=3)
    owner = read_owner(folder)
    rewrite(owner, host="elsewhere")
    heart = Heart(owner.path / OWNER, 0.1)
    with pytest.raises(FencedError, match="on elsewhere"):
        claim(folder, 0, lease_s=3)
    heart.stop()


def test_a_request_reaches_its_owner_alone(folder, pulse):
    driver = reserve(folder, None, pulse=pulse)
    owner = read_owner(folder)
    assert not driver.stop_requested
    request_stop(owner)
    assert driver.stop_requested
    worker = claim(folder, 1)
    assert not worker.stop_requested
    request_stop(owner)  # gone by now
    assert not worker.stop_requested


def test_signs_of_life_are_six_in_a_lease(folder, pulse):
    assert reserve(folder, None, pulse=pulse, lease_s=30).beat_s == 5
    owner = read_owner(folder)
    assert owner.lease_s == 30 and owner.seems_alive
    silent = dataclasses.replace(owner, process=dataclasses.replace(owner.process, host="elsewhere"))
    assert silent.seems_alive
    os.utime(pulse, (time.time() - 61,) * 2)
    assert not silent.seems_alive
    assert Counter(json.loads((owner.path / OWNER).read_text()).keys()) == Counter(
        ["token", "role", "reserved", "process", "pulse", "lease_s"]
    )
