"""Damage of every kind to the files of real runs: what is set aside, and that the run comes out the same."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from real_run import finish, moved, new_job, outcome, stop_after

from harness.errors import FencedError
from harness.record.atomic import read_json
from harness.record.files import Files
from harness.record.folder import RunFolder
from harness.record.marks import last_step
from harness.record.quarantine import set_aside
from harness.record.recorder import job_folder
from harness.record.state import is_complete
from harness.spec import Job

NUM_STEPS = 6
ROWS = ("metrics.jsonl", "completions.jsonl", "validations.jsonl")
CHECKPOINT = "checkpoint/checkpoint.safetensors"
WEIGHTS = "weights/model.safetensors"
EVALUATION = "eval/counting.jsonl"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A run that is completed."""
    job = new_job(tmp_path_factory.mktemp("finished"))
    finish(job)
    return job


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same run, stopped with a checkpoint."""
    job = new_job(tmp_path_factory.mktemp("half"))
    folder = stop_after(job, 3)
    assert 3 <= last_step(folder) < NUM_STEPS and folder.checkpoint.is_dir() and not folder.weights.exists()
    assert all(path.exists() for path in folder.rows)
    return job


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Job], RunFolder]:
    """A copy of a run that shares its files until they are damaged."""

    def make(job: Job) -> RunFolder:
        folder = RunFolder(tmp_path, job.spec.run_id)
        shutil.rmtree(folder.path, ignore_errors=True)
        shutil.copytree(job_folder(job).path, folder.path, copy_function=os.link)
        return folder

    return make


def truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(1, len(content) - 2)]


def flip(content: bytes, chance: random.Random) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: Mapping[str, Callable[[bytes, random.Random], bytes | None]] = {
    "truncated": truncate,
    "flipped": flip,
    "other JSON": lambda content, chance: b'{"a": 1}\n',
    "a list": lambda content, chance: b"[1, 2]\n",
    "empty": lambda content, chance: b"",
    "zeroes": lambda content, chance: bytes(len(content)),
    "deleted": lambda content, chance: None,
}


def damage(folder: RunFolder, name: str, kind: str, seed: int = 0) -> None:
    path = folder.path / name
    content = DAMAGES[kind](path.read_bytes(), random.Random(f"{name} {kind} {seed}"))
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def aside(folder: RunFolder) -> tuple[set[str], list[str]]:
    """What is moved to the quarantine, by the files' names, and what is told of it."""
    told = set_aside(folder, Files(folder.path), NUM_STEPS)
    kept = [path.name.split("-", 1)[1] for path in folder.quarantine.glob("*")]
    assert len(kept) == len(set(kept)) == len(told)
    for sentence in told:
        assert "; moved to quarantine/" in sentence and "\n" not in sentence
    return set(kept), told


def training(folder: RunFolder, but: str = "") -> set[str]:
    """What goes where rows were lost: they cannot be told of again without their steps."""
    there = {"metrics.jsonl", "completions.jsonl", "validations.jsonl", "marks.json"}
    there |= {"weights"} if folder.weights.exists() else {"checkpoint.safetensors"}
    return there - {but}


def test_nothing_is_set_aside_where_nothing_is_wrong(copy: Any, finished: Job, half: Job) -> None:
    for job in (finished, half):
        folder = copy(job)
        assert aside(folder) == (set(), [])
        assert folder.summary.exists() == (job is finished)
    assert set_aside(RunFolder(finished.results, "none"), Files(Path(finished.results)), NUM_STEPS) == []


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("kind", DAMAGES)
def test_rows_that_were_lost_take_their_steps_with_them(
    copy: Any, finished: Job, half: Job, name: str, kind: str
) -> None:
    for job in (finished, half):
        folder = copy(job)
        expected = training(folder, but=name if kind == "deleted" else "")
        damage(folder, name, kind)
        found, told = aside(folder)
        assert found == expected
        assert any(sentence.startswith(name) for sentence in told) or kind == "deleted"
        assert any(f"goes with it: {name}" in sentence or name in sentence for sentence in told)
        assert not folder.summary.exists() and not folder.weights.exists()
        assert aside_again(folder) == []


def aside_again(folder: RunFolder) -> list[str]:
    return set_aside(folder, Files(folder.path), NUM_STEPS)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "deleted"])
def test_an_evaluation_goes_alone_and_the_summary_with_it(copy: Any, finished: Job, kind: str) -> None:
    folder = copy(finished)
    damage(folder, EVALUATION, kind)
    found, _ = aside(folder)
    assert found == {"counting.jsonl"}
    assert not folder.summary.exists() and folder.weights.exists() and folder.metrics.exists()


def test_an_evaluation_that_is_gone_leaves_the_run_to_be_completed(copy: Any, finished: Job) -> None:
    folder = copy(finished)
    damage(folder, EVALUATION, "deleted")
    assert aside(folder) == (set(), [])
    assert not is_complete(folder, finished.targets, finished.evaluation)


@pytest.mark.parametrize("kind", ["empty", "other JSON", "a list", "zeroes"])
def test_an_evaluation_that_no_summary_tells_of_goes_by_its_form(copy: Any, finished: Job, kind: str) -> None:
    folder = copy(finished)
    folder.summary.unlink()
    damage(folder, EVALUATION, kind)
    assert aside(folder)[0] == {"counting.jsonl"}


@pytest.mark.parametrize("name", ["state.json", "run.json", "marks.json", "summary.json"])
@pytest.mark.parametrize("kind", ["truncated", "a list", "empty", "zeroes"])
def test_a_torn_record_goes_alone(copy: Any, finished: Job, half: Job, name: str, kind: str) -> None:
    for job in (finished, half):
        if job is half and name == "summary.json":
            continue
        folder = copy(job)
        damage(folder, name, kind)
        found, told = aside(folder)
        assert (found, told) == ({name}, [f"{name} is torn or holds something else; moved to quarantine/1-{name}"])
        assert not folder.summary.exists()
        assert all(path.exists() for path in folder.rows)


@pytest.mark.parametrize("name", ["run.json", "marks.json", "summary.json"])
def test_a_record_of_another_kind_goes_alone(copy: Any, finished: Job, name: str) -> None:
    folder = copy(finished)
    damage(folder, name, "other JSON")
    assert aside(folder)[0] == {name}


@pytest.mark.parametrize("name", ["state.json", "run.json", "marks.json", "summary.json"])
def test_whatever_byte_of_a_record_flips_is_survived(copy: Any, finished: Job, name: str) -> None:
    """A digit that became another goes unseen where nothing else tells of it; no reader may stumble over it."""
    chance = random.Random(name)
    content = (job_folder(finished).path / name).read_bytes()
    places = chance.sample(range(len(content)), min(len(content), 150))
    seen = set()
    for place in places:
        folder = copy(finished)
        path = folder.path / name
        path.unlink()
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :])
        is_complete(folder, finished.targets, finished.evaluation)
        found, _ = aside(folder)
        seen |= found
        assert found <= training(copy(finished)) | {name, "counting.jsonl"}
    assert name in seen


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "flipped"])
def test_weights_that_are_not_whole_go_as_a_folder(copy: Any, finished: Job, kind: str) -> None:
    folder = copy(finished)
    damage(folder, WEIGHTS, kind)
    found, told = aside(folder)
    assert (found == {"weights"} and "weights" in told[0]) or "model.safetensors" in told[0]
    assert not folder.weights.exists() and folder.metrics.exists() and not folder.summary.exists()


@pytest.mark.parametrize("kind", ["truncated", "empty", "zeroes"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_weights_whose_settings_are_torn_go_too(copy: Any, finished: Job, name: str, kind: str) -> None:
    folder = copy(finished)
    damage(folder, f"weights/{name}", kind)
    assert aside(folder)[0] == {"weights"}


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind not in ("flipped", "deleted")])
def test_a_checkpoint_that_is_not_whole_goes_alone(copy: Any, half: Job, kind: str) -> None:
    folder = copy(half)
    damage(folder, CHECKPOINT, kind)
    found, _ = aside(folder)
    assert found == {"checkpoint.safetensors"}
    assert all(path.exists() for path in folder.rows)


@pytest.mark.parametrize("first", ["marks.json", "metrics.jsonl", WEIGHTS, EVALUATION])
def test_two_damages_are_no_worse_than_one(copy: Any, finished: Job, first: str) -> None:
    for second in ("marks.json", "completions.jsonl", WEIGHTS, "state.json", "summary.json"):
        folder = copy(finished)
        expected = {Path(name).name for name in (first, second)}
        damage(folder, first, "other JSON" if first != WEIGHTS else "truncated")
        if second != first:
            damage(folder, second, "a list")
        found, _ = aside(folder)
        assert found >= {"weights" if name == "model.safetensors" else name for name in expected}
        assert aside_again(folder) == []


def test_one_who_was_passed_over_sets_nothing_aside(copy: Any, finished: Job) -> None:
    folder = copy(finished)
    damage(folder, "metrics.jsonl", "empty")
    before = sorted(str(path) for path in folder.path.rglob("*"))
    with pytest.raises(FencedError):
        set_aside(folder, Files(folder.path / "lease" / "1" / "gone"), NUM_STEPS)
    assert sorted(str(path) for path in folder.path.rglob("*")) == before


@pytest.mark.parametrize(
    ("of", "damages"),
    [
        ("finished", {WEIGHTS: "truncated", "state.json": "truncated"}),
        ("finished", {EVALUATION: "flipped", "marks.json": "truncated"}),
        ("half", {CHECKPOINT: "truncated", "run.json": "other JSON"}),
        ("half", {"validations.jsonl": "flipped", "state.json": "zeroes"}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_damaged_run_comes_out_as_if_nothing_had_been(
    finished: Job, half: Job, tmp_path: Path, of: str, damages: dict[str, str]
) -> None:
    job = moved({"finished": finished, "half": half}[of], tmp_path)
    folder = job_folder(job)
    for name, kind in damages.items():
        damage(folder, name, kind)
    finish(job)
    assert outcome(folder) == outcome(job_folder(finished))
    assert is_complete(folder, job.targets, job.evaluation)
    assert folder.log.read_text().count("; moved to quarantine/") == len(list(folder.quarantine.iterdir())) >= 1


def test_a_half_trained_run_goes_on_as_it_is(finished: Job, half: Job, tmp_path: Path) -> None:
    job = moved(half, tmp_path)
    assert outcome(finish(job)) == outcome(job_folder(finished))
    assert not job_folder(job).quarantine.exists()
    attempts = read_json(job_folder(job).run_json)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["interrupted", "completed"]
    assert attempts[1]["start_step"] >= 3
