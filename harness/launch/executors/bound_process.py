"""Becomes another program, which the kernel ends when the process that started it does.

A program that was started by `subprocess` outlives its parent. What Linux does about it has to be asked for by the
child itself, and doing that between fork and exec is not safe where the parent has threads. On other systems nothing is
asked for. Started as a file, and so without anything of the package.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, command: list[str]) -> None:
    """Does not return.

    Args:
        parent: The process id of the caller's parent. The kernel means the very thread that started the child.
        command: The program with its arguments.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before it could be bound to
        sys.exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's own processes do not listen to Ctrl-C, which is inherited
    os.execv(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
