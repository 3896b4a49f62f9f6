"""A folder of pictures with captions beside them, as batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asif_lance.encoders import SUFFIXES, walk_files
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    as_json,
    as_text,
    batch_entries,
    printable_path,
    read_entry,
)
from asif_lance.ingest.columns import SourceBatch
from asif_lance.records import Reject

# Pictures that people have in folders and that cannot be read: they become rejects.
OTHER_SUFFIXES = frozenset({".svg", ".heic", ".heif", ".psd", ".eps", ".jxl", ".dng"})
MAX_CAPTION_FILE = 4 * 2**20


def read_folder(path: Path, batch_size: int) -> Iterator[SourceBatch]:
    """Pictures, at any depth, with the caption in the `.txt` of the same name.

    The caption is the first line that is not empty (Debian's stamps have translations below).
    """
    return batch_entries(_folder_entries(path), batch_size)


def _folder_entries(path: Path) -> Iterator[Entry]:
    source, failed = printable_path(path), list[OSError]()
    root = path.resolve()
    for file in walk_files(root, failed.append):
        if file.suffix.lower() in SUFFIXES | OTHER_SUFFIXES:
            yield read_entry(
                source, printable_path(file.relative_to(root)), _picture_entry, root, file
            )
    for error in failed:
        item = printable_path(Path(error.filename))
        yield Reject(source, item, f"unreadable folder ({error.strerror})")


def _picture_entry(root: Path, picture: Path) -> dict[str, Any]:
    if picture.suffix.lower() in OTHER_SUFFIXES:
        raise UnusableFieldError(f"{picture.suffix.lower()} pictures are not supported")
    folder = picture.parent.relative_to(root).as_posix()
    return {
        "caption": _read_caption(picture.with_suffix(".txt")),
        "image_path": as_text(str(picture), "file name"),
        "attributes": as_json({"folder": folder}),
    }


def _read_caption(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_CAPTION_FILE:
            raise UnusableFieldError(f"caption file too large (over {MAX_CAPTION_FILE >> 20} MiB)")
        lines = file.read_bytes().decode("utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UnusableFieldError(f"no caption file ({printable_path(Path(file.name))})") from error
    except OSError as error:
        raise UnusableFieldError(f"unreadable caption file ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UnusableFieldError("caption is not UTF-8") from error
    return next((line for line in lines if line.strip()), "")
