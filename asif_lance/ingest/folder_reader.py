"""A folder of pictures with captions beside them, as batches."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

from asif_lance.encoders import LeftOut, tell_left_out, walk_pictures
from asif_lance.errors import format_count, printable
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    as_json,
    as_text,
    batch_entries,
    read_entry,
)
from asif_lance.ingest.columns import ColumnNames, SourceBatch
from asif_lance.object_files import is_object, list_folder, read_object, resolve
from asif_lance.progress import note
from asif_lance.records import Reject

MAX_CAPTION_FILE = 4 * 2**20


# What may hold the captions of pictures that have none beside them.
_MANIFESTS = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".token", ".tar", ".zip")
_ARCHIVES = (".tar", ".tgz", ".zip", ".parquet")
_SHOWN_MANIFESTS = 3
_NO_CAPTION = "no caption file"
_FURTHER_LINES = "further lines"
# Debian's stamps: `pt_BR.utf8=Um sino.`
_TRANSLATION = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?(@\w+)?\.utf8=")


def read_folder(
    path: Path, batch_size: int | None, known: ColumnNames, span: tuple[int, int] | None = None
) -> Iterator[SourceBatch]:
    """Pictures, at any depth, with the caption in the `.txt` of the same name: its first line.

    Further lines are kept in the attributes, and told. With `span`, from one of the pictures up to
    another, without it; what else is in the folder goes with the first.
    """
    if span is None:
        return batch_entries(_folder_entries(path), batch_size)
    return batch_entries(_some_entries(path, *span), batch_size)


def read_pictures(
    folder: Path, files: Iterable[Path], batch_size: int | None
) -> Iterator[SourceBatch]:
    """The same of pictures that were named one by one, and the folder that they are all in."""
    entries = (_entry_of(printable(str(folder)), folder, file) for file in files)
    return batch_entries(entries, batch_size)


def _folder_entries(path: Path) -> Iterator[Entry]:
    source, root, refused = printable(str(path)), resolve(path), list[Reject]()

    def refuse(file: Path, reason: str) -> None:
        refused.append(Reject(source, printable(str(file.relative_to(root))), reason))

    left_out, with_caption, without, further = LeftOut(), 0, 0, 0
    for file in walk_pictures(root, refuse, left_out):
        entry = _entry_of(source, root, file)
        without += isinstance(entry, Reject) and entry.reason.startswith(_NO_CAPTION)
        with_caption += isinstance(entry, dict)
        further += isinstance(entry, dict) and f'"{_FURTHER_LINES}": ' in entry["attributes"]
        yield entry
    tell_left_out(path, left_out)
    if further:
        files = format_count(further, "caption file")
        note(
            f"{source}: {files} with several lines: the first is the caption, the others are kept "
            f"in the attribute {_FURTHER_LINES}"
        )
    if with_caption and (archives := _find_archives(root)):
        shown = ", ".join(printable(file.name) for file in archives)
        note(f"{source}: not read, since pictures with captions lie beside: {shown}")
    if without and not with_caption and (manifests := _find_manifests(root)):
        shown = ", ".join(printable(str(file)) for file in manifests)
        note(f"{source}: no picture has a caption beside it; to read them from a file: {shown}")
    yield from refused


def _some_entries(path: Path, begin: int, end: int) -> Iterator[Entry]:
    source, root, refused = printable(str(path)), resolve(path), list[Reject]()

    def refuse(file: Path, reason: str) -> None:
        refused.append(Reject(source, printable(str(file.relative_to(root))), reason))

    for place, file in enumerate(walk_pictures(root, refuse)):
        if begin <= place < end:
            yield _entry_of(source, root, file)
        elif begin and place >= end:
            return  # while the first goes on, to know all that is refused
    if not begin:
        yield from refused


def _find_archives(root: Path) -> list[Path]:
    """Files in a folder that would be read if there were no pictures."""
    _, files = list_folder(root)
    found = [file for file in files if file.suffix.lower() in _ARCHIVES]
    return found[:_SHOWN_MANIFESTS]


def _find_manifests(root: Path) -> list[Path]:
    """Files in a folder, or else beside it, that may hold its pictures' captions."""
    for place in (root, root.parent):
        try:
            _, files = list_folder(place)
        except OSError:  # beside a folder that may be read, one may lie that may not
            continue
        shown = [file for file in files if not file.name.startswith(".")]
        found = [file for file in shown if file.suffix.lower() in _MANIFESTS]
        # Beside the folder may be anything: only what mentions captions or the folder counts.
        if place != root:
            found = [f for f in found if "caption" in f.name.lower() or f.stem == root.name]
        if found:
            return found[:_SHOWN_MANIFESTS]
    return []


def _entry_of(source: str, root: Path, file: Path) -> Entry:
    item = printable(str(file.relative_to(root)))
    return read_entry(source, item, _picture_entry, root, file)


def _picture_entry(root: Path, picture: Path) -> dict[str, Any]:
    image_path = as_text(str(picture), "file name")
    inside = PurePosixPath(str(picture.relative_to(root)))
    row = picture_row(inside, _read_caption(picture))
    return row | {"image_path": image_path}


def picture_row(inside: PurePath, lines: list[str]) -> dict[str, Any]:
    """What is known of a picture by its caption file, and where it is in its folder or archive."""
    further = {_FURTHER_LINES: lines[1:]} if len(lines) > 1 else {}
    attributes = as_json({"folder": inside.parent.as_posix()} | further)
    return {"caption": lines[0] if lines else "", "attributes": attributes}


def _read_caption(picture: Path) -> list[str]:
    """The lines of a picture's caption file, whose ending may be in capitals as the picture's."""
    for suffix in (".txt", ".TXT"):
        with suppress(FileNotFoundError):
            return _read_lines(picture.with_suffix(suffix))
    missing = printable(picture.with_suffix(".txt").name)
    raise UnusableFieldError(f"{_NO_CAPTION} ({missing})")


def _read_lines(file: Path) -> list[str]:
    try:
        if is_object(file):
            content = read_object(file, MAX_CAPTION_FILE)
            return caption_of(lambda: content or b"", MAX_CAPTION_FILE + (content is None))
        found = file.stat()
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise UnusableFieldError("unreadable caption file (a device or a pipe)")
        return caption_of(file.read_bytes, found.st_size)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnusableFieldError(f"unreadable caption file ({error.strerror})") from error


def caption_of(read: Callable[[], bytes], size: int) -> list[str]:
    """The lines of a caption file that are not empty; of translations, as stamps have them, none.

    Raises:
        UnusableFieldError: it is too large, or not UTF-8.
    """
    if size > MAX_CAPTION_FILE:
        raise UnusableFieldError(f"caption file too large (over {MAX_CAPTION_FILE >> 20} MiB)")
    try:
        lines = read().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UnusableFieldError("caption is not UTF-8") from error
    return [line for line in lines if line.strip() and not _TRANSLATION.match(line)]
