"""Tar archives, plain or gzipped, read once from beginning to end; nothing is unpacked to disk.

Damage is told, where `tarfile` takes a bad header for the end. A header is small, a member is read
only when it is asked for, and what is compressed must not grow a hundredfold: pictures do not.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from asif_lance.encoders.decoding import MAX_BYTES
from asif_lance.errors import ImageError, SourceError, printable
from asif_lance.object_files import open_file

GZIP = b"\x1f\x8b"

# What reading a damaged archive raises.
_DAMAGE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, RecursionError)

_LONGEST_HEADER = 2**20
_SKIPPED_AT_ONCE = 2**20

# A compressed archive may grow by so much.
MAX_GROWTH, MAX_GROWN_BYTES = 100, 256 * 2**20


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path there.
        size: bytes that it has, as the archive says.
        offset: where they begin in the archive, unzipped.
        fault: why it is not read; None if it may be.
        read: its bytes; to be called before the next member is asked for. Raises ImageError if it
            is too large or cut off.
    """

    name: str
    size: int
    offset: int
    fault: str | None
    read: Callable[[], bytes]


def looks_like_tar(head: bytes) -> bool:
    """Whether a file that begins so is a tar archive, plain or gzipped."""
    if head.startswith(GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, tarfile.BLOCKSIZE)
        except zlib.error:
            return False
    try:
        tarfile.TarInfo.frombuf(head[: tarfile.BLOCKSIZE], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def read_tar(path: Path) -> Iterator[Member]:
    """The files of an archive in order; folders are passed over.

    Raises:
        SourceError: while iterating, where the archive is damaged or cut off.
    """
    try:
        with open_file(path) as file:
            stream = _Forward(file, os.fstat(file.fileno()).st_size)
            archive = tarfile.TarFile(
                fileobj=stream,  # type: ignore[arg-type]  # it reads, seeks and tells
                tarinfo=_StrictInfo,
                encoding="utf-8",
            )
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # they would pile up
                if not info.isdir():
                    yield _as_member(info, stream)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SourceError(f"{_reason(error)}; what follows is not read") from error


def unsafe_name(name: str) -> str | None:
    """Why a member's name is not used, None if it is: names lead to no place outside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        return "its name leads out of the archive"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return None


def _as_member(info: tarfile.TarInfo, stream: _Forward) -> Member:
    fault = unsafe_name(info.name)
    if info.issym() or info.islnk():
        fault = "a link"
    elif not info.isfile() or info.issparse():
        fault = "a sparse file" if info.issparse() else "a device or a pipe"

    def read() -> bytes:
        if info.size > MAX_BYTES:
            raise ImageError(f"file too large (over {MAX_BYTES >> 20} MiB)")
        try:
            stream.seek(info.offset_data)
            content = stream.take(info.size)
        except _DAMAGE as error:
            raise ImageError(_reason(error)) from error
        if len(content) < info.size:
            raise ImageError("cut off: the archive ends in it")
        return content

    return Member(info.name, info.size, info.offset_data, fault, read)


def _reason(error: BaseException) -> str:
    if isinstance(error, EOFError):
        return "the archive is cut off"
    text = printable((str(error).splitlines() or [type(error).__name__])[0])
    return f"damaged archive ({text})"


class _StrictInfo(tarfile.TarInfo):
    """A header; where there should be one, and is none, reading ends with an error."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> _StrictInfo:
        """The next header.

        Raises:
            tarfile.ReadError, EOFError: there is none, and no mark of the archive's end either.
        """
        try:
            return super().fromtarfile(tarfile_)
        except (tarfile.EOFHeaderError, tarfile.SubsequentHeaderError):  # type: ignore[attr-defined]
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            if tarfile_.offset == 0:
                raise tarfile.ReadError("no tar header at its beginning") from error
            raise EOFError from error
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {tarfile_.offset:,}") from error


class _Forward:
    """A file's content, unzipped where it is gzipped; it only goes forward."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._zipped = file.read(len(GZIP)) == GZIP
        file.seek(0)
        self._stream: BinaryIO = gzip.GzipFile(fileobj=file) if self._zipped else file  # type: ignore[assignment]
        self._at = self._next = 0
        self._allowed = max(MAX_GROWN_BYTES, MAX_GROWTH * size)

    def tell(self) -> int:
        """Where reading goes on."""
        return self._next

    def seek(self, place: int, whence: int = 0) -> int:
        """Go on at a place further down.

        Raises:
            tarfile.ReadError: it is not further down.
        """
        if place < self._at or whence:
            raise tarfile.ReadError("a header leads back")
        self._next = place
        return place

    def read(self, count: int = -1) -> bytes:
        """Bytes of a header.

        Raises:
            tarfile.ReadError: they are too many for one.
        """
        if not 0 <= count <= _LONGEST_HEADER:
            raise tarfile.ReadError("a header of enormous size")
        return self.take(count)

    def take(self, count: int) -> bytes:
        """At most so many bytes from the place that was sought.

        Raises:
            tarfile.ReadError: a compressed archive grows too much.
        """
        if not self._zipped:
            self._stream.seek(self._next)
            self._at = self._next
        while self._at < self._next:
            skipped = len(self._stream.read(min(self._next - self._at, _SKIPPED_AT_ONCE)))
            if not skipped:
                return b""
            self._move(skipped)
        content = self._stream.read(count)
        self._move(len(content))
        self._next = self._at
        return content

    def _move(self, count: int) -> None:
        self._at += count
        if self._zipped and self._at > self._allowed:
            raise tarfile.ReadError(f"it would grow to more than {self._allowed:,} bytes")
