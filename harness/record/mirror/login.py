"""Whether W&B may be reached, found out without asking W&B and without importing it where it need not be."""

from __future__ import annotations

import contextlib
import netrc
import os
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

Mode = Literal["online", "offline", "disabled"]


def wandb_mode() -> Mode:
    """How W&B works here: as WANDB_MODE or its settings files say, and offline where nobody is logged in."""
    given = os.environ.get("WANDB_MODE")
    if given is None:
        if not is_logged_in():
            return "offline"
        import wandb

        given = wandb.setup(wandb.Settings(silent=True)).settings.mode
    modes = {"online": "online", "shared": "online", "disabled": "disabled", "dryrun": "offline"}
    return cast(Mode, modes.get(given, "offline"))


def is_logged_in() -> bool:
    """Whether W&B would find credentials, by environment or netrc file, without asking for them."""
    if os.environ.get("WANDB_MODE", "online") not in ("online", "shared"):
        return False
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    server = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(server).netloc] if server else ["api.wandb.ai", "api.forge.coreweave.com"]
    given = os.environ.get("NETRC")
    files = [Path(given)] if given else [Path("~/.netrc"), Path("~/_netrc")]
    for file in files:
        with contextlib.suppress(OSError, netrc.NetrcParseError, RuntimeError):
            credentials = netrc.netrc(file.expanduser())
            if any(credentials.authenticators(host) for host in hosts):
                return True
    return False
