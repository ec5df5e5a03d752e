"""Pictures: RGB as stored, or an error that names the row."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from harness.errors import DataError
from harness.tasks.data.pictures import Picture


def stored(image: Image.Image, form: str, **options: object) -> Picture:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return Picture("rows.jsonl:3", content=stream.getvalue())


def test_every_mode_becomes_rgb() -> None:
    for mode, color in (("L", 7), ("RGB", (7, 7, 7)), ("P", 0), ("1", 1), ("LA", (7, 255))):
        assert stored(Image.new(mode, (3, 2), color), "PNG").open().mode == "RGB"
    assert stored(Image.new("CMYK", (3, 2)), "JPEG").open().mode == "RGB"


def test_what_is_transparent_becomes_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    opened = stored(image, "PNG").open()
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]
    palette = Image.new("P", (1, 1), 0)
    assert stored(palette, "PNG", transparency=0).open().getpixel((0, 0)) == (255, 255, 255)


def test_orientation_in_exif_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees"
    assert stored(Image.new("RGB", (8, 4)), "JPEG", exif=exif).open().size == (8, 4)


def test_broken_pictures_name_their_row(tmp_path: Path) -> None:
    whole = stored(Image.effect_noise((64, 64), 50), "PNG").content
    assert whole is not None
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: its image cannot be read: not a picture$"):
        Picture("rows.jsonl:3", content=b"no picture").open()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: the image .*cut\.png cannot be read: "):
        Picture("rows.jsonl:3", path=tmp_path / "cut.png").open()
    with pytest.raises(DataError, match=r"^rows\.jsonl:3: there is no image .*none\.png$"):
        Picture("rows.jsonl:3", path=tmp_path / "none.png").open()
