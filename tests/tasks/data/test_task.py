"""Stored rows as tasks: splits, the published names, and where rows come from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.errors import DataError
from harness.spec.data import task_name
from harness.tasks.base import Split, load_task
from harness.tasks.data.task import DataTask, open_data

Write = Callable[..., Path]
STORED: tuple[Split, ...] = ("train", "validation", "test")


def answers(task: DataTask, split: Split) -> list[int]:
    return [int(task.example(split, index).answer) for index in range(task.num_examples[split])]


def test_one_file_is_divided_into_three(tmp_path: Path, write_rows: Write) -> None:
    task = open_data(write_rows(tmp_path / "counts" / "data.jsonl", 48).parent)
    assert {split: task.num_examples[split] for split in STORED} == {"train": 35, "validation": 5, "test": 8}
    assert answers(task, "validation") == [7, 17, 27, 37, 47]
    assert answers(task, "test") == [8, 9, 18, 19, 28, 29, 38, 39]
    assert sorted(answer for split in STORED for answer in answers(task, split)) == list(range(48))
    assert task.num_examples["pretrain"] == 0
    example = task.example("test", 2)
    assert example.id == f"{task.name}/test/2"
    assert (example.question, example.solution) == ("How many? (18)", "<answer> 18 </answer>")
    assert example.image.getpixel((0, 0)) == (18, 0, 0)
    with pytest.raises(DataError, match="has 8 test examples; there is no number 8"):
        task.example("test", 8)


def test_files_of_their_own_are_taken_whole(tmp_path: Path, write_rows: Write) -> None:
    write_rows(tmp_path / "train.jsonl", 40)
    write_rows(tmp_path / "test.jsonl", 3)
    task = open_data(tmp_path)
    assert answers(task, "test") == [0, 1, 2]
    assert answers(task, "validation") == [19, 39]
    assert answers(task, "train") == [row for row in range(40) if row not in (19, 39)]
    write_rows(tmp_path / "validation.jsonl", 5)
    assert {s: open_data(tmp_path).num_examples[s] for s in STORED} == {"train": 40, "validation": 5, "test": 3}


def test_a_broken_row_harms_only_itself(tmp_path: Path, write_rows: Write) -> None:
    task = open_data(write_rows(tmp_path / "data.jsonl", 10, solution={1: ""}))
    assert task.example("train", 0).answer == "0"
    with pytest.raises(DataError, match=r"data\.jsonl:2: the answer in 'solution' is empty"):
        task.example("train", 1)


def test_shards_of_parquet_are_one_table(tmp_path: Path, write_parquet: Write) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 6)
    with pytest.raises(DataError, match="1 of 2 parquet files are here"):
        open_data(tmp_path)
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 6, first=6)
    task = open_data(tmp_path)
    assert answers(task, "train") == [0, 1, 2, 3, 4, 5, 6, 10, 11]
    example = task.example("train", 8)
    assert (example.reasoning, example.image.size) == ("one by one: 11", (5, 3))
    assert example.image.getpixel((0, 0)) == (11, 9, 9)
    assert example.metadata["place"] == f"{tmp_path / 'data'}: row 12"


def test_data_that_changes_under_a_run_is_refused(tmp_path: Path, write_rows: Write) -> None:
    file = write_rows(tmp_path / "counts.jsonl", 10)
    name = task_name(str(file))
    assert load_task(name, {name: str(file)}).name == name
    write_rows(file, 11)
    with pytest.raises(DataError, match=f"the data has changed since the run was planned: it was {name}"):
        load_task(name, {name: str(file)})


@pytest.fixture
def own_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_rows: Write) -> Path:
    """Small stand-ins for the training sets, in `$HARNESS_DATA`."""
    root = tmp_path / "own"
    for name in ("clevr_cogen_a_train", "Clevr_CoGenT_TrainA_R1", "GEOQA_R1V_Train_8K"):
        write_rows(root / name / "train.jsonl", 40, thinking={0: "<think>one</think>"})
    monkeypatch.setenv("HARNESS_DATA", str(root))
    return root


@pytest.mark.parametrize(
    ("name", "protocol", "folder", "num_test"),
    [
        ("clevr", "r1v_counting", "superclevr", 200),
        ("clevr_r1", "r1v_counting", "superclevr", 200),
        ("geoqa", "r1v_geoqa", "geoqa_test", 754),
    ],
)
def test_published_sets_from_own_copies(
    own_copies: Path, write_rows: Write, name: str, protocol: str, folder: str, num_test: int
) -> None:
    task = load_task(name)
    assert isinstance(task, DataTask)
    assert (task.name, task.protocol) == (name, protocol)
    assert answers(task, "validation") == [19, 39]
    assert task.num_examples["train"] == 38
    assert task.example("train", 0).reasoning == "one"
    with pytest.raises(DataError, match=f"there is no test set at .*{folder}.*test.jsonl, beside"):
        task.example("test", 0)
    lines = write_rows(own_copies / folder / "test.jsonl", 2).read_text().splitlines()
    with pytest.raises(DataError, match=f"2 rows, and the published test set of {name} has {num_test}"):
        load_task(name).example("test", 0)
    (own_copies / folder / "test.jsonl").write_text("\n".join([lines[0]] * num_test))
    assert load_task(name).num_examples["test"] == num_test


HUB = """\
import sys
from harness.errors import DataError
from harness.tasks.base import load_task

try:
    task = load_task(sys.argv[1])
    print(task.num_examples["train"], task.example("train", 0).reasoning)
except DataError as error:
    print(error)
"""


def offline(home: Path, path: Path) -> str:
    """What opening a task says where only the hub's cache in `home` is to be had."""
    environment = {key: value for key, value in os.environ.items() if key != "HARNESS_DATA"}
    done = subprocess.run(
        [sys.executable, "-c", HUB, str(path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"},
    )
    return done.stdout.strip()


def test_without_network_the_hub_s_cache_will_do(tmp_path: Path, write_parquet: Write) -> None:
    file = tmp_path / "task.yaml"
    file.write_text("train: {hub: owner/counts, split: train}\n")
    said = offline(tmp_path / "home", file)
    assert said == (
        "owner/counts is not on this machine and HF_HUB_OFFLINE is set: get it with `hf download --repo-type dataset "
        "owner/counts`, or put a copy in $HARNESS_DATA/counts"
    )
    # As `hf download` lays it out: a reference to a commit, and a snapshot of that commit.
    repository = tmp_path / "home" / "hub" / "datasets--owner--counts"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    write_parquet(repository / "snapshots" / ("a" * 40) / "data" / "train-00000-of-00001.parquet", 10)
    assert offline(tmp_path / "home", file) == "7 one by one: 0"
