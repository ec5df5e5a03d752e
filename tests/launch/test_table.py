"""Tables of text: nothing cut off or folded, colours only where somebody looks at a terminal that wants them."""

from __future__ import annotations

import io
import os
import pty
import time

import pytest

from harness.launch.table import counted, print_line, print_table

COLUMNS = ("run", "note", "status")
ROWS = [("a" * 60, "", "completed"), ("b\x1b[2J\n", "", "odd")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def table(out: io.StringIO) -> str:
    print_table(out, COLUMNS, ROWS)
    print_line(out, "x\ty", "bold red")
    print_line(out, "plain")
    return out.getvalue()


@pytest.fixture
def coloured(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return monkeypatch


def test_a_file_has_lines_as_long_as_they_are(coloured):
    escaped = r"b\x1b[2J\n"
    assert table(io.StringIO()) == (f"{'run':60}  status\n{'a' * 60}  completed\n{escaped:60}  odd\nx\\ty\nplain\n")


def test_a_terminal_has_the_same_lines_in_colours(coloured):
    escaped = r"b\x1b[2J\n"
    assert table(Terminal()) == (
        f"\x1b[1m{'run':60}\x1b[0m  \x1b[1mstatus   \x1b[0m\n"
        f"{'a' * 60}  \x1b[32mcompleted\x1b[0m\n"
        f"{escaped:60}  odd\n"
        "\x1b[1;31mx\\ty\x1b[0m\nplain\n"
    )


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_whose_user_wants_no_colours_has_none(coloured, name, value):
    coloured.setenv(name, value)
    assert table(Terminal()) == table(io.StringIO())


def test_no_rows_leave_the_head():
    out = io.StringIO()
    print_table(out, COLUMNS, [])
    assert out.getvalue() == "run  note  status\n"


def test_ten_thousand_rows_on_a_real_terminal_take_no_time():
    """They are written within what a person does not notice; a library's layout of them took half a minute."""
    parent, child = pty.openpty()
    reader = os.fork()
    if reader == 0:
        os.close(child)
        while True:
            try:
                os.read(parent, 1 << 16)
            except OSError:
                os._exit(0)
    os.close(parent)
    with open(child, "w") as out:
        started = time.process_time()
        print_table(out, COLUMNS, [(f"run-{number}", "note", "pending") for number in range(10_000)])
        assert time.process_time() - started < 1
    os.waitpid(reader, 0)


def test_counted():
    assert counted(["failed", "completed", "failed"]) == "1 completed, 2 failed"
