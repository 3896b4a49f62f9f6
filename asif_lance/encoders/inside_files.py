"""Pictures inside archives, read again by what a database remembers of them."""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from pathlib import Path

from asif_lance.encoders.decoding import MAX_BYTES, read_bytes
from asif_lance.encoders.tar_files import GZIP, read_tar
from asif_lance.encoders.zip_files import open_zip, read_zipped
from asif_lance.errors import ImageError, SourceError
from asif_lance.object_files import is_object

# Members of tars whose places are remembered, for several pictures of one page.
_REMEMBERED_TARS, _REMEMBERED_MEMBERS = 4, 200_000


def read_picture(uri: str) -> bytes:
    """The bytes of a picture by its `image_uri`: a file, or `ARCHIVE#MEMBER`.

    Raises:
        ImageError: it is not there any more, or cannot be read.
    """
    if is_object(uri):  # a row that names any object must not bring what is in it
        raise ImageError("in an object store, from which pictures are not read again")
    file, mark, inside = uri.rpartition("#")
    archive = Path(file)
    if mark and (archive / "_versions").is_dir():
        raise ImageError("in a Lance table, from which pictures are not read again")
    try:
        if not mark or Path(uri).exists() or not archive.is_file():
            return read_bytes(Path(uri))
        with archive.open("rb") as stream:
            head = stream.read(4)
        if head == b"PAR1":
            raise ImageError("in a Parquet file, from which pictures are not read again")
        if head == b"PK\x03\x04":
            with open_zip(archive) as zipped:
                return read_zipped(zipped, zipped.getinfo(inside))
        if head.startswith(GZIP):
            return next(m.read() for m in read_tar(archive) if m.name == inside)
        return _read_member(archive, inside)
    except (OSError, KeyError, ValueError, StopIteration, SourceError) as error:
        raise ImageError("missing file") from error


def _read_member(archive: Path, name: str) -> bytes:
    found = archive.stat()
    offset, size = _places(archive, found.st_mtime_ns, found.st_size)[name]
    if size > MAX_BYTES:
        raise ImageError(f"file too large (over {MAX_BYTES >> 20} MiB)")
    with archive.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


@lru_cache(maxsize=_REMEMBERED_TARS)
def _places(archive: Path, changed: int, size: int) -> dict[str, tuple[int, int]]:
    """Where each member begins in a plain tar archive, and its size; the first of each name."""
    places: dict[str, tuple[int, int]] = {}
    try:
        for member in islice(read_tar(archive), _REMEMBERED_MEMBERS):
            if member.fault is None:
                places.setdefault(member.name, (member.offset, member.size))
    except SourceError:  # what comes before the damage is there
        pass
    return places
