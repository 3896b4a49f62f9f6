"""Pictures as users give them: paths or the files' bytes, encoded under the names results use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asif_lance.encoders import ImageEncoder, encode_images
from asif_lance.errors import ImageError
from asif_lance.images import SUFFIXES, shown_files
from asif_lance.records import Reject

Image = str | Path | bytes


def as_item(image: Image) -> Path | bytes:
    """A picture as encoders take it."""
    return image if isinstance(image, bytes) else Path(image)


def name_of(image: Image) -> str:
    """What results call a picture."""
    return "<bytes>" if isinstance(image, bytes) else str(image)


def refuse(image: Image, fault: ImageError, rejects: list[Reject] | None) -> None:
    """Note down a picture that cannot be used.

    Raises:
        ImageError: there are no `rejects` to gather it.
    """
    name = name_of(image)
    if rejects is None:
        raise ImageError(f"{name}: {fault.reason}") from fault
    rejects.append(Reject("classify", name, fault.reason))


def unfolded(images: Iterable[Image], rejects: list[Reject] | None) -> Iterator[Image]:
    """Put the pictures of each folder in its place, by name, hidden ones left out.

    Raises:
        ImageError: a folder holds no picture and there are no `rejects`.
    """
    for image in images:
        # `Path.is_dir` fails where a name is too long or may not be looked at.
        if isinstance(image, bytes) or not os.path.isdir(image):  # noqa: PTH112
            yield image
            continue
        files = shown_files(Path(image))
        found = sorted(file for file in files if file.suffix.lower() in SUFFIXES)
        if not found:
            refuse(image, ImageError("no pictures in this folder"), rejects)
        yield from found


def encoded(
    encoder: ImageEncoder,
    images: Iterable[Image],
    rejects: list[Reject] | None,
    batch_size: int,
    at_least: int = 1,
) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    """Embed pictures in order: names and (m, d) float32, `at_least` m but for the last.

    Raises:
        ImageError: a picture cannot be used and there are no `rejects`.
    """
    taken: deque[Image] = deque()
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for batch in encode_images(encoder, _noted(images, taken), batch_size=batch_size):
        for row in batch.rows:
            image = taken.popleft()
            if isinstance(row, ImageError):
                refuse(image, row, rejects)
            else:
                names.append(name_of(image))
        parts.append(batch.vectors)
        if len(names) >= at_least:
            yield names, np.concatenate(parts)
            names, parts = [], []
    if names:
        yield names, np.concatenate(parts)


def _noted(images: Iterable[Image], taken: deque[Image]) -> Iterator[Path | bytes]:
    """The pictures as encoders take them, themselves noted down on the way."""
    for image in images:
        taken.append(image)
        yield as_item(image)
