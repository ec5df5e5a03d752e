"""What a path in the place of a task's name stands for: the files of its splits, and a name that follows their content.

`source:` and `targets:` take, beside the names of :data:`harness.spec.names.TASKS`:

- a `.jsonl` file, or a `.parquet` file;
- a folder with `<split>.jsonl`, `<split>.parquet`, `<split>-*.parquet` (there, or in `data/`) or files in `<split>/`,
  for `train`, `validation` and `test`; or with one `.jsonl` file or parquet files of other names;
- a task file in YAML (in a folder: `task.yaml`), for splits that lie in different places:

      name: my_counting                 # optional; letters, digits, '.' and '_'
      protocol: r1v_counting            # optional
      train: {hub: leonardPKU/clevr_cogen_a_train, split: train}
      test: superclevr/test.jsonl       # a file or a folder of parquet shards, relative to this file

Without a protocol it is `r1v_geoqa`, whose rule (math_verify) compares answers of any kind; `r1v_counting` is for whole
numbers in tags. Rows in R1-V's evaluation schema (`image_path`, `question`, `ground_truth`) are a test split unless
their file says otherwise. What has no test or validation split is divided by :func:`held_out`.

The name is `<label>-<6 hex digits>`: the label tells people what it is, the digits follow the content, so that another
path to the same data is the same task and changed data is another one. Nothing here reads a picture.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataError, SpecError, nearest, shortened
from harness.spec.names import PROTOCOLS, TASKS
from harness.spec.yaml_places import Document, read_yaml

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

DEFAULT_PROTOCOL = "r1v_geoqa"
"""Of data that states none."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]*-[0-9a-f]{6}")
_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SUFFIXES = (".jsonl", ".parquet", ".yaml", ".yml")
_KEYS = ("name", "protocol", *PARTS)
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")
_EDGE = 1 << 16
_LONGEST_LABEL = 100
"""A label is a part of file names, which have 255 bytes at most."""
_LONGEST_PATH = 200
"""Characters of a path that a message quotes."""


@dataclass(frozen=True)
class Rows:
    """Where the rows of a split lie.

    Attributes:
        files: One JSONL file, or parquet files in order; empty for rows of the hub.
        hub: The hub's name of the data set.
        hub_split: Its split there.
    """

    files: tuple[Path, ...] = ()
    hub: str | None = None
    hub_split: str = "train"


@dataclass(frozen=True)
class DataSet:
    """A task made of stored rows.

    Attributes:
        label: What people call it.
        protocol: The evaluation rule.
        is_stated: Whether a task file names the protocol; else it is the default.
        parts: Split -> its rows; what is missing is held out of `train`.
    """

    label: str
    protocol: str
    is_stated: bool
    parts: Mapping[Part, Rows]

    @property
    def name(self) -> str:
        """`<label>-<6 hex digits of the content>`."""
        digest = hashlib.sha256(self.protocol.encode())
        for part, rows in sorted(self.parts.items()):
            digest.update(f"|{part}:{rows.hub}:{rows.hub_split}".encode())
            for file in rows.files:
                stat = file.stat()
                digest.update(_content(file, stat.st_size, stat.st_mtime_ns))
        return f"{self.label}-{digest.hexdigest()[:6]}"


def held_out(parts: Mapping[Part, Any], part: Part, row: int) -> bool:
    """Whether a row of the train files belongs to a split; every row belongs to one of the three.

    Without a test split, of every ten rows the first seven are for training, the eighth for validation and the last two
    for testing. With one, every twentieth row is for validation. Splits that have files of their own take nothing.

    Args:
        parts: The splits that have files.
        part: The split asked about.
        row: From 0, in the order of the files.
    """
    owner: Part = "train"
    if "test" not in parts and row % 10 >= 8:
        owner = "test"
    elif "validation" not in parts and (row % 10 == 7 if "test" not in parts else row % 20 == 19):
        owner = "validation"
    return part == owner


def is_data_name(name: str) -> bool:
    """Whether this is a name as :attr:`DataSet.name` makes them."""
    return _NAME.fullmatch(name) is not None


def task_name(reference: str) -> str:
    """The name of a task that is referred to by its name or by the path of its data.

    Raises:
        SpecError: There is no such task, or a task file is wrong.
        DataError: The path does not hold rows.
    """
    if reference in TASKS:
        return reference
    try:
        return read_data_set(reference).name
    except OSError as error:
        raise DataError(f"{shortened(reference, _LONGEST_PATH)}: cannot be read: {error.strerror}") from None


def read_data_set(reference: str | Path) -> DataSet:
    """What lies at a path.

    Raises:
        SpecError: This is neither a task's name nor a path, or a task file is wrong.
        DataError: There is nothing there, or nothing with rows.
    """
    reference = str(reference)
    try:
        path = Path(reference).expanduser()
        is_there = path.exists()
    except (OSError, RuntimeError):  # too long for a name, behind a closed door, or in nobody's home
        is_there = False
    if not is_there:
        if "/" in reference or reference.endswith(_SUFFIXES):
            raise DataError(f"{shortened(reference, _LONGEST_PATH)}: there is no such file or folder")
        raise SpecError(f"unknown task '{shortened(reference)}': {nearest(reference, TASKS)}")
    if path.is_dir() and (path / "task.yaml").is_file():
        path = path / "task.yaml"
    if path.suffix in (".yaml", ".yml"):
        return _task_file(path)
    parts: dict[Part, Rows] = _parts_of(path) if path.is_dir() else {}
    if not parts:
        rows = _rows_at(path)
        parts = {"test" if _has_evaluation_schema(rows.files[0]) else "train": rows}
    within = path.resolve()
    is_plain = not path.is_dir() and path.stem not in ("data", *PARTS)
    return DataSet(
        _label(path.stem if is_plain else within.name if path.is_dir() else within.parent.name),
        DEFAULT_PROTOCOL,
        False,
        parts,
    )


def rows_in(path: Path, split: str) -> Rows:
    """The rows of a file, or those of a folder that belong to a split: all of them where file names tell no splits.

    Raises:
        DataError: There are none.
    """
    if path.is_dir() and (files := _files_of(path, split)):
        return Rows(files)
    if path.is_dir() and _parts_of(path):
        raise DataError(f"{path}: no {split} rows here: a file {split}.jsonl or {split}.parquet is missing")
    return _rows_at(path)


def _label(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.]+", "_", text).strip("_.")[:_LONGEST_LABEL].rstrip("_.") or "data"


def _parts_of(folder: Path) -> dict[Part, Rows]:
    """The splits that a folder's file names tell; empty where they tell none."""
    found = {part: _files_of(folder, part) for part in PARTS}
    return {part: Rows(files) for part, files in found.items() if files}


def _files_of(folder: Path, split: str) -> tuple[Path, ...]:
    """The files whose names say that they hold a split."""
    patterns = ("{}.jsonl", "{}.parquet", "{}-*.parquet", "data/{}-*.parquet", "{}/*.jsonl", "{}/*.parquet")
    found = [files for pattern in patterns if (files := sorted(folder.glob(pattern.format(split))))]
    if len(found) > 1:
        raise DataError(f"{folder}: the {split} rows stand both in {found[0][0].name} and in {found[1][0].name}")
    return _whole(found[0]) if found else ()


def _rows_at(path: Path) -> Rows:
    """The rows of a file, or of a folder that holds one JSONL file or parquet files."""
    if path.is_file():
        if path.suffix not in (".jsonl", ".parquet"):
            raise DataError(f"{path}: data is a .jsonl or .parquet file, a folder of them, or a task file in .yaml")
        return Rows((path,))
    for pattern in ("data.jsonl", "*.jsonl", "*.parquet", "data/*.parquet"):
        if files := sorted(path.glob(pattern)):
            return Rows(_whole(files))
    raise DataError(f"{path}: no rows here: a data folder holds .jsonl or .parquet files, such as train.jsonl")


def _whole(files: list[Path]) -> tuple[Path, ...]:
    """The files, if they are one table: a single JSONL file or all shards of a parquet table."""
    if files[0].suffix == ".jsonl" and len(files) > 1:
        names = ", ".join(file.name for file in files[:3])
        raise DataError(
            f"{files[0].parent}: several JSONL files ({names}): name one of them, or call them train.jsonl "
            "and test.jsonl"
        )
    shard = _SHARD.search(files[0].stem)
    if shard is not None and len(files) != int(shard[1]):
        raise DataError(f"{files[0].parent}: {len(files)} of {int(shard[1])} parquet files are here")
    return tuple(files)


def _has_evaluation_schema(file: Path) -> bool:
    if file.suffix != ".jsonl":
        return False
    with file.open("rb") as stream:
        first = _json(next((line for line in stream if line.strip()), b""))
    return isinstance(first, dict) and "image_path" in first and "ground_truth" in first


def _task_file(path: Path) -> DataSet:
    document = read_yaml(path)
    content = document.value
    if not isinstance(content, dict):
        raise SpecError(f"a task file is a mapping with the keys {', '.join(_KEYS)}", file=path)
    for key in content:
        if key not in _KEYS:
            raise _wrong(document, f"unknown key '{shortened(key)}': {nearest(key, _KEYS)}", key)
    folder = path.resolve().parent
    label = content.get("name", folder.name if path.name == "task.yaml" else path.stem)
    if not isinstance(label, str) or _label(label) != label or label in TASKS:
        is_taken = isinstance(label, str) and label in TASKS
        which = "belongs to a task of the package" if is_taken else "is not up to 100 letters, digits, '.' and '_'"
        raise _wrong(document, f"the name '{shortened(str(label))}' {which}", "name")
    protocol = content.get("protocol", DEFAULT_PROTOCOL)
    if not isinstance(protocol, str) or protocol not in PROTOCOLS:
        hint = nearest(str(protocol), PROTOCOLS)
        raise _wrong(document, f"unknown protocol '{shortened(str(protocol))}': {hint}", "protocol")
    parts = {part: _stated_rows(document, folder, part) for part in PARTS if part in content}
    if not parts:
        raise SpecError("a task file names at least one of train and test", file=path)
    return DataSet(label, protocol, "protocol" in content, parts)


def _stated_rows(document: Document, folder: Path, part: Part) -> Rows:
    value = document.value[part]
    if isinstance(value, dict):
        unknown = [key for key in value if key not in ("hub", "split")]
        if unknown or not _HUB.fullmatch(str(value.get("hub"))):
            raise _wrong(document, f"{part} of the hub is written {{hub: owner/name, split: train}}", part)
        return Rows(hub=value["hub"], hub_split=str(value.get("split", "train")))
    if not isinstance(value, str):
        raise _wrong(document, f"{part} is a path or {{hub: owner/name, split: train}}", part)
    try:
        path = folder / Path(value).expanduser()
        is_there = path.exists()
    except (OSError, RuntimeError):
        is_there = False
    if not is_there:
        raise _wrong(document, f"{part}: there is no file or folder {shortened(value, _LONGEST_PATH)} beside it", part)
    return rows_in(path, part)


def _wrong(document: Document, message: str, key: str) -> SpecError:
    return SpecError(message, file=document.file, line=document.line(key))


@lru_cache(maxsize=256)
def _content(file: Path, size: int, mtime_ns: int) -> bytes:
    """A file's digest: of parquet the size, head and tail (its index), of JSONL all bytes and the sizes of its images.

    The time of change is here for the cache alone.
    """
    if file.suffix == ".parquet":
        with file.open("rb") as stream:
            head = stream.read(_EDGE)
            stream.seek(max(size - _EDGE, 0))
            return hashlib.sha256(f"{size}:".encode() + head + stream.read()).digest()
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        for line in stream:
            digest.update(line)
            row = _json(line)
            image = row.get("image", row.get("image_path")) if isinstance(row, dict) else None
            if isinstance(image, str):
                digest.update(f"{_size(file.parent / image)};".encode())
    return digest.digest()


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return None


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
