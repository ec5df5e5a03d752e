"""What drivers note of the workers that they started."""

from __future__ import annotations

import dataclasses
import json

import pytest

from harness.errors import FencedError
from harness.record.files import Files
from harness.record.launches import KEPT, LaunchRecord, progress_of, read_launches, write_launches
from harness.record.marks import write_mark

FIRST = LaunchRecord(
    token=1,
    started=10.5,
    driver="host-7-99.json",
    handle={"executor": "local", "gpus": [0]},
    place="host gpu 0",
    halvings=2,
    ended=20.5,
    code=-9,
    failure="worker_lost",
    error="the worker was ended by SIGKILL",
    progress=(0, 0, 4),
)


def test_launches_are_read_as_they_were_written(folder, files):
    second = LaunchRecord(token=3, started=30.0, driver="other.json")
    write_launches(folder, [FIRST, second], files)
    assert read_launches(folder) == [FIRST, second]
    assert isinstance(read_launches(folder)[0].progress, tuple)
    assert json.loads(folder.launches.read_text())["launches"][0]["progress"] == [0, 0, 4]


def test_old_launches_are_dropped(folder, files):
    write_launches(folder, [dataclasses.replace(FIRST, token=token) for token in range(1, KEPT + 4)], files)
    assert [one.token for one in read_launches(folder)] == list(range(4, KEPT + 4))


@pytest.mark.parametrize(
    "content",
    [
        "",
        '{"launches": [',
        "[]",
        "{}",
        "3",
        '{"launches": 3}',
        '{"launches": [3]}',
        '{"launches": [{"token": 1}]}',
        '{"launches": [{"token": "1", "started": 1, "driver": "d"}]}',
        '{"launches": [{"token": 1, "started": 1, "driver": "d", "handle": 3}]}',
        '{"launches": [{"token": 1, "started": 1, "driver": "d", "progress": 3}]}',
    ],
)
def test_what_cannot_be_trusted_is_no_launch(folder, content):
    folder.path.mkdir(parents=True)
    assert read_launches(folder) == []
    folder.launches.write_text(content)
    assert read_launches(folder) == []


def test_fields_of_other_versions_are_passed_over(folder, files):
    record = dataclasses.asdict(FIRST) | {"colour": "red"}
    files.write_json(folder.launches, {"launches": [record]})
    assert read_launches(folder) == [FIRST]


def test_a_driver_that_was_passed_over_notes_nothing(folder, files):
    write_launches(folder, [FIRST], files)
    with pytest.raises(FencedError):
        write_launches(folder, [], Files(folder.path / "lease" / "1" / "gone"))
    assert read_launches(folder) == [FIRST]


def test_progress_is_what_is_safe_on_disk_and_rises_on_the_way(folder, files):
    seen = [progress_of(folder)]
    files.append_jsonl(folder.metrics, {"step": 0})
    write_mark(folder, files, 4)
    seen.append(progress_of(folder))  # a mark is no checkpoint
    folder.checkpoint.mkdir()
    seen.append(progress_of(folder))
    write_mark(folder, files, 6)
    seen.append(progress_of(folder))
    folder.weights.mkdir()
    folder.checkpoint.rmdir()
    seen.append(progress_of(folder))
    for split in ("test", "validation"):
        files.write_jsonl(folder.evaluation("counting", split), [{"correct": True}])
        seen.append(progress_of(folder))
    assert seen == [(0, 0, 0), (0, 0, 0), (0, 0, 4), (0, 0, 6), (0, 1, 0), (1, 1, 0), (2, 1, 0)]
    assert seen == sorted(seen)
