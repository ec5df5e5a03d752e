"""Progress: plain lines for a file, bars for a terminal, both from the run folder alone."""

from __future__ import annotations

import io
import re

from rich.console import Console
from run_files import put_state

from harness.launch.status.progress import Progress, last_metrics, metric_words
from harness.record.atomic import write_jsonl
from harness.record.folder import RunFolder
from harness.record.state import RunState


def test_bars_follow_state_and_metrics(tmp_path):
    folder = RunFolder(tmp_path, "grpo-counting-s0-0123456789-v1")
    put_state(folder, RunState(status="running", phase="train", step=2, num_steps=10))
    write_jsonl(folder.metrics, [{"step": 0, "rollout/reward": 0.5}, {"step": 1, "rollout/reward": 1.25}])
    console = Console(file=io.StringIO(), force_terminal=True, width=160, color_system=None)
    with Progress(console, "small", 3, 1, 2) as progress:
        progress.started(folder.run_id, folder)
        progress.update()
        put_state(folder, RunState(status="running", phase="train", step=4, num_steps=10))
        progress.update()
        put_state(folder, RunState(status="running", phase="evaluate", target="counting", step=5, num_steps=8))
        progress.update()
        progress.completed(folder.run_id)
        progress.failed("other", "out of [memory]")
        progress.update()
    text = console.file.getvalue()
    assert "train  2/10  reward 1.250" in text
    assert re.search(r"train  4/10  reward 1\.250  \d\.\d s left", text)
    assert "evaluate  counting  5/8" in text
    assert re.search(rf"completed  {folder.run_id}  in \d\.\d s", text)
    assert "failed     other: out of [memory]" in text
    assert "3/3 runs  1 failed" in text


def test_no_bars_and_no_control_codes_in_a_file(tmp_path):
    console = Console(file=io.StringIO(), width=20)
    with Progress(console, "small", 2, 0, 1) as progress:
        progress.started("a", RunFolder(tmp_path, "a"))
        progress.update()
        progress.interrupted("a")
        progress.elsewhere("b")
    assert console.file.getvalue() == (
        "started    a\nstopped    a; it will resume\nelsewhere  b: another driver is running it; waiting for it\n"
    )


def test_last_metrics_takes_the_last_whole_training_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert last_metrics(path) == {}
    rows = [{"step": at, "train/loss": at / 2, "pad": "x" * 200} for at in range(200)]
    write_jsonl(path, [*rows, {"step": 199, "eval/counting/accuracy": 0.5}])
    with path.open("a") as stream:
        stream.write('{"step": 200, "train/lo')
    assert last_metrics(path)["step"] == 199
    assert last_metrics(path)["train/loss"] == 99.5


def test_the_number_to_watch():
    assert metric_words({"train/loss": 0.25, "rollout/reward": 1}) == ["reward 1.000"]
    assert metric_words({"train/loss": 0.25, "rollout/reward": None}) == ["loss 0.250"]
    assert metric_words({}) == []
