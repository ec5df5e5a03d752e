"""The pictures that completions are about: drawn or read again, each once, small enough to go with a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

from PIL import Image

from harness.errors import HarnessError
from harness.tasks.base import Example, Split, load_task

MAX_BYTES = 6 * 1024**2
"""Of all pictures of a report, before base64."""

MAX_SIDE = 448
"""Pixels; larger pictures are scaled down."""

_LOSSLESS_SIDE = 256
"""Drawings up to this size keep every pixel, and are smaller for it."""

_SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Pictures:
    """Examples of tasks by their id, with pictures as long as there is room.

    Args:
        data: Of a sweep: name -> path of stored rows.
        max_bytes: Room for pictures.
    """

    def __init__(self, data: Mapping[str, str], max_bytes: int = MAX_BYTES) -> None:
        self._data = data
        self._left = max_bytes
        self._known: dict[str, tuple[Example | None, str | None, str | None]] = {}

    def find(self, example_id: str, question: str | None) -> tuple[Example | None, str | None, str | None]:
        """An example with its picture.

        Args:
            example_id: As rows have it: ``"<task>/<split>/<index>"``.
            question: What the row says was asked; None where it does not say.

        Returns:
            The example, its picture as WebP in base64, and why there is none where there is none. An example that now
            asks something else than the row says is not the row's, and is not returned.
        """
        if example_id not in self._known:
            self._known[example_id] = self._found(example_id)
        example, picture, reason = self._known[example_id]
        if example is not None and question is not None and example.question != question:
            return None, None, "The example has changed since it was answered."
        return example, picture, reason

    def _found(self, example_id: str) -> tuple[Example | None, str | None, str | None]:
        task, split, index = ["", "", *example_id.rsplit("/", 2)][-3:]
        place = next((one for one in _SPLITS if one == split), None)
        if place is None or not index.isdigit():
            return None, None, "The row does not name its example."
        try:
            example = load_task(task, self._data).example(place, int(index))
        except (HarnessError, OSError) as error:
            return None, None, f"No picture: {error}"
        content = _webp(example.image)
        if len(content) > self._left:
            return example, None, "No picture: the report's room for pictures is used up."
        self._left -= len(content)
        return example, base64.b64encode(content).decode(), None


def _webp(image: Image.Image) -> bytes:
    image = image.convert("RGB")
    image.thumbnail((MAX_SIDE, MAX_SIDE))
    stream = io.BytesIO()
    if max(image.size) <= _LOSSLESS_SIDE:
        image.save(stream, "WEBP", lossless=True, method=4)
    else:
        image.save(stream, "WEBP", quality=75, method=4)
    return stream.getvalue()
