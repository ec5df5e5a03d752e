"""The full screen of status: what it shows at any size, whatever folders hold, and in a real terminal."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import sys
import termios
import time

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.launch.status.live import _View, screen
from harness.launch.status.looks import Detail, detail_words, look_around, print_look
from harness.record.atomic import write_json
from harness.record.folder import RunFolder
from harness.record.sweep_record import write_sweep_record
from harness.spec.sweep import load_sweep

from .recorded import MEASURED, record

SIZES = [(80, 24), (120, 40), (200, 60), (30, 8), (10, 3), (1, 1)]


@pytest.fixture
def look(sweep, results, run_ids):
    """A run that runs, one that failed and one that waits."""
    found = look_around(results, sweep)
    running, failed, waiting = found.rows
    rows = [
        dataclasses.replace(waiting),
        dataclasses.replace(failed, status="failed", error="no reward for example counting/train/7"),
        dataclasses.replace(running, status="running", note="train", step=12, num_steps=75),
    ]
    details = {
        running.run_id: Detail(reward=1.25, beta=0.04, kl=0.0021, step_s=0.25, left_s=725, place="vm gpu 3"),
        failed.run_id: Detail(failure="bad_input"),
    }
    return dataclasses.replace(found, rows=rows, details=details)


def lines(look, width, height, view=None):
    return screen(look, view or _View(), width, height).plain.split("\n")


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_line_fits_any_terminal(look, width, height):
    shown = lines(look, width, height)
    assert len(shown) <= height
    assert max(map(len, shown)) <= width


def test_who_runs_comes_first_then_who_failed_then_how_many_of_the_rest(look, run_ids):
    shown = lines(look, 80, 24)
    assert shown[0].startswith("small: 3 runs, 1 running, 1 failed, 1 pending")
    assert shown[1].split() == ["running", "step", "reward", "beta", "kl", "s/step", "left"]
    assert shown[2].split() == [run_ids[0].removesuffix("-v1"), "12/75", "1.25", "0.04", "0.0021", "0.25", "12:05"]
    assert shown[3].split() == ["failed", run_ids[1]]
    assert shown[4].strip() == "bad_input: no reward for example counting/train/7"
    assert shown[-2].strip() == "1 pending"
    assert "vm gpu 3" in lines(look, 200, 60)[2]


def test_a_list_that_is_longer_than_the_terminal_scrolls(look):
    failed = look.rows[1]
    many = dataclasses.replace(
        look, rows=[dataclasses.replace(failed, run_id=f"run-{number:03d}", error="x") for number in range(100)]
    )
    view = _View()
    assert "run-000" in lines(many, 80, 10, view)[1] and "93 more lines" in lines(many, 80, 10, view)[-1]
    for key, first in (("j", "run-001"), (" ", "run-007"), ("k", "run-006"), ("g", "run-000"), ("k", "run-000")):
        assert view.press(key, 10)
        assert first in lines(many, 80, 10, view)[1]
    view.offset = 1000
    assert "run-099" in lines(many, 80, 10, view)[-3]
    assert not view.press("x", 10) and not view.left
    assert view.press("q", 10) and view.left


def test_what_a_worker_wrote_cannot_move_the_cursor(look):
    rows = [dataclasses.replace(look.rows[1], error="\x1b[2Jgone\n\x07[red]x")]
    shown = screen(dataclasses.replace(look, rows=rows), _View(), 120, 24).plain
    assert "gone" in shown and "[red]x" in shown
    assert "\x1b" not in shown and "\x07" not in shown and len(shown.split("\n")) == 24


NOISE = [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe\x00", b'{"spec": 3, "job": [], "attempts": {}}']


@pytest.mark.parametrize("noise", NOISE, ids=range(len(NOISE)))
def test_no_damaged_folder_is_fatal(noise, sweep, results, run_ids):
    write_sweep_record(results, sweep)
    for number, run in enumerate(sweep.runs.values()):
        folder = record(results, sweep, run, MEASURED, is_complete=number > 0)
        owner = folder.path / "lease" / "1" / "owner.json"
        damaged = [folder.state_json, folder.metrics, folder.launches, folder.marks, owner]
        damaged += [[folder.run_json, folder.job_json], [folder.summary], []][number]
        owner.parent.mkdir(parents=True)
        for path in damaged:
            path.write_bytes(noise)
    path = results / "estimates" / "small.json"
    path.parent.mkdir()
    path.write_bytes(noise)
    for asked in (sweep, "small", None):
        look = look_around(results, asked)
        assert {row.run_id for row in look.rows} <= set(run_ids)
        assert json.loads(json.dumps(look.as_json())) == look.as_json()
        for width, height in SIZES:
            screen(look, _View(), width, height)
        print_look(look, io.StringIO())
    assert [row.status for row in look_around(results, sweep).rows][2] == "completed"


def test_a_sweep_on_record_is_known_by_its_name(sweep, results, run_ids):
    write_sweep_record(results, sweep)
    record(results, sweep, sweep.runs[run_ids[1]], MEASURED)
    by_file, by_name = (look_around(results, asked).as_json() for asked in (sweep, "small"))
    assert [row | {"num_steps": 0} for row in by_file] == [row | {"num_steps": 0} for row in by_name]
    told = CliRunner().invoke(app, ["status", "smal", "--results", str(results)])
    assert (told.exit_code, told.output) == (2, f"no sweep 'smal' on record in {results}: did you mean 'small'?\n")


def test_speed_and_time_left_are_the_run_s_own(sweep, results, run_ids):
    folder = record(results, sweep, sweep.runs[run_ids[0]], is_complete=False)
    rows = [{"step": step, "train/loss": 1.0, "time/rollout_s": 0.25, "time/update_s": 0.5} for step in range(9)]
    rows[8]["time/rollout_s"] = 99.0  # one slow step is not the speed
    rows.append({"step": 8, "eval/counting/accuracy": 0.5})
    folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 9, "tr')
    write_json(folder.state_json, {"status": "running", "phase": "train", "step": 9, "num_steps": 75})
    found = look_around(results, sweep)
    assert (found.rows[0].status, found.rows[0].note) == ("pending", "interrupted")
    detail = found.details[run_ids[0]]
    assert (detail.step_s, detail.loss, detail.left_s) == (0.75, 1.0, None)  # nobody is working on it
    words = detail_words(Detail(reward=1.25, beta=0.0, step_s=0.5, left_s=3.0))
    assert words == "reward 1.25  beta 0  0.5 s/step  3.0 s left"


def test_estimates_stand_beside_what_runs_took(sweep, results, run_ids):
    run = sweep.runs[run_ids[0]]
    record(results, sweep, run, MEASURED)
    entry = {
        "at": 0.0,
        "kind": "k",
        "seconds": [10.0, 34.0, 40.0],
        "evaluate_s": 2.0,
        "devices": 2,
        "source": "counted",
    }
    write_json(results / "estimates" / "small.json", {"runs": dict.fromkeys(run_ids, entry)})
    look = look_around(results, sweep)
    assert [row["actual_s"] for row in look.as_json()] == [17.0, None, None]
    assert [row["estimated_s"] for row in look.as_json()] == [34.0] * 3
    out = io.StringIO()
    print_look(look, out)
    *_, row, total = out.getvalue().splitlines()
    assert row.split() == ["sft", "counting", "1", "34", "s", "17", "s", "0.50", "counted"]
    assert total == "completed runs took 17 s, 0.50 of the 34 s estimated; 0.0094 device hours"


def test_without_a_terminal_status_ends_by_itself(sweep_file, results):
    plain = [
        CliRunner().invoke(app, ["status", str(sweep_file), "--results", str(results), *extra])
        for extra in ([], ["--once"])
    ]
    assert [done.exit_code for done in plain] == [0, 0]
    assert plain[0].stdout == plain[1].stdout
    assert plain[0].stdout.endswith("3 runs: 3 pending\n")


class Terminal:
    """A pseudo-terminal with a command in it."""

    def __init__(self, command, width, height):
        self.output = b""
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            # readline, which pytest imports, puts the size of its own terminal into C's environment, and so into that
            # of the processes that it starts to test in.
            sized = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            os.execve(command[0], command, sized | {"TERM": "xterm-256color"})
        self.resize(width, height)

    def resize(self, width, height):
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def read_until(self, words, seconds=60.0):
        """Reads until these words are shown, drawn after this call."""
        start, deadline = len(self.output), time.monotonic() + seconds
        while words not in self.output[start:]:
            assert time.monotonic() < deadline, self.output[start:][-2000:]
            if select.select([self.descriptor], [], [], 0.1)[0]:
                self.output += os.read(self.descriptor, 65536)

    def press(self, key):
        os.write(self.descriptor, key)

    def wait(self, seconds=60.0):
        """The exit code, once the rest was read."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.output += os.read(self.descriptor, 65536)
            except OSError:  # closed
                return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        raise AssertionError("it does not end")

    def close(self):
        os.close(self.descriptor)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_running_sweep_in_a_real_terminal(sweep_file, results, order, start_driver, wait_until):
    first, second, third = load_sweep(sweep_file).runs
    order({first: "fail", second: "gate", third: "gate"})
    driver = start_driver(2)
    wait_until(lambda: all((RunFolder(results, run_id).path / "here").exists() for run_id in (second, third)))
    command = [sys.executable, "-m", "harness", "status", str(sweep_file), "--results", str(results)]
    terminal = Terminal(command, 80, 24)
    try:
        terminal.read_until(b"small: 3 runs, 2 running, 1 failed")
        terminal.read_until(second.removesuffix("-v1").encode())
        assert b"no reward for example" in terminal.output
        assert terminal.output.count(b"\x1b[?1049h") == 1
        terminal.resize(200, 50)
        terminal.read_until(b"where")
        (results / "go").touch()
        assert driver.wait(60) == 0
        terminal.read_until(b"2 completed, 1 failed")
        terminal.press(b"q")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    assert terminal.output.count(b"\x1b[?1049l") == 1 and b"Traceback" not in terminal.output


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param(lambda terminal: terminal.press(b"\x03"), 0, id="ctrl-c"),
        pytest.param(lambda terminal: os.kill(terminal.pid, signal.SIGTERM), 143, id="sigterm"),
    ],
)
def test_a_signal_leaves_the_terminal_as_it_was(sweep_file, results, end, code):
    terminal = Terminal([sys.executable, "-m", "harness", "status", str(sweep_file), "--results", str(results)], 40, 12)
    try:
        terminal.read_until(b"q leaves")
        end(terminal)
        assert terminal.wait() == code
    finally:
        terminal.close()
    assert b"Traceback" not in terminal.output and b"\x1b[?1049l" in terminal.output
