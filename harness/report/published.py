"""What others published: read from `results/published/`, and found for a run of ours that it may stand beside.

A published accuracy is shown for a run with the same model, method, source and target that agrees with every setting
that the publication states. What the publication leaves open is open here too.
"""

from __future__ import annotations

import csv
import json
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePath
from typing import Any

from harness.errors import DataError

WORKS: Mapping[str, tuple[str, str]] = {
    "othink_mr1": ("paper", "OThink-MR1, arXiv 2503.16081v2"),
    "r1v": ("R1-V", "R1-V at bbbbe3d"),
}
"""Files by their stem: the head of the column in tables, and the citation. The order is that of the columns."""

COLUMNS = (
    *("id", "quantity", "model", "method", "baseline", "source", "target", "settings", "num_examples", "value"),
    *("unit", "kind", "arithmetic", "place", "note"),
)
KINDS = ("direct", "derived")

DERIVED = "(d)"
"""After a number that was computed from printed ones."""

SAME_TEST: Mapping[str, str] = {"clevr_r1": "clevr"}
"""Targets with the test set of another one; the paper does not tell which of the two it trained on."""


@dataclass(frozen=True)
class PublishedNumber:
    """One row of a file.

    Attributes:
        work: The file's stem.
        id: A name within the file.
        quantity: `accuracy`, `relative_gain`, or another name.
        model: A hub name; None where it is of no model, as all that follow.
        method: A method's type.
        baseline: Of a relative gain, the method that it is over.
        source: The task trained on.
        target: The task evaluated on.
        settings: What is stated of the run, by the full name of a setting.
        num_examples: Of the test set.
        value: In `unit`.
        digits: The value as printed.
        unit: ``"%"``, ``"examples"``, ``"rows"``, ``"min"``, or empty.
        is_direct: Whether it is printed there; else it was computed from what is.
        arithmetic: How it follows from other ids of the file; empty where it does not.
        place: Table, figure or section.
        note: What to know of it.
    """

    work: str
    id: str
    quantity: str
    model: str | None
    method: str | None
    baseline: str | None
    source: str | None
    target: str | None
    settings: Mapping[str, Any]
    num_examples: int | None
    value: float
    digits: str
    unit: str
    is_direct: bool
    arithmetic: str
    place: str
    note: str

    @property
    def head(self) -> str:
        """Of its column in tables."""
        return WORKS[self.work][0]

    @property
    def citation(self) -> str:
        """Whose it is."""
        return WORKS[self.work][1]

    @property
    def kind(self) -> str:
        """`direct` or `derived`."""
        return KINDS[0] if self.is_direct else KINDS[1]

    @property
    def shown(self) -> str:
        """In its own digits, with a mark where it is derived: ``"69.50 (d)"``."""
        return self.digits if self.is_direct else f"{self.digits} {DERIVED}"

    def is_of(self, spec: Mapping[str, Any], target: str) -> bool:
        """Whether it is the accuracy of such a run.

        Args:
            spec: A run's spec as JSON has it.
            target: The task evaluated on.
        """
        if self.quantity != "accuracy" or self.model is None or not _same_model(str(spec["model"]), self.model):
            return False
        places = (_same_test(spec["source"]), _same_test(target))
        if (spec["method"]["type"], *places) != (self.method, self.source, self.target):
            return False
        return all(_setting(spec, key) == value for key, value in self.settings.items())

    def as_json(self) -> dict[str, Any]:
        """What a table's record says of it; `accuracy` as a fraction."""
        return {
            "work": self.work,
            "accuracy": self.value / 100,
            "kind": self.kind,
            "place": self.place,
            "num_examples": self.num_examples,
        }


def published_folder() -> Path | None:
    """Where the files lie: beside the package in a clone, in the environment's data after an install from a wheel.

    Returns:
        None where an installation is without them.
    """
    clone = Path(__file__).parents[2] / "results" / "published"
    installed = Path(sysconfig.get_path("data")) / "share" / "grpo-d-harness" / "published"
    return next((folder for folder in (clone, installed) if (folder / "othink_mr1.csv").is_file()), None)


@cache
def read_published(folder: Path | None = None) -> tuple[PublishedNumber, ...] | None:
    """Every published number, in the order of :data:`WORKS` and of the files.

    Args:
        folder: Where to look; by default :func:`published_folder`.

    Returns:
        None where the installation has none.

    Raises:
        DataError: A file is missing, or a row of it cannot be read; names the line.
    """
    folder = folder or published_folder()
    if folder is None:
        return None
    return tuple(number for work in WORKS for number in _read(folder / f"{work}.csv", work))


def published_beside(
    numbers: Iterable[PublishedNumber], spec: Mapping[str, Any], target: str
) -> tuple[PublishedNumber, ...]:
    """The accuracies that may stand beside a run of ours, at most one of each work.

    Args:
        numbers: From :func:`read_published`.
        spec: The run's spec as JSON has it.
        target: The task evaluated on.
    """
    found: dict[str, PublishedNumber] = {}
    for number in numbers:
        if number.is_of(spec, target):
            found.setdefault(number.work, number)
    return tuple(found.values())


def published_note(numbers: Iterable[PublishedNumber], marks: Mapping[str, str] | None = None) -> str:
    """What a reader must know of the published numbers in a table or figure; empty where there is none.

    Args:
        numbers: Those that are shown.
        marks: In a figure, by the head of a work, what its mark is called.
    """
    numbers = tuple(numbers)
    shown = {number.work: number for number in numbers}
    if not shown:
        return ""
    heads = {work: head + (f" ({marks[head]})" if marks else "") for work, (head, _) in WORKS.items()}
    sources = "; ".join(f"{heads[work]}: {shown[work].citation}" for work in WORKS if work in shown)
    derived = "" if all(number.is_direct for number in numbers) else f" {DERIVED} computed from printed numbers."
    return (
        f"{sources}. Accuracy in % as published, without interval or number of seeds, for this model, method, source "
        f"and target and the settings that are stated there.{derived}"
    )


def _read(file: Path, work: str) -> Iterable[PublishedNumber]:
    try:
        stream = file.open(newline="", encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{file} is missing: the published numbers are not whole") from None
    with stream:
        reader = csv.DictReader(stream, strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise DataError(f"{file}:1: the columns must be {', '.join(COLUMNS)}")
        seen: set[str] = set()
        for row in reader:
            place = f"{file}:{reader.line_num}"
            if None in row or None in row.values():
                raise DataError(f"{place}: the row has not {len(COLUMNS)} fields")
            if row["id"] in seen or not row["id"].isidentifier():
                raise DataError(f"{place}: the id '{row['id']}' is taken, or no word of letters, digits and '_'")
            seen.add(row["id"])
            yield _number(row, work, place)


def _number(row: Mapping[str, str], work: str, place: str) -> PublishedNumber:
    if row["kind"] not in KINDS:
        raise DataError(f"{place}: kind is {' or '.join(KINDS)}, not '{row['kind']}'")
    try:
        value, num_examples = float(row["value"]), int(row["num_examples"]) if row["num_examples"] else None
        settings = {key: json.loads(text) for key, text in _pairs(row["settings"])}
    except ValueError as error:
        raise DataError(f"{place}: value, num_examples or settings cannot be read: {error}") from None
    return PublishedNumber(
        work=work,
        id=row["id"],
        quantity=row["quantity"],
        model=row["model"] or None,
        method=row["method"] or None,
        baseline=row["baseline"] or None,
        source=row["source"] or None,
        target=row["target"] or None,
        settings=settings,
        num_examples=num_examples,
        value=value,
        digits=row["value"],
        unit=row["unit"],
        is_direct=row["kind"] == KINDS[0],
        arithmetic=row["arithmetic"],
        place=row["place"],
        note=row["note"],
    )


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    """`key=value` pairs with blanks between; a value is a number, else a word."""
    for pair in text.split():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"'{pair}' is not key=value")
        yield key, value if _is_number(value) else json.dumps(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _same_model(model: str, published: str) -> bool:
    """A hub name, or a local folder of that name."""
    return model == published or PurePath(model).name == PurePath(published).name


def _same_test(task: str | None) -> str | None:
    return None if task is None else SAME_TEST.get(task, task)


def _setting(spec: Mapping[str, Any], key: str) -> Any:
    """A setting by its full name; None where the run lacks it."""
    value: Any = spec
    for word in key.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value
