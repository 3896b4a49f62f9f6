"""ZIP archives: pictures with captions in `.txt` beside them, or with a manifest inside."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import polars as pl

from asif_lance.encoders import (
    PIECE_BYTES,
    ZIP_DAMAGE,
    Member,
    is_picture_name,
    open_zip,
    zip_members,
)
from asif_lance.errors import ImageError, SourceError, printable
from asif_lance.ingest.batches import (
    Entry,
    UnusableFieldError,
    archive_uri,
    batch_entries,
    read_entry,
)
from asif_lance.ingest.columns import REMOTE, ColumnNames, SourceBatch
from asif_lance.ingest.csv_reader import read_csv
from asif_lance.ingest.folder_reader import caption_of, picture_row
from asif_lance.ingest.json_reader import read_json, read_jsonl
from asif_lance.records import Reject

_READERS = {".csv": read_csv, ".tsv": read_csv, ".jsonl": read_jsonl, ".json": read_json}


def looks_like_zip(head: bytes) -> bool:
    """Whether a file that begins so is a ZIP archive, and no workbook."""
    if b"[Content_Types].xml" in head[:4096]:
        return False
    return head.startswith((b"PK\x03\x04", b"PK\x05\x06"))


def read_zip(path: Path, batch_size: int | None, known: ColumnNames) -> Iterator[SourceBatch]:
    """The pictures of an archive, remembered as `ARCHIVE#MEMBER`.

    A manifest (the only file of its kind in the archive) is read where no picture has a `.txt`.
    """
    name = printable(str(path))
    with _open(path, name) as archive:
        members = list(zip_members(archive))
        by_name = {member.name: member for member in members if member.fault is None}
        pictures = [member for member in members if _is_shown(member.name)]
        manifests = [n for n in by_name if PurePosixPath(n).suffix.lower() in _READERS]
        if any(_text_name(member.name) in by_name for member in pictures) or not manifests:
            entries = (_entry_of(name, path, member, by_name) for member in pictures)
            yield from batch_entries(entries, batch_size)
        elif len(manifests) > 1:
            raise SourceError(f"{name} holds several manifests: {', '.join(sorted(manifests))}")
        else:
            yield from _read_manifest(archive, path, manifests[0], batch_size, known)


def _open(path: Path, name: str) -> zipfile.ZipFile:
    try:
        return open_zip(path)
    except SourceError as error:
        raise SourceError(f"{name}: {error}") from error


def _is_shown(member: str) -> bool:
    parts = PurePosixPath(member).parts
    hidden = any(part == "__MACOSX" or part.startswith(".") for part in parts if part != "..")
    return not hidden and is_picture_name(parts[-1] if parts else "")


def _text_name(picture: str) -> str:
    return str(PurePosixPath(picture).with_suffix(".txt"))


def _entry_of(source: str, path: Path, member: Member, by_name: dict[str, Member]) -> Entry:
    item = printable(member.name)
    if member.fault is not None:
        return Reject(source, item, member.fault)
    text = by_name.get(_text_name(member.name))
    try:
        return read_entry(source, item, _picture_in, path, member, text)
    except ImageError as error:
        return Reject(source, item, error.reason)


def _picture_in(path: Path, member: Member, text: Member | None) -> dict[str, object]:
    inside = PurePosixPath(member.name)
    if text is None:
        raise UnusableFieldError(f"no caption file ({printable(inside.stem)}.txt)")
    row = picture_row(inside, caption_of(text.read, text.size))
    return row | {"image_bytes": member.read(), "image_uri": f"{archive_uri(path)}#{member.name}"}


def _read_manifest(
    archive: zipfile.ZipFile, path: Path, manifest: str, batch_size: int | None, known: ColumnNames
) -> Iterator[SourceBatch]:
    """The rows of a manifest in the archive, with the pictures that they name."""
    name, inside = printable(str(path)), zipfile.Path(archive, manifest)
    try:
        with archive.open(manifest) as stream:  # damage shows at the end, when rows are out
            while stream.read(PIECE_BYTES):
                pass
    except ZIP_DAMAGE as error:
        reason = f"{printable(manifest)} is damaged in the archive ({printable(str(error))})"
        raise SourceError(f"{name}: {reason}") from error
    read = _READERS[PurePosixPath(manifest).suffix.lower()]
    pictures = _Pictures(zip_members(archive), archive_uri(path), PurePosixPath(manifest), name)
    for batch in read(inside, batch_size, known):  # type: ignore[arg-type]  # it opens as a path does
        rejects = [Reject(pictures.source, r.item, r.reason) for r in batch.rejects]
        yield from pictures.put_into(SourceBatch(batch.frame, rejects))


class _Pictures:
    """The pictures of an archive, by the names that a manifest inside may give them."""

    def __init__(
        self, members: Iterable[Member], archive: str, manifest: PurePosixPath, source: str
    ) -> None:
        self.source = source
        self._archive, self._last = archive, ("", b"")
        pictures: dict[PurePosixPath, Member] = {}
        by_name: dict[str, list[Member]] = {}
        for member in members:
            path = PurePosixPath(member.name)
            if is_picture_name(path.name) and path not in pictures:
                pictures[path] = member
                by_name.setdefault(path.name, []).append(member)
        # By the path from the manifest, or else by name alone where only one has it.
        self._found = {name: only[0] for name, only in by_name.items() if len(only) == 1}
        for path, member in pictures.items():
            if path.is_relative_to(manifest.parent):
                self._found[str(path.relative_to(manifest.parent))] = member

    def put_into(self, batch: SourceBatch) -> Iterator[SourceBatch]:
        """The batch with pictures instead of their paths, in parts that fit into memory."""
        rejects, size = list(batch.rejects), 0
        rows: list[tuple[int, bytes | None, str | None]] = []
        columns = batch.frame.select("item", "image_path", "image_uri")
        for at, (item, given, uri) in enumerate(columns.iter_rows()):
            content, where = None, uri or given
            try:
                if given and not re.match(REMOTE, given):
                    content, where = self._read(given)
            except ImageError as error:
                rejects.append(Reject(self.source, item, error.reason))
                continue
            rows.append((at, content, where))
            size += len(content or b"")
            if size > PIECE_BYTES:
                yield SourceBatch(_with_pictures(batch.frame, rows), rejects)
                rejects, rows, size = [], [], 0
        yield SourceBatch(_with_pictures(batch.frame, rows), rejects)

    def _read(self, given: str) -> tuple[bytes, str]:
        member = self._found.get(str(PurePosixPath(given)))
        if member is None:
            raise ImageError(f"missing in the archive ({printable(given)})")
        if member.fault is not None:
            raise ImageError(member.fault)
        if member.name != self._last[0]:  # a picture's captions follow one another
            self._last = member.name, member.read()
        return self._last[1], f"{self._archive}#{member.name}"


def _with_pictures(
    frame: pl.DataFrame, rows: list[tuple[int, bytes | None, str | None]]
) -> pl.DataFrame:
    """Rows of a frame by position, with their pictures and what these are called."""
    return frame[[at for at, _, _ in rows]].with_columns(
        image_path=pl.lit(None, pl.String),
        image_bytes=pl.Series([content for _, content, _ in rows], dtype=pl.Binary),
        image_uri=pl.Series([uri for _, _, uri in rows], dtype=pl.String),
    )
