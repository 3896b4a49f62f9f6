"""Pictures given as paths, folders or bytes: which files they are, their names, their vectors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from asif_lance.encoders.decoding import SUFFIXES
from asif_lance.encoders.protocols import ImageEncoder
from asif_lance.encoders.streaming import encode_images
from asif_lance.errors import ImageError
from asif_lance.records import Float32Array, Reject

#: A picture that is not decoded yet, and the same as users may name it.
PictureSource = Path | bytes
ImageFile = str | PictureSource


def walk_files(folder: Path, failed: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Files in a folder and below it, by name; hidden ones and hidden folders are left out.

    `failed` is called with the error of each folder that cannot be read.
    """
    for here, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


def to_image_item(image: ImageFile) -> PictureSource:
    """A picture as encoders take it."""
    return image if isinstance(image, bytes) else Path(image)


def picture_name(image: ImageFile) -> str:
    """What results call a picture."""
    return "<bytes>" if isinstance(image, bytes) else str(image)


def reject_picture(image: ImageFile, fault: ImageError, rejects: list[Reject] | None) -> None:
    """Add a picture that cannot be used to `rejects`.

    Raises:
        ImageError: there are none.
    """
    name = picture_name(image)
    if rejects is None:
        raise ImageError(f"{name}: {fault.reason}") from fault
    rejects.append(Reject("classify", name, fault.reason))


def expand_folders(
    images: Iterable[ImageFile], rejects: list[Reject] | None
) -> Iterator[ImageFile]:
    """Put the pictures of each folder in its place, by name, hidden ones left out.

    Raises:
        ImageError: a folder holds no picture and there are no `rejects`.
    """
    for image in images:
        # `Path.is_dir` fails where a name is too long or may not be looked at.
        if isinstance(image, bytes) or not os.path.isdir(image):  # noqa: PTH112
            yield image
            continue
        files = walk_files(Path(image))
        found = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
        if not found:
            reject_picture(image, ImageError("no pictures in this folder"), rejects)
        yield from found


def encode_pictures(
    encoder: ImageEncoder,
    images: Iterable[ImageFile],
    rejects: list[Reject] | None,
    batch_size: int,
    at_least: int = 1,
) -> Iterator[tuple[list[str], Float32Array]]:
    """Embed pictures in order: names and (m, d) float32, `at_least` m but for the last.

    Raises:
        ImageError: a picture cannot be used and there are no `rejects`.
    """
    pending: deque[ImageFile] = deque()  # read by the encoder, their vectors still to come
    names: list[str] = []
    parts: list[Float32Array] = []
    for batch in encode_images(encoder, _read_into(pending, images), batch_size=batch_size):
        for row in batch.rows:
            image = pending.popleft()
            if isinstance(row, ImageError):
                reject_picture(image, row, rejects)
            else:
                names.append(picture_name(image))
        parts.append(batch.vectors)
        if len(names) >= at_least:
            yield names, np.concatenate(parts)
            names, parts = [], []
    if names:
        yield names, np.concatenate(parts)


def _read_into(pending: deque[ImageFile], images: Iterable[ImageFile]) -> Iterator[PictureSource]:
    """The pictures as encoders take them, each added to `pending` when it is read."""
    for image in images:
        pending.append(image)
        yield to_image_item(image)
