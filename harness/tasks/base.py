"""What a task is: deterministic splits of examples, each an image with a question and a checkable answer.

A drawn task is a pure function of (name, version, split, index). Nothing is stored: the same index gives the same
pixels on every machine, and the splits never share a random stream. Stored rows are tasks too:
:mod:`harness.tasks.data`.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
from PIL import Image

from harness.errors import DataError
from harness.spec.names import TASKS, resolve

Split = Literal["pretrain", "train", "validation", "test"]
"""`pretrain` feeds the embedded policy, `train` the methods, `validation` the tuning, `test` the tables."""

_NO_DATA: Mapping[str, str] = MappingProxyType({})

SPLITS: tuple[Split, ...] = ("pretrain", "train", "validation", "test")


@dataclass(frozen=True)
class Draft:
    """A question as a generator makes it, before it has a place in a split."""

    image: Image.Image
    question: str
    answer: str
    reasoning: str
    metadata: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Example(Draft):
    """One question of a task.

    Attributes:
        image: RGB.
        question: Without the instruction about tags; the prompt adds that.
        answer: The canonical answer, such as ``"6"``.
        reasoning: A gold chain of thought in plain words, without tags.
        metadata: What the generator knows of it: ``kind``, ``phrasing`` and whatever else helps to read results.
        id: ``"<task>/<split>/<index>"``.
    """

    id: str = ""

    @property
    def solution(self) -> str:
        """The answer as R1-V's rows hold it: ``"<answer> 6 </answer>"``."""
        return f"<answer> {self.answer} </answer>"


class Task(ABC):
    """A family of questions with deterministic splits and a published evaluation protocol."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that records and reports use."""

    @property
    @abstractmethod
    def protocol(self) -> str:
        """The evaluation rule, a name of :data:`harness.spec.names.PROTOCOLS`."""

    @property
    @abstractmethod
    def num_examples(self) -> Mapping[Split, int]:
        """How many examples each split holds."""

    @abstractmethod
    def example(self, split: Split, index: int) -> Example:
        """The example at an index of a split; the same on every machine.

        Raises:
            DataError: The index lies outside the split, or the example cannot be read.
        """

    def _check(self, split: Split, index: int) -> None:
        if not 0 <= index < self.num_examples[split]:
            raise DataError(f"{self.name} has {self.num_examples[split]} {split} examples; there is no number {index}")


class DrawnTask(Task):
    """A task whose examples are drawn from a random stream of their own.

    Attributes:
        name: The name a sweep uses.
        version: Part of every random stream; raising it makes other examples. A change that alters examples also
            raises :data:`harness.spec.run.IDENTITY_VERSION`.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    protocol: ClassVar[str]
    num_examples: ClassVar[Mapping[Split, int]] = {
        "pretrain": 1_000_000,
        "train": 20_000,
        "validation": 2_000,
        "test": 2_000,
    }

    @abstractmethod
    def draft(self, rng: np.random.Generator, split: Split) -> Draft:
        """Makes one question from a random stream; the split tells which distribution it is drawn from."""

    def example(self, split: Split, index: int) -> Example:
        """The example at an index of a split; the same on every machine.

        Raises:
            DataError: The index lies outside the split.
        """
        self._check(split, index)
        name = zlib.crc32(self.name.encode())
        rng = np.random.Generator(
            np.random.PCG64(np.random.SeedSequence([name, self.version, SPLITS.index(split), index]))
        )
        draft = self.draft(rng, split)
        return Example(
            image=draft.image,
            question=draft.question,
            answer=draft.answer,
            reasoning=draft.reasoning,
            metadata=draft.metadata,
            id=f"{self.name}/{split}/{index}",
        )


def load_task(name: str, data: Mapping[str, str] = _NO_DATA) -> Task:
    """The task of that name.

    Args:
        name: A name of the registry, the name of a data set in `data`, or a path.
        data: Name -> path, as a job has it.

    Raises:
        SpecError: There is none.
        DataError: The data is not there, or no longer what its name says.
    """
    if name in TASKS:
        task: Task = resolve(TASKS, "task", name)()
        return task
    from harness.tasks.data.task import open_data

    return open_data(data[name], name) if name in data else open_data(name)
