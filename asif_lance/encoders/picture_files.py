"""Pictures given as paths, folders or bytes: which files they are, their names, their vectors."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from asif_lance.encoders.decoding import SUFFIXES, UNSUPPORTED_SUFFIXES
from asif_lance.encoders.protocols import ImageEncoder, ImageItem
from asif_lance.encoders.streaming import encode_images
from asif_lance.errors import ImageError, printable
from asif_lance.object_files import is_object, list_objects
from asif_lance.progress import note
from asif_lance.records import Float32Array, Reject


@dataclass(frozen=True, slots=True)
class HeldPicture:
    """A picture that a program holds.

    Attributes:
        name: what results call it.
        read: gives its encoded bytes or its pixels, or raises ImageError.
    """

    name: str
    read: Callable[[], bytes | Image.Image]


#: A picture that is not decoded yet, and the same as users may name it.
PictureSource = Path | bytes
ImageFile = str | PictureSource | HeldPicture

_SUFFIXES = tuple(SUFFIXES)

# Folders of thumbnails and leftovers that programs make unasked, beside those with a dot.
_JUNK_FOLDERS = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information"})


@dataclass
class LeftOut:
    """What a walk through folders has passed over.

    Attributes:
        files: pictures with hidden names.
        folders: hidden folders, and those of leftovers.
        again: folders that were reached before in another way.
    """

    files: int = 0
    folders: int = 0
    again: int = 0

    def __str__(self) -> str:
        counts = (
            (self.files, "hidden file", ""),
            (self.folders, "hidden folder", ""),
            (self.again, "folder", " reached a second time"),
        )
        told = [f"{n:,} {what}{'s' * (n > 1)}{how}" for n, what, how in counts if n]
        return " and ".join(filter(None, (", ".join(told[:-1]), *told[-1:])))


def walk_pictures(
    folder: Path, refuse: Callable[[Path, str], object], left_out: LeftOut | None = None
) -> Iterator[Path]:
    """Pictures in a folder and below it, by name.

    Hidden files and folders are left out, and folders of leftovers that programs make unasked.
    Linked folders are followed, after the real ones; a folder that is reached in several ways
    counts once.

    Args:
        folder: where to begin.
        refuse: is called with each path below it that cannot be used, and why: folders that cannot
            be read, pictures of kinds that are not supported.
        left_out: counts what is left out; `tell_left_out` says it.
    """
    left_out = LeftOut() if left_out is None else left_out
    for file in walk_files(folder, refuse, left_out):
        suffix = file.suffix.lower()
        if file.name.startswith("."):
            left_out.files += suffix in SUFFIXES | UNSUPPORTED_SUFFIXES
        elif suffix in SUFFIXES:
            yield file
        elif suffix in UNSUPPORTED_SUFFIXES:
            refuse(file, f"{suffix} pictures are not supported")


def tell_left_out(folder: ImageFile, left_out: LeftOut) -> None:
    """Say once what a walk has passed over, if it was anything."""
    if told := str(left_out):
        note(f"{picture_name(folder)}: left out {told}")


def is_picture_name(name: str) -> bool:
    """Whether a file of this name is a picture that may be read."""
    return not name.startswith(".") and name.lower().endswith(_SUFFIXES)


def walk_files(
    folder: Path, refuse: Callable[[Path, str], object], left_out: LeftOut
) -> Iterator[Path]:
    """All files in folders that `walk_pictures` goes through, hidden ones too."""
    if is_object(folder):
        yield from _walk_objects(folder, left_out)
        return

    def refuse_folder(error: OSError) -> None:
        refuse(Path(error.filename), f"unreadable folder ({error.strerror})")

    seen: set[tuple[int, int]] = set()
    waiting = deque([folder])
    while waiting:
        for here, folders, files in os.walk(waiting.popleft(), onerror=refuse_folder):
            identity = _identity(Path(here))
            if identity in seen:
                left_out.again += 1
                folders.clear()
                continue
            seen.add(identity)
            left_out.folders += sum(not _is_visible_folder(name) for name in folders)
            inside = [Path(here, name) for name in sorted(folders) if _is_visible_folder(name)]
            waiting += [path for path in inside if path.is_symlink()]
            folders[:] = [path.name for path in inside if not path.is_symlink()]
            for path in (Path(here, name) for name in sorted(files)):
                if _is_broken_link(path):
                    refuse(path, "link to nothing")
                else:
                    yield path


def _walk_objects(folder: Path, left_out: LeftOut) -> Iterator[Path]:
    """The same of objects under a prefix, in the order that files of a folder have."""
    hidden: set[tuple[str, ...]] = set()
    for name in sorted(list_objects(folder), key=_place_in_walk):
        folders = name.split("/")[:-1]
        out = (depth for depth, one in enumerate(folders, 1) if not _is_visible_folder(one))
        if depth := next(out, 0):
            hidden.add(tuple(folders[:depth]))
        else:
            yield folder / name
    left_out.folders += len(hidden)


def _place_in_walk(name: str) -> list[tuple[bool, str]]:
    """A folder's files come before the folders in it."""
    *folders, file = name.split("/")
    return [*((True, one) for one in folders), (False, file)]


def _is_broken_link(path: Path) -> bool:
    """Whether a name that may be a folder's leads nowhere; a picture's is told when it is read."""
    may_be_folder = not path.suffix and not path.name.startswith(".")
    return may_be_folder and path.is_symlink() and not path.exists()


def _is_visible_folder(name: str) -> bool:
    return not name.startswith(".") and name not in _JUNK_FOLDERS


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def to_image_item(image: ImageFile) -> ImageItem:
    """A picture as encoders take it."""
    if isinstance(image, HeldPicture):
        return image.read
    return Path(image) if isinstance(image, str) else image


def picture_name(image: ImageFile) -> str:
    """What results call a picture."""
    if isinstance(image, HeldPicture):
        return printable(image.name)
    return "<bytes>" if isinstance(image, bytes) else printable(str(image))


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
    """Put the pictures of each folder in its place, by name; see `walk_pictures`.

    Raises:
        ImageError: a folder holds no picture, or something that cannot be used, and there are no
            `rejects`.
    """
    for image in images:
        # `Path.is_dir` fails where a name is too long or may not be looked at.
        if not isinstance(image, str | Path) or not os.path.isdir(image):  # noqa: PTH112
            yield image
            continue

        def refuse(path: Path, reason: str) -> None:
            reject_picture(path, ImageError(reason), rejects)

        left_out = LeftOut()
        found = sorted(walk_pictures(Path(image), refuse, left_out))
        tell_left_out(image, left_out)
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


def _read_into(pending: deque[ImageFile], images: Iterable[ImageFile]) -> Iterator[ImageItem]:
    """The pictures as encoders take them, each added to `pending` when it is read."""
    for image in images:
        pending.append(image)
        yield to_image_item(image)
