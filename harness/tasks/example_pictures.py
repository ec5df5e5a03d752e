"""The pictures of examples that rows on record name, drawn or read again."""

from __future__ import annotations

from collections.abc import Mapping

from PIL.Image import Image

from harness.errors import HarnessError
from harness.tasks.base import SPLITS, Task, load_task


class ExamplePictures:
    """Finds the picture of an example by its id.

    Args:
        data: Name -> path of stored rows, as a job has it.

    Attributes:
        reason: Why the first picture that could not be found was not; None where all were.
    """

    def __init__(self, data: Mapping[str, str]) -> None:
        self.reason: str | None = None
        self._data = data
        self._tasks: dict[str, Task] = {}

    def __call__(self, example_id: str, question: str | None) -> Image | None:
        """An example's picture.

        Args:
            example_id: ``"<task>/<split>/<index>"``.
            question: What the row says was asked; None where it does not say.

        Returns:
            None where there is no such example, its data is not here, or it asks something else by now.
        """
        try:
            return self._found(example_id, question)
        except (HarnessError, OSError) as error:
            self.reason = self.reason or str(error)
            return None

    def _found(self, example_id: str, question: str | None) -> Image:
        task, split, index = ["", "", *example_id.rsplit("/", 2)][-3:]
        place = next((one for one in SPLITS if one == split), None)
        if place is None or not index.isdigit():
            raise HarnessError(f"'{example_id}' names no example")
        if task not in self._tasks:
            self._tasks[task] = load_task(task, self._data)
        example = self._tasks[task].example(place, int(index))
        if question is not None and example.question != question:
            raise HarnessError(f"{example_id} has changed since it was answered")
        return example.image
