"""The real worker, with a fault at a moment that `faults.json` in the results folder chooses.

`faults.json` maps run ids to a list: what befalls each attempt in turn; null, or nothing, leaves an attempt alone. A
fault is ``{"do": ..., "event": n}``, ``{"do": ..., "path": name}`` or ``{"do": ..., "step": n}``: before the n-th time
that the worker touches a file of its run (creates, renames, removes; counted from 1), before it first opens or renames
to a file of that name, or in a training step. What it can do: kill (SIGKILL to itself), stop (SIGSTOP), fill (the disk,
to its last byte, with `ballast` in the results folder), nan, oom (a pass runs out of memory), oom_whole (what cannot be
split does).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from harness.record.folder import RunFolder
from harness.record.launches import read_launches
from harness.spec import Job


def fault_of(job: Job) -> dict[str, Any] | None:
    folder = RunFolder(job.results, job.spec.run_id)
    try:
        planned = json.loads((Path(job.results) / "faults.json").read_text())
    except FileNotFoundError:
        return None
    faults = planned.get(folder.run_id, planned.get("*", []))
    attempt = len(read_launches(folder)) - 1
    return faults[attempt] if 0 <= attempt < len(faults) else None


def fill_disk(results: Path) -> None:
    """Takes every free byte, so that the very next write fails; the kernel says so, nobody else."""
    block = bytes(1 << 16)
    with (results / "ballast").open("ab", buffering=0) as stream:
        while block:
            try:
                if stream.write(block) == len(block):
                    continue
            except OSError as error:
                assert error.errno == errno.ENOSPC
            block = block[: len(block) // 2]


def act(what: str, results: Path) -> None:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        assert what == "fill"
        fill_disk(results)


class Watcher:
    """An audit hook, which the interpreter calls before it touches a file."""

    def __init__(self, folder: RunFolder, fault: dict[str, Any]) -> None:
        self.root = str(folder.path) + os.sep
        self.results = folder.results
        self.fault = fault
        self.events: list[str] = []
        self.is_over = False

    def __call__(self, name: str, arguments: tuple[Any, ...]) -> None:
        if self.is_over:
            return
        if name == "open":
            path, _, flags = arguments
            if not isinstance(path, str) or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
            paths = [path]
        elif name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir"):
            paths = [str(argument) for argument in arguments[:2] if isinstance(argument, (str, Path))]
        else:
            return
        inside = [path for path in map(os.path.abspath, paths) if path.startswith(self.root)]
        if inside and not inside[0].endswith("log.txt"):
            self.note(name, inside)

    def note(self, name: str, paths: list[str]) -> None:
        self.events.append(f"{name} {' '.join(path.removeprefix(self.root) for path in paths)}")
        if "count" in self.fault:
            with contextlib.suppress(OSError):
                number = os.open(self.results / "events.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(number, f"{self.events[-1]}\n".encode())
                os.close(number)
        wanted = self.fault.get("path")
        if len(self.events) == self.fault.get("event") or (wanted and any(wanted in path for path in paths)):
            self.is_over = True
            act(self.fault["do"], self.results)


def spoil_steps(fault: dict[str, Any]) -> None:
    """Makes a step's loss wrong, or its pass run out of memory, as torch would."""
    from harness.errors import OutOfMemoryError
    from harness.train.loop import Loop

    gradients = Loop._gradients
    spoilt: list[int] = []

    def spoil(self: Loop, batch: Any, update: int) -> dict[str, float]:
        sums = gradients(self, batch, update)
        if self.step != fault["step"] or spoilt:
            return sums
        if fault["do"] == "nan":
            return sums | {"loss": float("nan")}
        spoilt.append(self.step)
        if fault["do"] == "oom":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        raise OutOfMemoryError("update", 100, "CUDA out of memory. Tried to allocate 2.00 GiB.")

    Loop._gradients = spoil  # type: ignore[method-assign]


def main(job_json: Path) -> int:
    job = Job.model_validate_json(job_json.read_text())
    fault = fault_of(job)
    if fault is not None:
        sys.addaudithook(Watcher(RunFolder(job.results, job.spec.run_id), fault))
        if "step" in fault:
            spoil_steps(fault)
    import harness.worker

    return harness.worker.main(job_json)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
