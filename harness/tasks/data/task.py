"""Stored rows as a task: which row is which example of which split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from harness.errors import DataError
from harness.spec.data import DataSet, Part, held_out, read_data_set
from harness.tasks.base import SPLITS, Example, Split, Task
from harness.tasks.data.rows import Row, Table
from harness.tasks.data.sources import open_rows


class DataTask(Task):
    """A task whose examples are rows, read when they are asked for.

    Splits with files of their own are these files' rows; the others are held out of the training files
    (:func:`harness.spec.data.held_out`). There is no `pretrain` split. A table is opened when its split is first used.

    Args:
        data: The files and the protocol.
        name: What records and reports call it.
    """

    def __init__(self, data: DataSet, name: str) -> None:
        self.data = data
        self._name = name
        self._tables: dict[Part, Table] = {}
        self._indices: dict[Split, list[int] | range] = {}

    @property
    def name(self) -> str:
        """What records and reports call it."""
        return self._name

    @property
    def protocol(self) -> str:
        """The evaluation rule."""
        return self.data.protocol

    @property
    def num_examples(self) -> Mapping[Split, int]:
        """Rows of each split."""
        return _Sizes(self)

    def rows(self, split: Split) -> tuple[Table, list[int] | range]:
        """The table that a split's rows stand in, and their indices there.

        Raises:
            DataError: The table cannot be opened.
        """
        owner: Part = "train" if split == "pretrain" or split not in self.data.parts else split
        if split == "pretrain" or owner not in self.data.parts:
            return _NO_ROWS, range(0)
        if owner not in self._tables:
            self._tables[owner] = open_rows(self.data.parts[owner])
        table = self._tables[owner]
        if split not in self._indices:
            everything = range(len(table))
            own = split != "train" and split in self.data.parts
            parts = self.data.parts
            self._indices[split] = everything if own else [row for row in everything if held_out(parts, split, row)]
        return table, self._indices[split]

    def row(self, split: Split, index: int) -> Row:
        """A row of a split.

        Raises:
            DataError: The index lies outside the split, or the row is wrong.
        """
        self._check(split, index)
        table, indices = self.rows(split)
        return table.row(indices[index])

    def example(self, split: Split, index: int) -> Example:
        """The example at an index of a split, its picture decoded.

        Raises:
            DataError: The index lies outside the split, or the row or its picture is wrong.
        """
        row = self.row(split, index)
        return Example(
            image=row.picture.open(),
            question=row.question,
            answer=row.answer,
            reasoning=row.reasoning,
            metadata={"place": row.place},
            id=f"{self.name}/{split}/{index}",
        )


class _Sizes(Mapping[Split, int]):
    """Sizes of splits, each counted when it is asked for, so that evaluating opens no training files."""

    def __init__(self, task: DataTask) -> None:
        self._task = task

    def __getitem__(self, split: Split) -> int:
        return len(self._task.rows(split)[1])

    def __iter__(self) -> Iterator[Split]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)


class _NoRows:
    def __len__(self) -> int:
        return 0

    def place(self, index: int) -> str:
        raise IndexError(index)

    def row(self, index: int) -> Row:
        raise IndexError(index)


_NO_ROWS = _NoRows()


def open_data(path: str | Path, expected: str | None = None) -> DataTask:
    """The task at a path.

    Args:
        path: Of a file or folder.
        expected: The name that a run was planned with.

    Raises:
        SpecError: A task file is wrong.
        DataError: There are no rows, or other ones than were planned with.
    """
    data = read_data_set(path)
    name = data.name
    if expected is not None and name != expected:
        raise DataError(f"{path}: the data has changed since the run was planned: it was {expected} and is {name}")
    return _opened(str(path), name)


@lru_cache(maxsize=16)
def _opened(path: str, name: str) -> DataTask:
    """Opened once: a run looks at each target many times."""
    return DataTask(read_data_set(path), name)
