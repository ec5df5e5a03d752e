"""Paths as tasks: names follow the content, splits are disjoint, and sweeps and runs use the names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, SpecError
from harness.spec import Job, RunSpec
from harness.spec.data import PARTS, Rows, held_out, is_data_name, read_data_set, task_name
from harness.spec.profiles import method_defaults
from harness.spec.sweep import load_sweep

ROW = {"image": "a.png", "problem": "How many?", "solution": "<answer> 3 </answer>"}
TEST_ROW = {"image_path": "a.png", "question": "How many?", "ground_truth": 3}


def jsonl(file: Path, *rows: Mapping[str, Any]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows or (ROW,)))
    return file


def test_names_follow_the_content_and_not_the_path(tmp_path: Path) -> None:
    one = jsonl(tmp_path / "one" / "counts.jsonl")
    other = jsonl(tmp_path / "other" / "counts.jsonl")
    name = task_name(str(one))
    assert name == task_name(str(other)) and name.startswith("counts-") and is_data_name(name)
    jsonl(other, ROW, ROW)
    assert task_name(str(other)) != name
    (tmp_path / "one" / "a.png").write_bytes(b"12345")
    jsonl(one)
    assert task_name(str(one)) != name, "a picture of another size is other data"


def test_of_parquet_size_head_and_tail_count(tmp_path: Path) -> None:
    file = tmp_path / "counts.parquet"
    content = bytearray(1 << 18)
    names = set()
    for place in (None, 0, (1 << 18) - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] = 1
        file.write_bytes(changed)
        names.add(task_name(str(file)))
    file.write_bytes(bytes((1 << 18) + 1))
    assert len(names | {task_name(str(file))}) == 4


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("a b/data.jsonl", "a_b"),
        ("counts/test.jsonl", "counts"),
        ("x/my-counts.v2.jsonl", "my_counts.v2"),
        ("-/data.jsonl", "data"),
    ],
)
def test_labels_are_safe_in_file_names(tmp_path: Path, path: str, label: str) -> None:
    file = jsonl(tmp_path / path)
    assert task_name(str(file)).rpartition("-")[0] == label
    assert is_data_name(task_name(str(file)))


@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("train", "validation"), PARTS])
def test_every_row_belongs_to_one_split(parts: tuple[str, ...]) -> None:
    owners = [[part for part in PARTS if held_out(dict.fromkeys(parts), part, row)] for row in range(100)]  # type: ignore[misc]
    assert all(len(found) == 1 for found in owners)
    counts = [sum(found == [part] for found in owners) for part in PARTS]
    assert (
        counts
        == {
            ("train",): [70, 10, 20],
            ("train", "test"): [95, 5, 0],
            ("train", "validation"): [80, 0, 20],
            PARTS: [100, 0, 0],
        }[parts]
    )


def test_which_files_hold_which_split(tmp_path: Path) -> None:
    assert read_data_set(jsonl(tmp_path / "a.jsonl")).parts.keys() == {"train"}
    assert read_data_set(jsonl(tmp_path / "b.jsonl", TEST_ROW)).parts.keys() == {"test"}, "R1-V's test schema"
    folder = tmp_path / "folder"
    jsonl(folder / "anything.jsonl")
    assert read_data_set(folder).parts == {"train": Rows((folder / "anything.jsonl",))}
    jsonl(folder / "test.jsonl")
    jsonl(folder / "train.jsonl", TEST_ROW)
    assert {part: rows.files[0].name for part, rows in read_data_set(folder).parts.items()} == {
        "train": "train.jsonl",
        "test": "test.jsonl",
    }
    (folder / "train.parquet").touch()
    with pytest.raises(DataError, match=r"the train rows stand both in train\.jsonl and in train\.parquet"):
        read_data_set(folder)
    several = jsonl(tmp_path / "several" / "a.jsonl").parent
    jsonl(several / "b.jsonl")
    with pytest.raises(DataError, match=r"several JSONL files \(a\.jsonl, b\.jsonl\): name one of them"):
        read_data_set(several)


def task_file(file: Path, text: str) -> Path:
    file.write_text(text)
    return file


def test_a_task_file_names_splits_that_lie_apart(tmp_path: Path) -> None:
    jsonl(tmp_path / "there" / "test.jsonl", TEST_ROW)
    jsonl(tmp_path / "there" / "train.jsonl")
    file = task_file(
        tmp_path / "mine.yaml",
        "name: my_counts\nprotocol: r1v_counting\n"
        "train: {hub: owner/name}\nvalidation: there/train.jsonl\ntest: there\n",
    )
    data = read_data_set(file)
    assert (data.label, data.protocol, data.is_stated) == ("my_counts", "r1v_counting", True)
    assert data.parts["train"] == Rows(hub="owner/name", hub_split="train")
    assert [data.parts[part].files[0].name for part in ("validation", "test")] == ["train.jsonl", "test.jsonl"]
    assert read_data_set(file.rename(tmp_path / "task.yaml").parent).name == data.name, "a folder's task.yaml"
    file.write_text((tmp_path / "task.yaml").read_text().replace("r1v_counting", "r1v_geoqa"))
    assert read_data_set(file).name != data.name, "other verdicts, another task"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: t.jsonl\ntest: none.jsonl\n", r"mine\.yaml:2: test: there is no file or folder .*none\.jsonl"),
        ("name: counting\ntrain: t.jsonl\n", r"mine\.yaml:1: the name 'counting' belongs to a task of the package"),
        ("name: a/b\ntrain: t.jsonl\n", r"mine\.yaml:1: the name 'a/b' is not up to 100 letters"),
        ("protocol: r1v_count\ntrain: t.jsonl\n", r"mine\.yaml:1: unknown protocol 'r1v_count': did you mean"),
        ("trian: t.jsonl\n", r"mine\.yaml:1: unknown key 'trian': did you mean 'train'\?"),
        ("train: {hub: name}\n", r"mine\.yaml:1: train of the hub is written \{hub: owner/name, split: train\}"),
        ("train: 3\n", r"mine\.yaml:1: train is a path or"),
        ("name: mine\n", r"mine\.yaml: a task file names at least one of train and test"),
        ("- a\n", r"mine\.yaml: a task file is a mapping"),
    ],
)
def test_mistakes_in_a_task_file(tmp_path: Path, text: str, message: str) -> None:
    jsonl(tmp_path / "t.jsonl")
    with pytest.raises(SpecError, match=message):
        read_data_set(task_file(tmp_path / "mine.yaml", text))


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("countin", "unknown task 'countin': did you mean 'counting'"),
        ("none/there", "none/there: there is no such file or folder"),
        ("none.jsonl", "there is no such file or folder"),
    ],
)
def test_what_is_neither_a_name_nor_a_path(reference: str, message: str) -> None:
    with pytest.raises((SpecError, DataError), match=message):
        task_name(reference)


def test_a_run_is_known_by_its_data(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "counts.jsonl")
    spec = RunSpec.model_validate({"model": "Qwen/Qwen2-VL-2B-Instruct", "method": "grpo", "source": str(file)})
    assert spec.source == task_name(str(file))
    assert spec.run_id.startswith(f"grpo-{spec.source}-s0-") and "/" not in spec.run_id
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec, "without looking at the file again"
    moved = file.rename(tmp_path / "moved.jsonl")
    same = jsonl(tmp_path / "elsewhere" / "counts.jsonl")
    assert RunSpec.model_validate(spec.model_dump() | {"source": str(same)}).run_id == spec.run_id
    assert RunSpec.model_validate(spec.model_dump() | {"source": str(moved)}).run_id != spec.run_id, "another label"
    job = Job(spec=spec, targets=("counting", str(same)))
    assert job.targets == ("counting", spec.source)
    assert job.data == {spec.source: str(same)}
    assert Job.model_validate_json(job.model_dump_json()) == job


SWEEP = """\
name: own
axes: {{method: [sft, grpo], source: [{file}, counting]}}
blocks:
  - where: {{source: {same}, method: grpo}}
    set: {{lr: 1e-4}}
targets: [{file}, counting]
claims:
  - {{name: a, says: b, better: {{method: grpo}}, than: {{method: sft}}, on: same_task, where: {{source: {same}}}}}
"""


def test_sweeps_take_paths_and_speak_names(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "one" / "counts.jsonl")
    same = jsonl(tmp_path / "two" / "counts.jsonl")
    sweep = load_sweep(task_file(tmp_path / "own.yaml", SWEEP.format(file=file, same=same)))
    name = task_name(str(file))
    assert sweep.targets == (name, "counting")
    assert sweep.data == {name: str(file)}
    lrs = {(cell.spec.source, cell.spec.method.type): getattr(cell.spec.method, "lr", None) for cell in sweep.cells}
    assert lrs[name, "grpo"] == 1e-4 != lrs["counting", "grpo"]
    assert {str(cell.settings["source"]) for cell in sweep.cells} == {name, "counting"}
    other = load_sweep(sweep.path, [f"targets={same}", f"source={same}"])
    assert (other.targets, other.data) == ((name,), {name: str(same)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "axes: {{method: [sft], source: [{file}, {same}]}}\ntargets: [counting]\n",
            r":2: the axis source lists .* twice",
        ),
        ("axes: {{method: [sft], source: [{file}]}}\ntargets: [{file}, {same}]\n", r":3: targets lists .* twice"),
        ("axes: {{method: [sft], source: [{file}]}}\ntargets: [no/where]\n", r":3: no/where: there is no such file"),
        ("axes: {{method: [sft], source: [no/where]}}\ntargets: [counting]\n", r":2: no/where: there is no such file"),
    ],
)
def test_mistakes_in_a_sweep_are_told_with_their_line(tmp_path: Path, text: str, message: str) -> None:
    file = jsonl(tmp_path / "one" / "counts.jsonl")
    same = jsonl(tmp_path / "two" / "counts.jsonl")
    sweep = task_file(tmp_path / "own.yaml", "name: own\n" + text.format(file=file, same=same))
    with pytest.raises(SpecError, match=message):
        load_sweep(sweep)


def test_the_paper_s_betas_go_with_its_data() -> None:
    for source, beta, low, high in (
        ("clevr", 0.04, 0.04, 0.1),
        ("clevr_r1", 0.04, 0.04, 0.1),
        ("geoqa", 0.01, 0.0, 0.02),
    ):
        assert method_defaults("Qwen/Qwen2-VL-2B-Instruct", "grpo", source)["schedule"]["beta"] == beta
        schedule = method_defaults("Qwen/Qwen2-VL-2B-Instruct", "grpo_d", source)["schedule"]
        assert (schedule["beta_min"], schedule["beta_max"]) == (low, high)
