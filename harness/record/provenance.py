"""What a number was made with: the commit of this code, versions and machine. Imports none of what it names."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
DISTRIBUTIONS = ("grpo-d-harness", "torch", "transformers", "accelerate", "numpy", "pillow", "math-verify", "wandb")
GIT_TIMEOUT_S = 5.0


def provenance() -> dict[str, Any]:
    """Where this process's results come from, as JSON values.

    Returns:
        commit (None where unknown), dirty (None where unknown), versions (distribution -> version or None), platform,
        cpu, num_cpus and host.
    """
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in DISTRIBUTIONS},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "num_cpus": os.cpu_count(),
        "host": socket.gethostname(),
    }


def _commit() -> tuple[str | None, bool | None]:
    # An installed package can lie inside somebody else's repository; only a tracked one has that repository's commit.
    if _git("ls-files", "--error-unmatch", "--", "__init__.py") is None:
        return _installed_commit(), None
    commit = _git("rev-parse", "HEAD")
    status = _git("status", "--porcelain", "--", ".")
    return commit, None if status is None else status != ""


def _git(*arguments: str) -> str | None:
    """The output of a git command in the package's folder; None where it fails or git is not there."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=PACKAGE,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
            env=os.environ | {"GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _installed_commit() -> str | None:
    """The commit that pip recorded for an installation from a repository (PEP 610)."""
    try:
        text = metadata.distribution(DISTRIBUTIONS[0]).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return commit if isinstance(commit, str) else None


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
