"""Opens the picture of a row: RGB, as it is stored, or one sentence that names the row."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from harness.errors import DataError


@dataclass(frozen=True)
class Picture:
    """A picture that is read when it is opened.

    Attributes:
        place: The row, for messages.
        path: The file; or
        content: its bytes.
    """

    place: str
    path: Path | None = None
    content: bytes | None = field(default=None, repr=False)

    def missing(self) -> str | None:
        """What is wrong without opening it: its file is not there; None where nothing is."""
        if self.path is not None and not self.path.is_file():
            return f"{self.place}: there is no image {self.path}"
        return None

    def stored(self) -> bytes:
        """The bytes as they are stored.

        Raises:
            DataError: The file is missing or cannot be read.
        """
        if self.content is not None:
            return self.content
        assert self.path is not None
        if (missing := self.missing()) is not None:
            raise DataError(missing)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise DataError(f"{self.place}: {self.path}: {(error.strerror or str(error)).lower()}") from None

    def open(self) -> Image.Image:
        """The picture in RGB, decoded whole.

        EXIF orientation is ignored, as R1-V does. What is transparent becomes white, as in qwen-vl-utils: dropping the
        alpha channel would turn black lines on nothing into black on black.

        Raises:
            DataError: It is missing, broken or cut short.
        """
        try:
            image: Image.Image = Image.open(io.BytesIO(self.stored()))
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)
            which = "its image" if self.path is None else f"the image {self.path}"
            raise DataError(f"{self.place}: {which} cannot be read: {reason}") from None
        if image.has_transparency_data:
            image = image.convert("RGBA")
            paper = Image.new("RGBA", image.size, "white")
            return Image.alpha_composite(paper, image).convert("RGB")
        return image.convert("RGB")
