"""A writer that is stopped in the middle of its work, and another that takes the folder over: `taken_over.py DIR N`.

Says at how many of the N moments each kind of work was interrupted; ends with a sentence where the first did harm.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness.errors import FencedError
from harness.record.files import Files
from harness.record.lease import claim, read_owner, reserve

NUM_WORK = 5
ROW = {"text": "x" * 20_000}


def replace_folder(files: Files, path: Path, number: int) -> None:
    with files.replacing(path) as unfinished:
        unfinished.mkdir()
        for name in "ab":
            (unfinished / name).write_text(str(number) * 20_000)


def write(folder: Path, files: Files, doing: mmap.mmap) -> None:
    """The first writer: writes as fast as it can, and says how many pieces of work it has begun."""
    number = 0
    work: tuple[Callable[[], None], ...] = (
        lambda: files.append_jsonl(folder / "rows.jsonl", {"number": number, **ROW}),
        lambda: files.write_json(folder / "value.json", {"number": number, **ROW}),
        lambda: files.write_jsonl(folder / "eval" / "whole.jsonl", [{"number": number, **ROW}] * 2),
        lambda: replace_folder(files, folder / "weights", number),
        lambda: files.take_away(folder / "weights"),
    )
    for number in range(40):  # noqa: B007 - what each piece of work looks at
        for each in work:
            doing[0] += 1
            each()
    raise TimeoutError("nobody took over")


def first(folder: Path, doing: mmap.mmap) -> None:
    code = 1
    try:
        write(folder, claim(folder, 1).files, doing)
    except FencedError:
        code = 75
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def second(folder: Path, is_fenced: Callable[[], None]) -> Files:
    """Takes over, and leaves something that the first cannot have written."""
    reserved = reserve(folder, read_owner(folder), pulse=folder / "pulse")
    assert reserved is not None
    files = claim(folder, reserved.token).files
    is_fenced()
    files.append_jsonl(folder / "rows.jsonl", {"number": -1})
    files.write_json(folder / "value.json", {"number": -1})
    files.write_jsonl(folder / "eval" / "whole.jsonl", [{"number": -1}])
    if (folder / "weights").exists():
        files.take_away(folder / "weights")
    replace_folder(files, folder / "weights", -1)
    return files


def content(folder: Path) -> dict[str, str]:
    """Every file but those of the leases."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "lease" not in path.parts]
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def fault(folder: Path, written: dict[str, str]) -> str | None:
    """What is in the folder that the second has not written."""
    if content(folder) != written:
        return "the first has written after the second"
    numbers = [json.loads(line)["number"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    found = {
        "rows": numbers == [*range(len(numbers) - 1), -1],
        "value": json.loads((folder / "value.json").read_text()) == {"number": -1},
        "whole": (folder / "eval" / "whole.jsonl").read_text() == '{"number": -1}\n',
        "weights": all((folder / "weights" / name).read_text() == "-1" * 20_000 for name in "ab"),
    }
    return next((f"{name} is not the second's" for name, is_right in found.items() if not is_right), None)


def main(parent: Path, num_moments: int) -> None:
    chance = random.Random(0)
    interrupted = [0] * NUM_WORK
    for number in range(num_moments):
        folder = parent / str(number)
        folder.mkdir()
        (folder / "pulse").touch()
        assert reserve(folder, None, pulse=folder / "pulse") is not None
        doing = mmap.mmap(-1, 1)
        child = os.fork()
        if child == 0:
            first(folder, doing)
        moment = chance.randrange(1, 3 * NUM_WORK)
        while doing[0] < moment:
            time.sleep(0.0001)
        time.sleep(chance.uniform(0, 0.002))
        os.kill(child, signal.SIGSTOP)
        os.waitpid(child, os.WUNTRACED)
        interrupted[(doing[0] - 1) % NUM_WORK] += 1
        # Half of them wake up while the second is at work, the others when it has written everything.
        wake = partial(os.kill, child, signal.SIGCONT)
        files = second(folder, wake if number % 2 else lambda: None)
        written = content(folder)
        wake()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        found = fault(folder, written) if code == 75 else f"the first ended with {code}"
        files.close()
        if found:
            sys.exit(f"moment {number}, in work {(doing[0] - 1) % NUM_WORK}: {found}")
        shutil.rmtree(folder)
    print(json.dumps(interrupted))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
