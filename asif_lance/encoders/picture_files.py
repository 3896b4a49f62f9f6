"""Pictures as users give them: paths or the files' bytes, encoded under the names results use."""

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


def walk_files(folder: Path, failed: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Files in a folder and below it, by name; hidden ones and hidden folders are left out.

    `failed` is told of each folder that cannot be read.
    """
    for here, folders, files in os.walk(folder, onerror=failed):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here, name) for name in sorted(files) if not name.startswith("."))


#: A picture that is not decoded yet, and the same as users may name it.
PictureSource = Path | bytes
ImageFile = str | PictureSource


def to_image_item(image: ImageFile) -> PictureSource:
    """A picture as encoders take it."""
    return image if isinstance(image, bytes) else Path(image)


def picture_name(image: ImageFile) -> str:
    """What results call a picture."""
    return "<bytes>" if isinstance(image, bytes) else str(image)


def reject_picture(image: ImageFile, fault: ImageError, rejects: list[Reject] | None) -> None:
    """Note down a picture that cannot be used.

    Raises:
        ImageError: there are no `rejects` to gather it.
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
    taken: deque[ImageFile] = deque()
    names: list[str] = []
    parts: list[Float32Array] = []
    for batch in encode_images(encoder, _noted(images, taken), batch_size=batch_size):
        for row in batch.rows:
            image = taken.popleft()
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


def _noted(images: Iterable[ImageFile], taken: deque[ImageFile]) -> Iterator[PictureSource]:
    """The pictures as encoders take them, themselves noted down on the way."""
    for image in images:
        taken.append(image)
        yield to_image_item(image)
