"""R1-V's data sets under the names that sweeps use, with the splits that the paper trains and tests on.

| task | train | test | protocol |
| --- | --- | --- | --- |
| `clevr` | `leonardPKU/clevr_cogen_a_train`, 70k rows | SuperCLEVR, 200 rows | `r1v_counting` |
| `clevr_r1` | `MMInstruction/Clevr_CoGenT_TrainA_R1`, 37.8k rows with `thinking` | the same | `r1v_counting` |
| `geoqa` | `leonardPKU/GEOQA_R1V_Train_8K`, 8k rows | GEOQA, 754 rows | `r1v_geoqa` |

The training sets are rows of the hub (one split, `train`). The test sets are not: R1-V publishes their questions in its
repository (https://github.com/Deep-Agent/R1-V, `src/eval/prompts/`, commit bbbbe3d) and names the pictures by paths:

- `superclevr_test200_counting_problems.jsonl` names `./images/superCLEVR_new_0250*.png`. `leonardPKU/superclevr`, which
  the paper links, is a model repository with these pictures and no rows;
  https://huggingface.co/datasets/tobiaslee/Super_clevr200 (`subsplit.tgz`) has just the 200 that are needed;
- `geoqa_test_prompts.jsonl` names `./Geo170K/images/test/*.png`: `images.zip` of
  https://huggingface.co/datasets/Luckyjhg/Geo170K.

So each goes, with its pictures, to a folder of `$HARNESS_DATA`: `superclevr/test.jsonl` and `geoqa_test/test.jsonl`.
Nobody publishes a validation split: every twentieth training row is held out for it (`held_out` of
:mod:`harness.spec.data`), so that no run trains on it. A name stands for the published rows, as a model's name on the
hub stands for its weights: a run id does not look into them.
"""

from __future__ import annotations

import os
from dataclasses import replace

from harness.errors import DataError
from harness.spec.data import DataSet, Part, Rows, rows_in
from harness.tasks.base import Split
from harness.tasks.data.rows import Table
from harness.tasks.data.sources import own_folder
from harness.tasks.data.task import DataTask

NUM_TEST = {"superclevr": 200, "geoqa_test": 754}
"""Rows of the published test sets."""

_PROMPTS = "https://github.com/Deep-Agent/R1-V/blob/main/src/eval/prompts"
_HOW = {
    "superclevr": f"{_PROMPTS}/superclevr_test200_counting_problems.jsonl as test.jsonl, beside images/ with the "
    "pictures of https://huggingface.co/datasets/tobiaslee/Super_clevr200",
    "geoqa_test": f"{_PROMPTS}/geoqa_test_prompts.jsonl as test.jsonl, beside Geo170K/images/ from images.zip of "
    "https://huggingface.co/datasets/Luckyjhg/Geo170K",
}


class PublishedTask(DataTask):
    """A named task: training rows of the hub, test rows of a folder in `$HARNESS_DATA`.

    Args:
        name: Of the task.
        protocol: R1-V's rule for the test set.
        train: The hub's name of the training rows.
        test: The folder of the test rows.
    """

    def __init__(self, name: str, protocol: str, train: str, test: str) -> None:
        parts: dict[Part, Rows] = {"train": Rows(hub=train), "test": Rows()}
        super().__init__(DataSet(name, protocol, True, parts), name)
        self._test = test

    def rows(self, split: Split) -> tuple[Table, list[int] | range]:
        """As :meth:`DataTask.rows`; the test folder is looked for when its rows are first wanted."""
        parts = self.data.parts
        if split == "test" and not parts["test"].files:
            self.data = replace(self.data, parts={**parts, "test": _test_rows(self._test)})
        table, indices = super().rows(split)
        if split == "test" and len(table) != NUM_TEST[self._test]:
            raise DataError(
                f"{own_folder(self._test)}: {len(table)} rows, and the published test set of {self.name} has "
                f"{NUM_TEST[self._test]}; other rows are a task under their own path"
            )
        return table, indices


def _test_rows(name: str) -> Rows:
    folder = own_folder(name)
    if folder is None:
        raise DataError(f"the test set {name} is not on the hub: set HARNESS_DATA, with {name}/ holding {_HOW[name]}")
    if not folder.is_dir():
        raise DataError(
            f"there is no test set at {folder} (HARNESS_DATA is {os.environ['HARNESS_DATA']}): it holds {_HOW[name]}"
        )
    return rows_in(folder, "test")


def clevr() -> DataTask:
    """Counting as the paper trains it: CLEVR-CoGenT's condition A, tested on SuperCLEVR."""
    return PublishedTask("clevr", "r1v_counting", "leonardPKU/clevr_cogen_a_train", "superclevr")


def clevr_r1() -> DataTask:
    """Counting with R1's chains of thought, what R1-V's SFT trains on."""
    return PublishedTask("clevr_r1", "r1v_counting", "MMInstruction/Clevr_CoGenT_TrainA_R1", "superclevr")


def geoqa() -> DataTask:
    """Geometry as the paper trains and tests it."""
    return PublishedTask("geoqa", "r1v_geoqa", "leonardPKU/GEOQA_R1V_Train_8K", "geoqa_test")
