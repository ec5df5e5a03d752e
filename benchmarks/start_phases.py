"""Where the time of one worker's start goes: the worker itself, with a look at the clock between its parts.

``python -m benchmarks.start_phases JOB_JSON`` ends after the first training step and leaves `marks.json` beside the
job: seconds of the system's monotonic clock, which :mod:`benchmarks.start` reads too.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

MARKS = {"interpreter": time.monotonic()}
"""When each part was over."""


def main() -> None:
    """Imports part by part, in the worker's order, then runs the worker with its parts wrapped."""
    import harness.worker

    mark("import harness")
    import torch  # noqa: F401

    mark("import torch")
    import transformers.modeling_utils  # noqa: F401

    mark("import transformers")
    import harness.evaluate
    import harness.policy
    import harness.record.recorder
    import harness.tasks.counting
    import harness.train.grpo
    import harness.train.loop

    mark("import the rest")
    grpo, loop = harness.train.grpo.Grpo, harness.train.loop.Loop
    ends_before(harness.policy, "load_policy", "open the run")
    ends_before(grpo, "__init__", "load the policy")
    ends_before(grpo, "collect", "prepare method and task")
    ends_before(loop, "_update", "first rollout")
    ends_before(harness.record.recorder.Recorder, "metrics", "first update")
    ends_after_first_row(harness.record.recorder.Recorder, Path(sys.argv[1]).with_name("marks.json"))
    sys.exit(harness.worker.main(Path(sys.argv[1])))


def mark(part: str) -> None:
    """The part is over."""
    MARKS.setdefault(part, time.monotonic())


def ends_before(owner: object, name: str, part: str) -> None:
    """A part is over when a function is called for the first time."""
    work = getattr(owner, name)

    def marked(*args: object, **kwargs: object) -> object:
        mark(part)
        return work(*args, **kwargs)

    setattr(owner, name, marked)


def ends_after_first_row(recorder: type, out: Path) -> None:
    """Writes the marks and ends the process once the first step is on record."""
    from harness.record.atomic import write_json

    work = recorder.metrics  # type: ignore[attr-defined]

    def last(*args: object, **kwargs: object) -> None:
        work(*args, **kwargs)
        mark("record the step")
        write_json(out, MARKS)
        os._exit(0)

    recorder.metrics = last  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
