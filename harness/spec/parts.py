"""The parts of a sweep file, each with the place where it stands, and the settings that an entry makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import SpecError, nearest, shortened
from harness.spec.data import task_name
from harness.spec.keys import Value, can_have, check, full_name, legal_types, shown
from harness.spec.methods import METHOD_MODELS
from harness.spec.yaml_places import Document


@dataclass(frozen=True)
class Place:
    """Where something was written: a line of a file, or an option of the command."""

    file: Path | None
    line: int | None
    option: str | None = None

    def error(self, message: str) -> SpecError:
        """The error to raise about what stands here."""
        if self.option is not None:
            return SpecError(f"--set {shortened(self.option)}: {message}")
        return SpecError(message, file=self.file, line=self.line)


@dataclass(frozen=True)
class Setting:
    """One leaf: a full name and its value.

    Attributes:
        key: The full name.
        value: As written; of a source that is a path, the data's name.
        place: Where it stands.
        data: That path.
    """

    key: str
    value: Value
    place: Place
    data: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of a document: its value, and the keys that lead to it."""

    document: Document
    value: Any
    path: tuple[str | int, ...] = ()
    option: str | None = None

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.document.file, self.document.line(*self.path), self.option)

    @property
    def name(self) -> str:
        """The keys that lead to it, with dots."""
        return ".".join(str(key) for key in self.path if not isinstance(key, int)) or "a sweep"

    def items(self, allowed: Sequence[str] = ()) -> Iterator[tuple[str, Part]]:
        """The entries of a mapping; nothing for an empty part."""
        if self.value is None:
            return
        if not isinstance(self.value, dict):
            expected = f" with the keys {', '.join(allowed)}" if allowed else " of settings"
            raise self.place.error(f"{self.name} must be a mapping{expected}, not {shown(self.value)}")
        for key, value in self.value.items():
            part = Part(self.document, value, (*self.path, key), self.option)
            if allowed and key not in allowed:
                raise part.place.error(f"unknown key '{shortened(key)}' in {self.name}: {nearest(key, allowed)}")
            yield key, part

    def elements(self) -> list[Part]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.place.error(f"{self.name} must be a list, not {shown(self.value)}")
        return [Part(self.document, value, (*self.path, n), self.option) for n, value in enumerate(self.value)]


def full_name_at(key: str, place: Place) -> str:
    """A setting's full name; a word that is none is an error at its place."""
    try:
        return full_name(key)
    except ValueError as error:
        raise place.error(str(error)) from None


def settings_of(part: Part, key: str) -> list[Setting]:
    """The leaves that an entry sets: one, or those of a mapping such as ``{type: linear, beta_max: 0.1}``."""
    name = full_name_at(key, part.place)
    if not isinstance(part.value, Mapping):
        try:
            check(name, part.value)
        except ValueError as error:
            raise part.place.error(str(error)) from None
        value = task_name(part.value) if name == "source" else part.value
        return [Setting(name, value, part.place, part.value if value != part.value else None)]
    if name not in legal_types():
        raise part.place.error(f"{name} takes one value, not a mapping")
    if not part.value:
        raise part.place.error(f"{name} has no value")
    settings = [leaf for word, entry in part.items() for leaf in settings_of(entry, f"{name}.{word}")]
    chosen = {leaf.key: (leaf.value,) for leaf in settings if leaf.key == name}
    for leaf in settings if chosen else ():
        methods = chosen["method"] if name == "method" else tuple(METHOD_MODELS)
        if not can_have(leaf.key, methods, chosen, leaf.value):
            word = leaf.key.removeprefix(f"{name}.")
            raise leaf.place.error(f"{name} '{chosen[name][0]}' has no setting '{word}'")
    return settings
