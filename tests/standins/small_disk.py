"""A real disk that is full after a few kilobytes: a tmpfs, where this system lets a test mount one."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(at: Path, num_bytes: int) -> Iterator[Path]:
    """Mounts an empty disk for the time of the block; skips the test where that is not allowed.

    Args:
        at: Where; made.
        num_bytes: Its size; a multiple of 4096.
    """
    at.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(at)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here: that takes root on Linux")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def fill(disk: Path, leave: int = 0) -> Path:
    """Fills a disk but for so many bytes, by a file that is returned: without it there is room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while stream.write(bytes(4096)):
            pass
    size = ballast.stat().st_size
    with ballast.open("r+b") as stream:
        stream.truncate(max(0, size - leave))
    return ballast
