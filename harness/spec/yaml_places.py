"""YAML that remembers where everything stands, so that a mistake can be told with its line.

Words mean what YAML 1.2's core schema says: `true` and `false` are the only booleans (not `on`, `yes` or `no`), `1e-4`
is a number, `010` is ten. Repeated keys, keys that are not words, tags but those of YAML's own types, and values that
contain themselves are errors. So is what would take long to read or much memory, however short it is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from harness.errors import SpecError, shortened

Keys = tuple[str | int, ...]

MAX_BYTES = 500_000
"""Of a file; it takes seconds to read."""
MAX_VALUES = 100_000
"""Of a file, with all that its aliases stand for: nine lines of aliases can stand for a billion."""
MAX_DEPTH = 32
"""Lists and mappings around a value."""

_TAGS: Mapping[type[yaml.Node], set[str]] = {
    kind: {f"tag:yaml.org,2002:{name}" for name in names.split()}
    for kind, names in (
        (yaml.ScalarNode, "str int float bool null"),
        (yaml.SequenceNode, "seq"),
        (yaml.MappingNode, "map"),
    )
}
"""YAML's own types, by kind of node."""


class _Loader(yaml.SafeLoader):
    """A SafeLoader with resolvers and constructors of its own, which makes nothing but plain values."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own shape
    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node and what is in it.

        Raises:
            yaml.MarkedYAMLError: It lies too deep, or has a tag that is not one of YAML's own types.
        """
        mark = self.peek_event().start_mark
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(None, None, f"more than {MAX_DEPTH} levels of lists and mappings", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if node is not None and node.tag not in _TAGS[type(node)]:
            tag = shortened(node.tag.replace("tag:yaml.org,2002:", "!!"))
            raise yaml.MarkedYAMLError(None, None, f"the tag {tag} is not one of the types that a setting has", mark)
        return node


def _resolve(kind: str, pattern: str, first: Iterable[str]) -> None:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"^(?:{pattern})$"), list(first))


_DIGITS = r"\d[\d_]*"
_MAX_DIGITS = 300
"""Of a number; longer ones are beyond every float."""
_resolve("bool", "true|True|TRUE|false|False|FALSE", "tTfF")
_resolve("int", rf"[-+]?{_DIGITS}", "-+0123456789")
_resolve(
    "float",
    rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.[\d_]*)?)(?:[eE][-+]?\d+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    "-+.0123456789",
)
_resolve("null", "~|null|Null|NULL|", ["~", "n", "N", ""])


def _number(loader: _Loader, node: yaml.ScalarNode) -> float | int:
    text = loader.construct_scalar(node).replace("_", "")
    kind = int if node.tag.endswith("int") else float
    if len(text) > _MAX_DIGITS:
        raise ValueError(text)
    return kind(re.sub(r"\.(?=(?:inf|nan)$)", "", text.lower()))


_Loader.add_constructor("tag:yaml.org,2002:int", _number)
_Loader.add_constructor("tag:yaml.org,2002:float", _number)


@dataclass(frozen=True)
class Document:
    """A YAML file's value with the line of every part.

    Attributes:
        file: Where it was read, as given; None for a text of the command line.
        value: Plain Python: mappings, lists and scalars.
        lines: Line from 1 by path, such as ``("axes", "seed", 0)``; a mapping's entry stands where its key stands.
    """

    file: Path | None
    value: Any
    lines: Mapping[Keys, int]

    def line(self, *path: str | int) -> int | None:
        """The line of a part, or of the nearest part around it that has one."""
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None


def read_yaml(file: Path) -> Document:
    """Reads one YAML file.

    Raises:
        SpecError: There is no such file, it is not UTF-8 or not YAML, a key is repeated, or it is too large.
    """
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"there is no such file{_sibling(file)}", file=file) from None
    except OSError as error:
        raise SpecError(f"cannot be read: {error.strerror}", file=file) from None
    except ValueError:  # a NUL in the name
        raise SpecError("no file can have this name", file=file) from None
    if len(content) > MAX_BYTES:
        raise SpecError(f"more than {MAX_BYTES:,} bytes, which is too long for a file of settings", file=file)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(f"not UTF-8 text: byte {error.start} cannot be read", file=file, line=line) from None
    return parse_yaml(text, file)


def parse_yaml(text: str, file: Path | None = None) -> Document:
    """Reads YAML from a text.

    Raises:
        SpecError: It is not YAML, a key is repeated, or it stands for too much.
    """
    lines: dict[Keys, int] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = None if node is None else _walk(loader, node, (), lines, file, frozenset())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = shortened(" ".join(part for part in (error.context, error.problem) if part), 200)
        raise SpecError(f"not YAML: {said}", file=file, line=None if mark is None else mark.line + 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise SpecError(f"not YAML: the character U+{error.character:04X}", file=file, line=line) from None
    return Document(file, value, lines)


def _walk(
    loader: _Loader, node: yaml.Node, path: Keys, lines: dict[Keys, int], file: Path | None, around: frozenset[int]
) -> Any:
    line = node.start_mark.line + 1
    if id(node) in around:
        raise SpecError("a value contains itself", file=file, line=line)
    if len(path) > MAX_DEPTH:
        raise SpecError(f"more than {MAX_DEPTH} levels of lists and mappings", file=file, line=line)
    if len(lines) >= MAX_VALUES:
        raise SpecError(f"more than {MAX_VALUES:,} values, with all that aliases stand for", file=file, line=line)
    lines.setdefault(path, line)
    around = around | {id(node)}
    if isinstance(node, yaml.SequenceNode):
        return [_walk(loader, item, (*path, n), lines, file, around) for n, item in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode):
        try:
            return loader.construct_object(node)
        except (ValueError, KeyError):
            kind = node.tag.rpartition(":")[2]
            raise SpecError(f"'{shortened(node.value)}' cannot be read as {kind}", file=file, line=line) from None
    mapping: dict[str, Any] = {}
    for key, line, item in _entries(node, file):
        if key in mapping:
            first = lines[(*path, key)]
            raise SpecError(f"'{shortened(key)}' is repeated; it stands in line {first} too", file=file, line=line)
        lines[(*path, key)] = line
        mapping[key] = _walk(loader, item, (*path, key), lines, file, around)
    return mapping


def _entries(node: yaml.MappingNode, file: Path | None) -> Iterator[tuple[str, int, yaml.Node]]:
    for key, item in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise SpecError("a key must be a word, not a list or a mapping", file=file, line=line)
        yield key.value, line, item


def _sibling(file: Path) -> str:
    """A hint at a sweep of nearly that name, beside the file or in `sweeps`."""
    try:
        there = {other.stem: other for folder in (Path("sweeps"), file.parent) for other in folder.glob("*.yaml")}
    except OSError:
        return ""
    close = difflib.get_close_matches(file.stem, there, n=1, cutoff=0.6)
    return f": did you mean '{there[close[0]]}'?" if close else ""
