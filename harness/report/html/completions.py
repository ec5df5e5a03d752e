"""What the policies wrote: answers on test examples, on validation examples during training, and what RL learnt from.

Each kind and task is one collection, a column per quantity, packed for the page. Texts stand once however many runs
wrote them. A run folder that was restored from an export has verdicts without texts, and so has its collection.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from harness.record.atomic import read_jsonl
from harness.record.folder import RunFolder
from harness.report.figures.data import SweepData
from harness.report.html.pack import Numbering, pack
from harness.report.html.pictures import Pictures

Kind = Literal["test", "validation", "rollouts"]

TITLES: Mapping[Kind, str] = {
    "test": "Answers after training",
    "validation": "Answers during training",
    "rollouts": "Samples that RL learnt from",
}

ABOUT: Mapping[Kind, str] = {
    "test": "Greedy answers to the examples behind the tables.",
    "validation": "Greedy answers to the same validation examples at several steps of training.",
    "rollouts": "Sampled on training examples, with the rewards and advantages that the update used. Right and wrong "
    "are the accuracy reward.",
}

PROMPTS_PER_STEP = 8
"""Prompts shown of each recorded step of sampled completions."""

PICTURES_PER_PAGE = 50
"""Pictures that a page's script unpacks together."""

_NONE = -1


@dataclass
class _Columns:
    """A collection while it is read."""

    examples: Numbering = field(default_factory=Numbering)
    asked: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    texts: Numbering = field(default_factory=Numbering)
    rows: list[tuple[int | float | None, ...]] = field(default_factory=list)

    def add(self, run: int, step: int, example_id: str, row: Mapping[str, Any]) -> None:
        """One completion."""
        self.asked.setdefault(example_id, (row.get("question"), row.get("solution")))
        accuracy = row.get("accuracy_reward", row.get("accuracy"))
        right = row.get("correct", accuracy == 1)
        self.rows.append(
            (
                run,
                step,
                self.examples.of(example_id),
                self.texts.of(row.get("completion")),
                self.texts.of(row.get("extracted")),
                int(bool(right)),
                int(bool(row.get("format"))),
                _number(row.get("reward")),
                _number(accuracy),
                _number(row.get("advantage")),
            )
        )


COLUMNS = ("run", "step", "example", "text", "extracted", "right", "format", "reward", "accuracy", "advantage")
"""Of a packed collection: `run` is an index, `step` the steps done (-1 after training), `text` and `extracted` stand
for `texts` (-1 for none); `reward`, `accuracy` and `advantage` are null where not on record."""


@dataclass(frozen=True)
class Collection:
    """Completions of one kind on one task.

    Attributes:
        kind: Which completions.
        task: The task of their examples.
        num_rows: Completions.
        num_examples: Distinct examples.
        num_texts: Completions that have a text on record.
        note: What is left out; empty where nothing is.
        packed: `examples` (id, question, solution, picture or why there is none), `texts`, and the columns.
        pictures: Pages of pictures, each a packed list of WebP in base64.
    """

    kind: Kind
    task: str
    num_rows: int
    num_examples: int
    num_texts: int
    note: str
    packed: str
    pictures: tuple[str, ...]

    @property
    def key(self) -> str:
        """Names it in the page."""
        return f"{self.kind}:{self.task}"


def read_collections(
    results: str | Path, data: SweepData, pictures: Pictures, *, num_examples: int
) -> list[Collection]:
    """The completions of a sweep's runs.

    Args:
        results: The results folder.
        data: The sweep's.
        pictures: Shared by all collections.
        num_examples: The first examples of a target that are shown.

    Raises:
        DataError: A file of rows that is none.
    """
    found: dict[tuple[Kind, str], _Columns] = {}
    cut: set[tuple[Kind, str]] = set()
    for run, run_id in enumerate(data.run_ids):
        folder = RunFolder(results, run_id)
        for kind, task, step, example_id, row, is_shown in _rows(folder, data, num_examples):
            if is_shown:
                found.setdefault((kind, task), _Columns()).add(run, step, example_id, row)
            else:
                cut.add((kind, task))
    order: Sequence[Kind] = tuple(TITLES)
    keys = sorted(found, key=lambda key: order.index(key[0]))
    return [_collection(*key, found[key], pictures, _note(key[0], num_examples) if key in cut else "") for key in keys]


def _note(kind: Kind, num_examples: int) -> str:
    if kind == "rollouts":
        return f"The first {PROMPTS_PER_STEP} prompts of each recorded step are shown."
    return f"The first {num_examples} examples are shown."


def _rows(
    folder: RunFolder, data: SweepData, num_examples: int
) -> Iterator[tuple[Kind, str, int, str, Mapping[str, Any], bool]]:
    """Kind, task, steps done, example, row, and whether it is among those shown."""
    evaluation = data.asked.evaluation
    split = evaluation.table_split
    targets = [target for run_id, target in data.measured if run_id == folder.run_id]
    for target in targets:
        if data.measured[folder.run_id, target] is not None:
            for row in read_jsonl(folder.evaluation(target, split))[: evaluation.num(split)]:
                example_id = row.get("id", f"{target}/{split}/{row['index']}")
                yield "test", target, _NONE, example_id, row, row["index"] < num_examples
    for row in read_jsonl(folder.validations) if folder.validations.is_file() else ():
        if row["target"] in targets:
            yield "validation", row["target"], row["step"] + 1, row["id"], row, row["index"] < num_examples
    seen: dict[int, set[str]] = {}
    for row in read_jsonl(folder.completions) if folder.completions.is_file() else ():
        of_step = seen.setdefault(row["step"], set())
        if len(of_step) < PROMPTS_PER_STEP:
            of_step.add(row["id"])
        task = str(row["id"]).rsplit("/", 2)[0]
        yield "rollouts", task, row["step"], row["id"], row, row["id"] in of_step


def _number(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)


def _collection(kind: Kind, task: str, columns: _Columns, pictures: Pictures, note: str) -> Collection:
    examples: list[dict[str, Any]] = []
    pages: list[list[str]] = [[]]
    for example_id in columns.examples.texts:
        question, solution = columns.asked[example_id]
        example, picture, reason = pictures.find(example_id, question)
        if example is not None:
            question, solution = question or example.question, solution or example.answer
        about: dict[str, Any] = {"id": example_id, "question": question, "solution": solution}
        if picture is None:
            about["reason"] = reason
        else:
            if len(pages[-1]) == PICTURES_PER_PAGE:
                pages.append([])
            about["picture"] = [len(pages) - 1, len(pages[-1])]
            pages[-1].append(picture)
        examples.append(about)
    table = list(zip(*columns.rows, strict=True))
    content = {"examples": examples, "texts": columns.texts.texts, **dict(zip(COLUMNS, table, strict=True))}
    return Collection(
        kind=kind,
        task=task,
        num_rows=len(columns.rows),
        num_examples=len(examples),
        num_texts=sum(text != _NONE for text in table[COLUMNS.index("text")]),
        note=note,
        packed=pack(content),
        pictures=tuple(pack(page) for page in pages if page),
    )
