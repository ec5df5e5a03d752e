"""What of a run is where in W&B: `wandb.json` in the run folder.

W&B takes no step of a run twice and gives a deleted id to nobody for days, so a run's id there carries a generation:
``<hash>-g<n>`` with the ten hex digits of the run id. It is the number of the attempt that started from step 0, or the
next free one where that was deleted on the server.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from harness.errors import DataError
from harness.record.atomic import file_digest, read_json, write_json
from harness.record.folder import RunFolder
from harness.record.mirror.login import Mode

OFFLINE: Final = "offline"
PROJECT = "harness"


@dataclass(frozen=True)
class Publication:
    """A run's copy in one project, or in offline files.

    Attributes:
        id: The run's in W&B.
        generation: The number in that id.
        attempt_generation: That of the run folder at the time; a training that began anew gets another id.
        entity: Of W&B; None offline.
        project: Of W&B.
        url: Of the run's page; None offline.
        files: W&B's own files, relative to the run folder.
        evaluations: The evaluations that are there: target -> SHA-256 of its file.
        content: SHA-256 of everything that was copied; None while the copy is not whole.
    """

    id: str
    generation: int
    attempt_generation: int
    entity: str | None
    project: str
    url: str | None = None
    files: str | None = None
    evaluations: Mapping[str, str] = field(default_factory=dict)
    content: str | None = None


@dataclass(frozen=True)
class Destination:
    """Where runs are published; to be found before a run is opened, which changes W&B's idea of the entity.

    Attributes:
        mode: As :func:`harness.record.mirror.login.wandb_mode` found it.
        server: Its address.
        entity: As asked for or set; None for the user's own.
        project: Of W&B.
    """

    mode: Mode
    server: str
    entity: str | None
    project: str

    @property
    def name(self) -> str:
        """The key of this place in `wandb.json`."""
        server = re.sub(r"//.*@", "//", self.server.rstrip("/"))  # an address may hold a password
        return OFFLINE if self.mode == OFFLINE else f"{server}/{self.entity or '-'}/{self.project}"


def find_destination(mode: Mode, project: str | None = None, entity: str | None = None) -> Destination:
    """Where runs go that name nothing else: as environment and settings files of W&B say.

    Args:
        mode: How W&B works here.
        project: In place of W&B's own setting, which is `harness` where nothing is set.
        entity: In place of W&B's own setting.
    """
    import wandb

    known = wandb.setup(wandb.Settings(silent=True)).settings
    return Destination(mode, known.base_url, entity or known.entity, project or known.project or PROJECT)


def publications(folder: RunFolder) -> dict[str, Publication]:
    """A run's copies by destination; none where `wandb.json` is missing or holds something else."""
    try:
        return {place: Publication(**record) for place, record in read_json(folder.wandb_json).items()}
    except (FileNotFoundError, DataError, TypeError, AttributeError):
        return {}


def record_publication(folder: RunFolder, place: str, publication: Publication) -> None:
    """Writes down where a run is."""
    known = publications(folder) | {place: publication}
    write_json(folder.wandb_json, {name: asdict(one) for name, one in sorted(known.items())})


def attempt_generation(run: Mapping[str, Any]) -> int:
    """The number of the attempt that trained from step 0, from the content of `run.json`."""
    attempts = run.get("attempts") or [{}]
    return int(attempts[-1].get("generation", 1))


def next_generation(known: Publication | None, attempt: int) -> int:
    """The generation to publish a run as: the known copy's while the same training goes on."""
    if known is None:
        return attempt
    return known.generation if known.attempt_generation == attempt else max(known.generation + 1, attempt)


def wandb_id(run_id: str, generation: int) -> str:
    """The id of a run in W&B."""
    return f"{run_id.rsplit('-', 2)[-2]}-g{generation}"


def content_digest(folder: RunFolder) -> str:
    """SHA-256 of all that a copy is made from."""
    digest = hashlib.sha256()
    for path in (folder.metrics, folder.completions, *folder.evaluations().values(), folder.summary):
        digest.update(f"{path.name}:{file_digest(path) if path.exists() else None};".encode())
    return digest.hexdigest()
