"""Is this data fit to train and test on? Looks at every row and picture, and says all that is wrong at once."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.errors import DataError, SpecError, nearest
from harness.spec.data import PARTS
from harness.spec.names import PROTOCOLS
from harness.tasks.base import Split, load_task
from harness.tasks.data.rows import Row, Table
from harness.tasks.data.task import DataTask
from harness.tasks.protocols import load_protocol

_WHOLE = re.compile(r"[+-]?\d+")
_NUMBER = re.compile(r"[+-]?(\d+\.\d*|\.\d+)")


@dataclass
class Found:
    """What a data set holds.

    Attributes:
        name: The task's name in records and reports.
        path: As given.
        protocol: The rule that the answers were checked against.
        is_stated: Whether a task file or an option names it.
        num_rows: Rows per table: split with files of its own -> rows.
        splits: Split -> examples, after what is held out.
        problems: Place of the row -> what is wrong with it.
        sizes: Width and height of the pictures that could be read, with how many have them.
        answers: Kind of answer -> how many: `whole number`, `number`, `text`.
        num_reasoning: Rows with a chain of thought.
        unfit: Protocol -> answers that it cannot compare with.
        num_repeated: Rows of other splits with the same picture and question as a training row.
    """

    name: str
    path: str
    protocol: str
    is_stated: bool
    num_rows: dict[str, int] = field(default_factory=dict)
    splits: dict[str, int] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    num_reasoning: int = 0
    unfit: Counter[str] = field(default_factory=Counter)
    num_repeated: int = 0

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs; a size is `"480x320"`."""
        return {
            **{key: value for key, value in self.__dict__.items() if key not in ("sizes", "problems", "unfit")},
            "sizes": {f"{width}x{height}": count for (width, height), count in self.sizes.most_common()},
            "fitting_protocols": self.fitting(),
            "problems": [{"row": place, "problem": problem} for place, problem in self.problems.items()],
        }

    def fitting(self) -> list[str]:
        """The protocols that can compare with every answer that could be read."""
        return [name for name in PROTOCOLS if not self.unfit[name] and self.answers]

    def lines(self, num_problems: int) -> list[str]:
        """The same for people, with so many problems at most."""
        total = sum(self.num_rows.values())
        sizes = [f"{w}x{h} ({n})" for (w, h), n in self.sizes.most_common(4)]
        more = f" and {len(self.sizes) - 4} other sizes" if len(self.sizes) > 4 else ""
        answers = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in self.answers.most_common())
        given = "as stated" if self.is_stated else "the default, as none is stated"
        lines = [
            f"{self.name}: {total} rows in {self.path}",
            f"splits     {', '.join(f'{split} {num}' for split, num in self.splits.items())}{self._held_out()}",
            f"pictures   {self.sizes.total()} read: {', '.join(sizes) or 'none'}{more}",
            f"answers    {answers or 'none could be read'}",
            f"thinking   in {self.num_reasoning} rows; SFT's target 'reasoning' needs it in every training row",
            f"protocol   {self.protocol}, {given}; the answers fit {' and '.join(self.fitting()) or 'none'}",
        ]
        if self.num_repeated:
            lines.append(
                f"repeated   {self.num_repeated} held-out rows have the picture and question of a training row"
            )
        shown = list(self.problems.items())[:num_problems]
        width = max((len(place) for place, _ in shown), default=0)
        lines.append(f"problems   {len(self.problems) or 'none'}")
        lines += [f"  {place:<{width}}  {problem}" for place, problem in shown]
        if len(self.problems) > len(shown):
            lines.append(f"  and {len(self.problems) - len(shown)} more: --json has them all")
        return lines

    def _held_out(self) -> str:
        held = [split for split in ("validation", "test") if split not in self.num_rows and self.splits[split]]
        return f" ({' and '.join(held)} held out of train)" if held and "train" in self.num_rows else ""


def check(path: str, protocol: str | None = None) -> Found:
    """Looks at all of a data set.

    Args:
        path: A file or folder, a task file, or the name of a task with stored rows.
        protocol: The rule for the answers; by default the data set's own.

    Raises:
        SpecError: There is no such task or protocol.
        DataError: There are no rows at all, or they are no table.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise SpecError(f"unknown protocol '{protocol}': {nearest(protocol, PROTOCOLS)}")
    task = _stored(path, load_task(path))
    found = Found(task.name, path, protocol or task.protocol, task.data.is_stated or protocol is not None)
    training: set[bytes] = set()
    for split in PARTS:
        table, indices = task.rows(split)
        found.splits[split] = len(indices)
        if split in task.data.parts:
            found.num_rows[split] = len(table)
        for index in indices:
            seen = _look(found, table, index)
            if split == "train" and seen is not None:
                training.add(seen)
            elif seen in training:
                found.num_repeated += 1
    if not sum(found.num_rows.values()):
        raise DataError(f"{path}: there are no rows")
    return found


def check_rows(name: str, split: Split, num: int, data: Mapping[str, str]) -> None:
    """Looks at a split's rows but not into their pictures; does nothing for a task that is drawn.

    Args:
        name: Of the task.
        split: Of it.
        num: Examples asked for. To train on there must be so many; a smaller test split is answered whole.
        data: Name -> path, as a sweep has it.

    Raises:
        SpecError: There are fewer training rows.
        DataError: The split is empty, or a row is wrong or lacks its picture; the message names it.
    """
    task = load_task(name, data)
    if not isinstance(task, DataTask):
        return
    table, indices = task.rows(split)
    where = data.get(name, name)
    if not indices:
        raise DataError(f"{where}: there are no {split} rows")
    if split != "train":
        indices = indices[:num]
    elif num > len(indices):
        raise SpecError(f"num_train is {num}, but {where} has {len(indices)} training rows")
    gold = load_protocol(task.protocol).gold
    for row in _rows(table, indices):
        if (missing := row.picture.missing()) is not None:
            raise DataError(f"{missing}; `harness data check {where}` lists all problems")
        try:
            gold(row.answer)
        except DataError as error:
            raise DataError(f"{row.place}: {error}") from None


def _rows(table: Table, indices: list[int] | range) -> Iterator[Row]:
    return (table.row(index) for index in indices)


def _stored(path: str, task: object) -> DataTask:
    if not isinstance(task, DataTask):
        raise DataError(f"{path} is drawn, not stored: there is nothing to check")
    return task


def _look(found: Found, table: Table, index: int) -> bytes | None:
    """Takes one row into account; returns what tells its picture and question from others, where they can be read."""
    try:
        row = table.row(index)
        _take_answer(found, row)
        image = row.picture.open()
    except DataError as error:
        place = table.place(index)
        found.problems[place] = str(error).removeprefix(f"{place}: ")
        return None
    found.sizes[image.size] += 1
    return hashlib.sha256(row.picture.stored() + row.question.encode()).digest()


def _take_answer(found: Found, row: Row) -> None:
    number = "number" if _NUMBER.fullmatch(row.answer) else "text"
    found.answers["whole number" if _WHOLE.fullmatch(row.answer) else number] += 1
    found.num_reasoning += bool(row.reasoning)
    for name in PROTOCOLS:
        try:
            load_protocol(name).gold(row.answer)
        except DataError:
            found.unfit[name] += 1
            if name == found.protocol:
                raise
