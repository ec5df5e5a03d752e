"""The event files of a run, read back by TensorBoard itself."""

from __future__ import annotations

import pytest
from recorded_run import record

from harness.record import RunFolder
from harness.record.mirror.mirror import Mirror
from harness.record.mirror.tensorboard_sink import TensorboardSink
from harness.spec import Job

pytest.importorskip("tensorboard")


def test_a_resumed_run_holds_every_step_once(folder: RunFolder, job: Job) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first, stop, end in ((0, 3, "interrupted"), (2, 4, "completed")):
        mirror = Mirror(folder, "TensorBoard", lambda: TensorboardSink(folder))
        record(job, first, stop, end, [mirror])
    events = EventAccumulator(str(folder.tensorboard)).Reload()
    found = {key: [(event.step, event.value) for event in events.Scalars(key)] for key in events.Tags()["scalars"]}
    assert found["train/loss"] == [(0, 0.0), (1, 0.125), (2, 0.25), (3, 0.375)]
    assert found["eval/counting/accuracy"] == [(1, 0.125), (3, 0.375)]
    assert (found["test/counting/accuracy"], found["score/cross_task"]) == ([(4, 0.75)], [(4, 0.25)])
    assert [event.step for event in events.Tensors("completions/text_summary")] == [0, 2]
    assert mirror.whereabouts == f"TensorBoard: tensorboard --logdir {folder.tensorboard}"
    assert not folder.log.exists()
