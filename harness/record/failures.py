"""Why a run failed, in a few classes: what is done about a failure depends on its class alone.

A class is read off the error itself, by its type and its words, never off a scheduler's verdict.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Literal

from harness.errors import FencedError, NonFiniteError, OutOfMemoryError, ProcessLostError, UserError

Failure = Literal["out_of_memory", "worker_lost", "disk_full", "not_writable", "non_finite", "bad_input", "bug"]

FAILED, STOPPED, DISK_FULL, FENCED = 1, 143, 74, 75
"""Exit codes of a worker that did not complete its run: the reason is in `state.json`, it was asked to stop, there was
no room to write, or the run was given to another worker."""

FULL = (errno.ENOSPC, errno.EDQUOT)
_FULL_WORDS = ("no space left on device", "disk quota exceeded", "(os error 28)")
_MEMORY_WORDS = (
    "can't allocate memory",  # torch's allocator on a CPU
    "not enough memory",  # the same on other systems
    "cuda out of memory",
    "cannot allocate memory",  # ENOMEM in the words of the C library
    "out of memory: cannot",
    "cublas_status_alloc_failed",
    "cuda error: out of memory",
    "std::bad_alloc",
)


def failure_of(error: BaseException) -> Failure:
    """The class of an error, by the first in its chain of causes that has one.

    Args:
        error: As it was caught.

    Returns:
        ``"bug"`` for what no other class knows.
    """
    for one in _chain(error):
        found = _class_of(one)
        if found is not None:
            return found
    return "bug"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _class_of(error: BaseException) -> Failure | None:
    words = str(error).lower()
    if isinstance(error, (OutOfMemoryError, MemoryError)) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    if isinstance(error, NonFiniteError):
        return "non_finite"
    if isinstance(error, (FencedError, ProcessLostError)):
        return "worker_lost"
    if isinstance(error, UserError):
        return "bad_input"
    if isinstance(error, OSError) and error.errno is not None:
        if error.errno in FULL:
            return "disk_full"
        if error.errno == errno.ENOMEM:
            return "out_of_memory"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            return "not_writable"
    # Libraries in other languages raise errors of their own, with the system's words in them.
    if any(text in words for text in _FULL_WORDS):
        return "disk_full"
    if isinstance(error, RuntimeError) and any(text in words for text in _MEMORY_WORDS):
        return "out_of_memory"
    return None


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room on the disk."""
    return failure_of(error) == "disk_full"
