"""Pictures made small for people: as JPEG, whatever they are kept as."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from PIL import Image

from asif_lance.encoders.decoding import decode_image
from asif_lance.encoders.inside_files import read_picture
from asif_lance.errors import ImageError

#: Pixels of the long side of a picture, and of a pair's thumbnail.
PICTURE, THUMBNAIL = 640, 160


def shown_picture(picture: Path | bytes, side: int = PICTURE) -> bytes:
    """A picture with a long side of so many pixels or fewer.

    Raises:
        ImageError: it cannot be read.
    """
    return _to_jpeg(decode_image(picture), side)


def make_thumbnail(uri: str | None) -> bytes:
    """The pair's picture, small, if it is a file or in an archive here that can be decoded."""
    if not uri:
        return b""
    try:
        return _to_jpeg(decode_image(read_picture(uri), min_side=THUMBNAIL), THUMBNAIL)
    except ImageError:
        return b""


def _to_jpeg(image: Image.Image, side: int) -> bytes:
    image.thumbnail((side, side))
    content = BytesIO()
    image.save(content, "JPEG", quality=85)
    return content.getvalue()
