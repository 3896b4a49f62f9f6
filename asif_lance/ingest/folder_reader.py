"""A folder of pictures with captions beside them, as batches."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asif_lance.encoders import LeftOut, tell_left_out, walk_pictures
from asif_lance.errors import printable
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    as_json,
    as_text,
    batch_entries,
    read_entry,
)
from asif_lance.ingest.columns import ColumnNames, SourceBatch
from asif_lance.records import Reject

MAX_CAPTION_FILE = 4 * 2**20


def read_folder(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """Pictures, at any depth, with the caption in the `.txt` of the same name.

    The caption is the first line that is not empty (Debian's stamps have translations below).
    """
    return batch_entries(_folder_entries(path), batch_size)


def _folder_entries(path: Path) -> Iterator[Entry]:
    source, root, refused = printable(str(path)), path.resolve(), list[Reject]()

    def item_of(file: Path) -> str:
        return printable(str(file.relative_to(root)))

    def refuse(file: Path, reason: str) -> None:
        refused.append(Reject(source, item_of(file), reason))

    left_out = LeftOut()
    for file in walk_pictures(root, refuse, left_out):
        yield read_entry(source, item_of(file), _picture_entry, root, file)
    tell_left_out(path, left_out)
    yield from refused


def _picture_entry(root: Path, picture: Path) -> dict[str, Any]:
    image_path = as_text(str(picture), "file name")
    folder = picture.parent.relative_to(root).as_posix()
    return {
        "caption": _read_caption(picture.with_suffix(".txt")),
        "image_path": image_path,
        "attributes": as_json({"folder": folder}),
    }


def _read_caption(file: Path) -> str:
    try:
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise UnusableFieldError("unreadable caption file (a device or a pipe)")
        if found.st_size > MAX_CAPTION_FILE:
            raise UnusableFieldError(f"caption file too large (over {MAX_CAPTION_FILE >> 20} MiB)")
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UnusableFieldError(f"no caption file ({printable(file.name)})") from error
    except OSError as error:
        raise UnusableFieldError(f"unreadable caption file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UnusableFieldError("caption is not UTF-8") from error
    return next((line for line in lines if line.strip()), "")
