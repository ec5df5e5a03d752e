"""Where rows come from: files, a copy on this machine of a data set of the hub, or the hub itself.

A data set of the hub is looked for in this order:

1. `$HARNESS_DATA/<name>`, `<name>` without its owner: what
   `hf download --repo-type dataset OWNER/NAME --local-dir $HARNESS_DATA/NAME` makes, or a folder of one's own with
   `<split>.jsonl` or parquet files;
2. the hub's cache on this machine, where `hf download --repo-type dataset OWNER/NAME` puts it;
3. `datasets.load_dataset`, which downloads unless `HF_HUB_OFFLINE=1`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.spec.data import Rows, rows_in
from harness.tasks.data.rows import ArrowTable, JsonlTable, Table


def open_rows(rows: Rows) -> Table:
    """The rows of a split.

    Raises:
        DataError: They are not there or cannot be read as a table.
    """
    if rows.hub is None:
        return _open_files(rows.files)
    local = local_copy(rows.hub, rows.hub_split)
    if local is not None:
        return _open_files(local.files)
    return _open_hub(rows.hub, rows.hub_split)


def local_copy(name: str, split: str) -> Rows | None:
    """A data set of the hub that lies on this machine.

    Args:
        name: `owner/name`; the owner is not looked at in `$HARNESS_DATA`.
        split: Its split.

    Raises:
        DataError: There is a copy, but not with this split or not whole.
    """
    folder = own_folder(name)
    if folder is not None and folder.is_dir():
        return rows_in(folder, split)
    snapshot = _snapshot(name)
    if snapshot is None or not any(snapshot.rglob("*.parquet")):
        # The hub's client keeps a snapshot of a lone README too.
        return None
    return rows_in(snapshot, split)


def own_folder(name: str) -> Path | None:
    """`$HARNESS_DATA/<name>` without the owner; None where the variable is not set."""
    root = os.environ.get("HARNESS_DATA")
    return Path(root).expanduser() / name.rpartition("/")[2] if root else None


def how_to_get(name: str) -> str:
    """What a user can do about a data set that is not here."""
    here = f"$HARNESS_DATA/{name.rpartition('/')[2]}"
    return f"get it with `hf download --repo-type dataset {name}`, or put a copy in {here}"


def _snapshot(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        return None
    except HFValidationError as error:
        raise DataError(f"{name}: {error}") from None


def _open_files(files: tuple[Path, ...]) -> Table:
    if files[0].suffix == ".jsonl":
        return JsonlTable(files[0])
    label = str(files[0]) if len(files) == 1 else str(files[0].parent)
    return ArrowTable(
        _load(label, "parquet", data_files=[str(file) for file in files], split="train"), label, files[0].parent
    )


def _open_hub(name: str, split: str) -> Table:
    import huggingface_hub.constants

    is_offline = huggingface_hub.constants.is_offline_mode()
    try:
        return ArrowTable(_load(name, name, split=split), name, Path())
    except DataError as error:
        if is_offline:
            raise DataError(f"{name} is not on this machine and HF_HUB_OFFLINE is set: {how_to_get(name)}") from None
        raise DataError(f"{error}; {how_to_get(name)}") from None


def _load(label: str, path: str, **options: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(path, **options)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
        raise DataError(f"{label}: cannot be loaded: {reason}") from None
