"""Pictures made small for people: as JPEG, whatever they are kept as."""

from __future__ import annotations

from io import BytesIO

from PIL import Image

from asif_lance.encoders.decoding import decode_image, upright_rgb
from asif_lance.encoders.inside_files import read_picture
from asif_lance.encoders.picture_files import to_image_item
from asif_lance.encoders.picture_inputs import PictureInput, take_picture
from asif_lance.errors import ImageError

#: Pixels of the long side of a picture, and of a pair's thumbnail.
PICTURE, THUMBNAIL = 640, 160


def shown_picture(picture: PictureInput, side: int = PICTURE) -> bytes:
    """A picture with a long side of so many pixels or fewer, as JPEG.

    Raises:
        ImageError: it cannot be read.
        InputError: it is not one picture.
    """
    item = to_image_item(take_picture(picture, "a page"))
    content = item() if callable(item) else item
    if isinstance(content, Image.Image):
        return _to_jpeg(upright_rgb(content).copy(), side)
    return _to_jpeg(decode_image(content), side)


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
