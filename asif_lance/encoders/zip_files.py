"""ZIP archives, read member by member; nothing is unpacked to disk."""

from __future__ import annotations

import os
import stat
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from asif_lance.encoders.decoding import MAX_BYTES
from asif_lance.encoders.tar_files import (
    MAX_GROWN_BYTES,
    MAX_GROWTH,
    Member,
    unsafe_name,
)
from asif_lance.errors import ImageError, SourceError, printable
from asif_lance.object_files import is_object, open_file

# What reading a damaged archive raises; an encrypted one is a RuntimeError.
ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)

# Each takes memory before anything of it is read.
_MAX_MEMBERS = 5_000_000


class _Archive(zipfile.ZipFile):
    """An archive that closes its file."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file = file
        super().__init__(file)
        self.filename = name

    def close(self) -> None:
        super().close()
        self.file.close()


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open an archive.

    Raises:
        SourceError: its list of members is damaged, or claims what cannot be.
    """
    try:
        archive = _Archive(open_file(path), path.name if is_object(path) else str(path))
    except ZIP_DAMAGE as error:
        raise SourceError(f"damaged archive ({printable(str(error))})") from error
    members = archive.infolist()
    grown, allowed = (
        sum(m.file_size for m in members),
        MAX_GROWTH * os.fstat(archive.file.fileno()).st_size,
    )
    if len(members) > _MAX_MEMBERS:
        raise SourceError(f"the archive has {len(members):,} members")
    if grown > max(MAX_GROWN_BYTES, allowed):
        raise SourceError(f"the archive would grow to {grown:,} bytes")
    return archive


def zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    """Its files by name; of two with one name, the second has a fault."""
    seen: set[str] = set()
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        if info.is_dir():
            continue
        fault = unsafe_name(info.filename)
        if stat.S_ISLNK(info.external_attr >> 16):
            fault = "a link"
        elif info.flag_bits & 1:
            fault = "encrypted"
        elif info.filename in seen:
            fault = "a second member of this name"
        seen.add(info.filename)
        read = partial(read_zipped, archive, info)
        yield Member(info.filename, info.file_size, info.header_offset, fault, read)


def read_zipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member.

    Raises:
        ImageError: it is too large or damaged.
    """
    if info.file_size > MAX_BYTES:
        raise ImageError(f"file too large (over {MAX_BYTES >> 20} MiB)")
    try:
        with archive.open(info) as stream:
            return stream.read()
    except ZIP_DAMAGE as error:
        raise ImageError(f"damaged in the archive ({printable(str(error))})") from error
