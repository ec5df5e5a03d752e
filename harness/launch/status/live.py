"""The full screen of `harness status`: runs that run first, then those that failed, and how many of the rest there are.

It reads the run folders about once a second and writes nothing but the index. Whatever a folder holds, half-written or
damaged, the screen goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.live import Live
from rich.text import Text

from harness.errors import UserError
from harness.launch.status.looks import Detail, Look, look_around
from harness.launch.status.status import StatusRow
from harness.launch.table import counted
from harness.launch.words import duration
from harness.record.index import RunIndex

if TYPE_CHECKING:
    from harness.spec.sweep import Sweep

LOOK_S = 1.0
"""Between two looks at the run folders; more where a look takes long, so that most of the time is left to the runs."""
SHARE = 4.0
"""How many times as long as a look the pause behind it is at least."""
KEY_S = 0.2
"""Between two looks at the keyboard and the size of the terminal."""

_KEYS = {
    "q": "leave",
    "\x03": "leave",
    "j": "down",
    "\x1b[B": "down",
    "\x1bOB": "down",
    "k": "up",
    "\x1b[A": "up",
    "\x1bOA": "up",
    " ": "page down",
    "\x1b[6~": "page down",
    "\x1b[5~": "page up",
    "g": "top",
    "\x1b[H": "top",
}


@dataclass(frozen=True)
class _Column:
    """A column of live runs; those of a higher rank go first where the terminal is narrow."""

    title: str
    width: int
    rank: int
    text: Callable[[StatusRow, Detail], str]


_COLUMNS = (
    _Column("step", 9, 0, lambda row, detail: _step(row)),
    _Column("reward", 6, 1, lambda row, detail: _figure(detail.reward if detail.reward is not None else detail.loss)),
    _Column("beta", 6, 3, lambda row, detail: _figure(detail.beta)),
    _Column("kl", 7, 4, lambda row, detail: _figure(detail.kl)),
    _Column("s/step", 6, 2, lambda row, detail: _figure(detail.step_s)),
    _Column("left", 8, 1, lambda row, detail: "" if detail.left_s is None else _clock(detail.left_s)),
    _Column("doing", 17, 6, lambda row, detail: row.note or ""),
    _Column("where", 20, 5, lambda row, detail: detail.place or ""),
)
_NAME_WIDTH = 34
_LEAST_NAME_WIDTH = 24


def watch(results: Path, asked: Sweep | str | None, console: Console) -> None:
    """Shows where runs stand until q or Ctrl-C is pressed.

    Args:
        results: The results folder.
        asked: A sweep, or the name of one on record; None for every run.
        console: Of a terminal.

    Raises:
        UserError: No sweep of that name is on record.
    """
    index = RunIndex(results)
    look, trouble = look_around(results, asked, index), ""
    index.keep()
    view, next_look = _View(), time.monotonic() + LOOK_S
    with (
        contextlib.suppress(KeyboardInterrupt),
        _terminable(),
        _keys() as key_within,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while not view.left:
            size = console.size
            live.update(screen(look, view, *size, trouble=trouble), refresh=True)
            while time.monotonic() < next_look and console.size == size:
                if view.press(key_within(KEY_S), size.height):
                    break
            if time.monotonic() >= next_look:
                started = time.monotonic()
                look, trouble = _again(results, asked, index, look)
                ended = time.monotonic()
                next_look = ended + max(LOOK_S, SHARE * (ended - started))
    index.keep()


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Within, SIGTERM ends this process as it always does, but not before the terminal is what it was."""

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _again(results: Path, asked: Sweep | str | None, index: RunIndex, before: Look) -> tuple[Look, str]:
    """A new look; the one before with a sentence where the folders cannot be read just now."""
    try:
        return look_around(results, asked, index), ""
    except (OSError, UserError) as error:
        return before, f"cannot look just now: {error}"


class _View:
    """What part of the list is seen."""

    def __init__(self) -> None:
        self.offset = 0
        self.left = False

    def press(self, key: str, height: int) -> bool:
        """Takes a key; whether it means anything."""
        meaning, page = _KEYS.get(key), max(height - 4, 1)
        moves = {"down": 1, "up": -1, "page down": page, "page up": -page}
        if meaning == "leave":
            self.left = True
        elif meaning == "top":
            self.offset = 0
        elif meaning in moves:
            self.offset = max(self.offset + moves[meaning], 0)
        return meaning is not None


def screen(look: Look, view: _View, width: int, height: int, trouble: str = "") -> Text:
    """What the terminal shows: a line of counts, the list, and how to leave.

    Args:
        look: What was found.
        view: What part of the list is seen; moved back where it is behind the end.
        width: Of the terminal, in cells.
        height: In lines.
        trouble: Why what is shown may be old.
    """
    head = [_head(look, width)]
    lines = _running(look, width) + _failed(look, width) + _interrupted(look, width)
    rest = _rest(look)
    room = max(height - len(head) - 2, 1)
    view.offset = min(view.offset, max(len(lines) - room, 0))
    seen = lines[view.offset : view.offset + room]
    hidden = len(lines) - len(seen)
    foot = trouble or "q leaves" + (f"; {hidden} more lines, j and k scroll" if hidden else "")
    blank = [Text("")] * (height - len(head) - len(seen) - 2)
    shown = [*head, *seen, *blank, _line([(rest, "dim")], width), _line([(foot, "red" if trouble else "dim")], width)]
    return Text("\n").join(shown[-height:] if height < 3 else shown[:height])


def _head(look: Look, width: int) -> Text:
    counts = counted([row.status for row in look.rows])
    lefts = [detail.left_s for detail in look.details.values() if detail.left_s is not None]
    words = f"{look.name or 'all runs'}: {len(look.rows)} runs" + (f", {counts}" if counts else "")
    words += f"; the slowest that runs has {duration(max(lefts))} left" if lefts else ""
    clock = time.strftime("%H:%M:%S")
    if width < 40:
        return _line([(words, "bold")], width)
    return _line([(set_cell_size(words, width - len(clock) - 1), "bold"), (f" {clock}", "dim")], width)


def _running(look: Look, width: int) -> list[Text]:
    rows = [row for row in look.rows if row.status == "running"]
    if not rows:
        return []
    columns, name_width = _fitting(width)
    titles = [set_cell_size("running", name_width), *(column.title.rjust(column.width) for column in columns)]
    lines = [_line([("  ".join(titles), "bold cyan")], width)]
    for row in rows:
        detail = look.details.get(row.run_id, Detail())
        cells = [_cut(column.text(row, detail), column.width).rjust(column.width) for column in columns]
        lines.append(_line([("  ".join([_name(row.run_id, name_width), *cells]), "")], width))
        if detail.last_error:
            lines.append(_line([(f"  before: {detail.last_error}", "yellow")], width))
    return lines


def _fitting(width: int) -> tuple[list[_Column], int]:
    """The columns that fit, in their order, and how wide the run's name is."""
    kept = sorted(_COLUMNS, key=lambda column: column.rank)
    while kept and sum(column.width + 2 for column in kept) + _LEAST_NAME_WIDTH > width:
        kept.pop()
    left = width - sum(column.width + 2 for column in kept)
    return [column for column in _COLUMNS if column in kept], max(min(left, _NAME_WIDTH), 1)


def _failed(look: Look, width: int) -> list[Text]:
    """A line per run that failed, or two where its reason finds no room beside its name."""
    lines = []
    for row in look.rows:
        if row.status == "failed":
            failure = look.details.get(row.run_id, Detail()).failure
            reason = f"{failure}: {row.error}" if failure else row.error or "unknown"
            name = [("failed  ", "bold red"), (row.run_id, "")]
            if cell_len(row.run_id) + cell_len(reason) + 10 <= width:
                lines.append(_line([*name, (f"  {reason}", "red")], width))
            else:
                lines += [_line(name, width), _line([(f"        {reason}", "red")], width)]
    return lines


def _interrupted(look: Look, width: int) -> list[Text]:
    lines = []
    for row in look.rows:
        if row.status == "pending" and row.note:
            error = look.details.get(row.run_id, Detail()).last_error
            words = f"{row.note}{f' ({error})' if error else ''}, {row.step}/{row.num_steps}"
            lines.append(_line([("waits   ", "yellow"), (f"{row.run_id}  {words}", "")], width))
    return lines


def _rest(look: Look) -> str:
    """What is not in the list."""
    rest = [row.status for row in look.rows if row.status != "running" and row.status != "failed" and not row.note]
    return counted(rest) or "nothing else"


def _line(parts: Sequence[tuple[str, str]], width: int) -> Text:
    """Words with their styles on one line that is not wider than the terminal."""
    text = Text(no_wrap=True, end="")
    for words, style in parts:
        printable = "".join(letter if letter.isprintable() else " " for letter in words)
        text.append(printable, style or None)
    text.truncate(max(width, 1), overflow="ellipsis")
    return text


def _name(run_id: str, width: int) -> str:
    """A run's name; what makes room is the version, then the end of the hash."""
    name = run_id if cell_len(run_id) <= width else run_id.rpartition("-v")[0] or run_id
    return set_cell_size(_cut(name, width), width)


def _cut(words: str, width: int) -> str:
    return words if cell_len(words) <= width else set_cell_size(words, max(width - 1, 0)) + "…"


def _step(row: StatusRow) -> str:
    """How far the training is; else the phase."""
    is_training = row.note in ("train", None) and row.num_steps
    return f"{row.step}/{row.num_steps}" if is_training else (row.note or "").partition(" ")[0]


def _clock(seconds: float) -> str:
    """Such as ``"0:12"``, ``"12:05"``, ``"2:10:00"`` or ``"3 d 4 h"``."""
    whole = round(seconds)
    if whole >= 100 * 3600:
        return duration(seconds)
    minutes = f"{whole % 3600 // 60:02d}:{whole % 60:02d}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"
    return f"{whole // 3600}:{minutes}" if whole >= 3600 else minutes


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if abs(value) >= 1e-4 or not value else f"{value:.1e}"


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Single keys from the terminal, without waiting for a line; none where the standard input is no terminal."""
    try:
        import termios
        import tty
    except ImportError:
        yield _no_key
        return
    try:
        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (OSError, ValueError, termios.error):
        yield _no_key
        return
    try:
        tty.setcbreak(descriptor)

        def key_within(seconds: float) -> str:
            if not select.select([descriptor], [], [], seconds)[0]:
                return ""
            pressed = os.read(descriptor, 32)
            return pressed.decode(errors="replace") or "q"  # of a terminal that is gone

        yield key_within
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""
