"""A page as PDF, printed by a browser that is on this machine: the only program that sets such pages as they look."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.errors import UserError

BROWSER_VARIABLE = "HARNESS_BROWSER"

BROWSERS = (
    *("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge", "msedge"),
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
"""Looked for in this order; Chromium and those made from it."""

TIMEOUT_S = 120.0

QUIET = (
    *("--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-extensions"),
)
"""A browser without a window, which asks nothing of anybody."""


def find_browser() -> str:
    """The browser that `HARNESS_BROWSER` names, else the first that is found.

    Raises:
        UserError: There is none.
    """
    named = os.environ.get(BROWSER_VARIABLE)
    for name in (named,) if named else BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    missing = f"{BROWSER_VARIABLE} names no program: {named}" if named else "none of Chromium, Chrome and Edge is found"
    raise UserError(f"--pdf takes a browser, and {missing}; install one, or name its program in {BROWSER_VARIABLE}")


def browser_options(profile: Path) -> list[str]:
    """The options that a browser is started with.

    Args:
        profile: An empty folder for what it writes.
    """
    # Chromium's sandbox refuses to run as root.
    as_root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [*QUIET, *as_root, f"--user-data-dir={profile}"]


def print_pdf(browser: str, page: str, out: Path) -> None:
    """Writes a page as PDF.

    Args:
        browser: Its program.
        page: The text of a static page.
        out: The file to write.

    Raises:
        UserError: It could not print the page.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, printed = Path(folder) / "page.html", Path(folder) / "page.pdf"
        source.write_text(page)
        command = [browser, *browser_options(Path(folder) / "profile"), "--no-pdf-header-footer"]
        try:
            done = subprocess.run(
                [*command, f"--print-to-pdf={printed}", source.as_uri()],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
            )
            said = done.stderr
        except subprocess.TimeoutExpired:
            said = f"it took more than {TIMEOUT_S:g} s"
        if not printed.is_file():
            last = (said.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"--pdf: {browser} did not print the page: {last}")
        shutil.move(printed, out)
