"""One run for a reader: its own settings, curves of braille, scores by hand, texts that cannot move a terminal."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import DataError, UserError
from harness.record.atomic import read_json, read_jsonl, write_json, write_jsonl
from harness.record.folder import RunFolder
from harness.report.one_run import changed_settings, find_run, plain_text, worker_s
from harness.report.show import read_shown, show_lines
from harness.report.terminal import braille, columns
from harness.spec.run import RunSpec

RUN = RunSpec.model_validate({"method": {"type": "grpo", "lr": 0.5}, "source": "counting", "seed": 3})


@pytest.fixture
def run(results: Path, write_run) -> RunFolder:
    """GRPO on counting with three steps, two of four answers right, texts and samples."""
    folder = RunFolder(results, write_run(RUN, {"counting": [1, 0, 1, 0]}))
    record = read_json(folder.run_json)
    attempts = [
        {"started": "2026-01-01T10:00:00+0000", "ended": "2026-01-01T10:00:07+0000"},
        {"started": "2026-01-01T11:00:00+0000", "ended": None},
        {"started": "2026-01-01T12:00:00+0000", "ended": "2026-01-01T12:00:05+0000"},
    ]
    write_json(folder.run_json, record | {"attempts": attempts})
    values = [0.0, 0.5, None]
    write_jsonl(folder.metrics, [{"step": at, "rollout/reward": value} for at, value in enumerate(values)])
    rows = read_jsonl(folder.evaluation("counting"))
    texts = {"question": "How many?", "solution": "3", "completion": "three\x1b]0;title\x07\nand [bold]more"}
    write_jsonl(folder.evaluation("counting"), [row | texts for row in rows])
    sampled = {"question": "Q", "completion": "c", "reward": 1.5, "advantage": -0.5}
    ids = [(0, "counting/train/9"), (2, "counting/train/1"), (2, "counting/train/1"), (2, "counting/train/2")]
    write_jsonl(folder.completions, [{"step": step, "id": name, **sampled} for step, name in ids])
    return folder


def test_what_is_shown_by_hand(results: Path, run: RunFolder) -> None:
    shown = read_shown(results, run.run_id, num_samples=2)
    assert shown.status == "completed" and worker_s(shown.record) == 12.0
    assert [(one.setting, one.a, one.b) for one in shown.changed] == [("method.lr", 0.5, 2e-4)]
    (score,) = shown.scores
    # The first two of four completions are in the right format; one of them is right.
    found = (score.accuracy.mean, score.format_frac, score.accuracy_in_format, score.accuracy_otherwise)
    assert found == (0.5, 0.5, 0.5, 0.5)
    assert score.accuracy.low is not None and score.num_examples == 4
    assert [row["id"] for row in shown.rollouts] == ["counting/train/1"] * 2
    assert [row["index"] for row in shown.answers["counting"]] == [0, 1]
    assert json.loads(json.dumps(shown.as_json(), allow_nan=False))["curves"]["rollout/reward"][2] == [2, None]


def test_a_terminal_is_told_nothing_by_a_model(results: Path, run: RunFolder) -> None:
    lines = [line.text for line in show_lines(read_shown(results, run.run_id, num_samples=1))]
    assert "    right: three\\u001b]0;title\\u0007 and [bold]more" in lines
    assert all(text.isprintable() for text in lines)


def test_the_verb_prints_it(results: Path, run: RunFolder) -> None:
    done = CliRunner().invoke(app, ["show", "grpo-", "--results", str(results)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{run.run_id}: completed\n")
    assert "method.lr   0.5   0.0002" in done.stdout and "[bold]more" in done.stdout


def test_verdicts_without_texts_say_so(results: Path, write_run) -> None:
    run_id = write_run(RunSpec.model_validate({"method": "base"}), {"counting": [1, 0]})
    path = RunFolder(results, run_id).evaluation("counting")
    write_jsonl(path, [{"index": row["index"], "correct": row["correct"]} for row in read_jsonl(path)])
    shown = read_shown(results, run_id, num_samples=2)
    lines = [line.text for line in show_lines(shown)]
    assert "Answers on counting: verdicts without texts on record" in lines
    assert "No training on record" in lines and "Every setting as in the defaults of base" in lines
    assert shown.scores[0].format_frac is None


def test_a_schedule_of_another_type_is_a_setting_of_its_own() -> None:
    spec = RunSpec.model_validate({"method": {"type": "grpo_d", "schedule": "linear"}, "source": "counting"})
    changed = {one.setting: (one.a, one.b) for one in changed_settings(spec)}
    assert changed == {
        "method.schedule": ("linear", "othink"),
        "method.schedule.explore_frac": ("-", 0.3),
    }


def test_a_run_is_found_by_its_beginning_or_its_folder(results: Path, run: RunFolder, write_run) -> None:
    other = write_run(RUN.model_copy(update={"seed": 4}), {"counting": [1]})
    assert find_run(results, "grpo-counting-s3").run_id == run.run_id
    assert find_run(results, str(run.path)).run_id == run.run_id
    with pytest.raises(UserError, match=f"'grpo-' stands for 2 runs: {run.run_id}, {other}"):
        find_run(results, "grpo-")
    with pytest.raises(UserError, match=f"did you mean '{run.run_id}'"):
        find_run(results, f"{run.run_id}x")
    with pytest.raises(UserError, match="there are no runs"):
        find_run(results / "nowhere", "grpo")


def test_a_record_that_holds_no_spec_is_told(results: Path, run: RunFolder) -> None:
    write_json(run.run_json, {"spec": {"method": "grpo", "colour": "red"}})
    with pytest.raises(DataError, match=r"run\.json does not hold the spec of a run"):
        read_shown(results, run.run_id, num_samples=1)
    run.run_json.unlink()
    with pytest.raises(UserError, match="the run was never started"):
        read_shown(results, run.run_id, num_samples=1)


def test_braille_by_hand() -> None:
    # Two values on one letter: the lowest dot to the left, and to the right the way up to the highest.
    assert braille([0.0, 1.0], width=1, height=1) == [chr(0x2800 + 0x40 + 0x08 + 0x10 + 0x20)]
    # Four values on two dots: their means, 0.5 and 2.5.
    assert braille([0.0, 1.0, 2.0, 3.0], width=1, height=1) == braille([0.5, 2.5], width=1, height=1)
    assert braille([2.0, 2.0], width=1, height=1) == [chr(0x2800 + 0x04 + 0x20)]
    assert braille([0.0, math.nan, 3.0, 3.0], width=2, height=1) == [chr(0x2800 + 0x40) + chr(0x2800 + 0x01 + 0x08)]
    assert braille([math.nan], width=2, height=2) == [chr(0x2800) * 2] * 2


def test_columns_by_hand() -> None:
    assert columns([["a", "1"], ["bb", "22"]], right=(1,), indent="") == ["a    1", "bb  22"]


def test_plain_text() -> None:
    assert plain_text(None) == "(no text on record)"
    assert plain_text(" a\n b\x00\u202e") == "a b\\u0000\\u202e"
    assert plain_text("abcdef", 4) == "abc…"
