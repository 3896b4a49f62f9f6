"""Tar archives of samples, as webdataset and img2dataset write them.

A sample is some consecutive members that have one name up to the first dot: a picture, and its
caption as text, in JSON, or as the name of a class.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from asif_lance.encoders import Member, is_picture_name, read_tar
from asif_lance.errors import ImageError, SourceError, printable
from asif_lance.ingest.batches import Entry, UnusableFieldError, archive_uri, batch_entries
from asif_lance.ingest.columns import ColumnNames, SourceBatch, sniff_columns
from asif_lance.ingest.folder_reader import MAX_CAPTION_FILE
from asif_lance.ingest.manifest_rows import Manifest
from asif_lance.object_files import open_file
from asif_lance.records import Reject

# Further members of a sample are passed over; there may be any number of them.
_TEXTS = ("txt", "text", "caption", "cls", "json")

_PICTURE = "picture"  # what the picture is called among a sample's fields


def read_webdataset(
    path: Path, batch_size: int | None, known: ColumnNames
) -> Iterator[SourceBatch]:
    """A pair of each sample; the image is remembered as `ARCHIVE#MEMBER`.

    The JSON that img2dataset writes beside an archive says how many pictures it should hold: if
    others were read, that is told.
    """
    return batch_entries(_entries(path, printable(str(path)), known), batch_size)


@dataclass(slots=True)
class _Sample:
    """What was read of a sample so far.

    Attributes:
        key: the name that its members share.
        picture: the name of its picture in the archive, if one was there.
        content: that picture.
        kinds: of its members, what follows the key.
        fields: its texts by kind, those of JSON by their own names.
        fault: why one of its members cannot be used; None if all can.
    """

    key: str
    picture: str | None = None
    content: bytes = b""
    kinds: set[str] = field(default_factory=set)
    fields: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


def _entries(path: Path, name: str, known: ColumnNames) -> Iterator[Entry]:
    pictures, place = 0, archive_uri(path)
    sample: _Sample | None = None
    try:
        for member in read_tar(path):
            key, kind = _split(member.name)
            if member.fault is not None:
                yield Reject(name, printable(member.name), member.fault)
                continue
            if sample is None or key != sample.key:
                if sample is not None:
                    yield from _pairs_of(place, name, sample, known)
                sample = _Sample(key)
            pictures += _add(sample, member, kind)
        damage = None
    except SourceError as error:
        damage = str(error)
    if sample is not None:
        yield from _pairs_of(place, name, sample, known)
    if damage is not None:
        yield Reject(name, printable(path.name), damage)
    if (told := _compare_with_stats(path, pictures)) is not None:
        yield Reject(name, printable(path.name), told)


def _split(member: str) -> tuple[str, str]:
    """A member's name up to the first dot of its last part, and what follows that dot."""
    path = PurePosixPath(member)
    stem, _, kind = path.name.partition(".")
    return str(path.with_name(stem)) if stem else member, kind.lower()


def _add(sample: _Sample, member: Member, kind: str) -> bool:
    """Read a member into its sample; True if it is the sample's picture, and whole."""
    is_picture = is_picture_name(member.name)
    if not is_picture and kind not in _TEXTS:
        return False
    what = _PICTURE if is_picture else kind
    if what in sample.kinds:
        sample.fault = sample.fault or f"a second {what} in one sample"
        return False
    sample.kinds.add(what)
    try:
        if is_picture:
            sample.picture = member.name
            sample.content = member.read()
        else:
            _add_text(sample.fields, kind, member)
    except (ImageError, UnusableFieldError) as error:
        sample.fault = sample.fault or (str(error) if is_picture else f"{kind}: {error}")
        return False
    return is_picture


def _add_text(fields: dict[str, Any], kind: str, member: Member) -> None:
    if member.size > MAX_CAPTION_FILE:
        raise UnusableFieldError(f"too large (over {MAX_CAPTION_FILE >> 20} MiB)")
    try:
        text = member.read().decode("utf-8-sig")
        if kind != "json":
            fields[kind] = text.strip()
            return
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise UnusableFieldError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise UnusableFieldError("malformed JSON") from error
    if not isinstance(value, dict):
        raise UnusableFieldError("not a JSON object")
    for key, inner in value.items():
        fields.setdefault(key, inner)


def _pairs_of(archive: str, name: str, sample: _Sample, known: ColumnNames) -> Iterator[Entry]:
    if sample.picture is None:
        if sample.kinds:
            yield Reject(name, printable(sample.key), "no picture in this sample")
        return
    item = printable(sample.picture)
    if sample.fault is not None:
        yield Reject(name, item, sample.fault)
        return
    try:
        columns = sniff_columns(name, [_PICTURE, *sample.fields], _with_picture(known))
    except SourceError:
        yield Reject(name, item, f"no {known.text} in this sample")
        return
    uri = f"{archive}#{sample.picture}"
    place = {"image_path": None, "image_bytes": sample.content, "image_uri": uri}
    for entry in Manifest(name, columns, known).entries(item, sample.fields):
        yield entry | place if isinstance(entry, dict) else entry


def _with_picture(known: ColumnNames) -> ColumnNames:
    """The names that fields of samples may have; a text of its own goes before what JSON says."""
    texts = known.caption
    if "caption" not in known.required:
        texts = ("txt", *texts, "cls") if "txt" in texts else (*texts, "cls")
    required = tuple(role for role in known.required if role != "image")
    return replace(known, caption=texts, image=(_PICTURE,), required=required)


def _compare_with_stats(path: Path, pictures: int) -> str | None:
    """What the downloader's figures beside an archive say against what was read, if anything."""
    stats = path.with_name(f"{path.name.partition('.')[0]}_stats.json")
    try:
        with open_file(stats) as stream:
            found = json.loads(stream.read(MAX_CAPTION_FILE))
    except (OSError, ValueError, RecursionError):
        return None
    expected = found.get("successes") if isinstance(found, dict) else None
    if not isinstance(expected, int) or expected == pictures:
        return None
    return f"{stats.name} counts {expected:,} pictures, {pictures:,} were read"
