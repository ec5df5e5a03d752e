"""Files of a run as a test wants them, written where nobody holds the folder."""

from __future__ import annotations

from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.state import RunState, write_state


def put_state(folder: RunFolder, state: RunState) -> None:
    """Writes a `state.json`, and the folder where it is missing."""
    folder.path.mkdir(parents=True, exist_ok=True)
    write_state(folder, state, Files(folder.path))
