"""Files of sources, in folders or in object stores: told apart, listed and opened alike.

An object is read in the state that it was in when it was opened, or not at all. What a store
refuses is an OSError, as what a disk refuses.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote

from asif_lance.errors import SourceError
from asif_lance.object_stores import SCHEMES, explain_refusal, open_path, open_store

_BUFFER_BYTES = 2**20


def is_object(location: object) -> bool:
    """Whether something is the address of an object, or of those under a prefix."""
    scheme, mark, _ = str(location).partition("://")
    return bool(mark) and scheme in SCHEMES


def open_place(location: str | Path) -> Path:
    """The place that a user names; an address as a path that stands for an object or a prefix.

    Raises:
        SourceError: the address names no bucket.
        StorageError: what reads objects is not installed.
    """
    if is_object(location):
        address = str(location).rstrip("/")
        if not is_object(address):
            raise SourceError(f"{address}// names no bucket")
        return open_path(address)
    return Path(location).expanduser()


def resolve(path: Path) -> Path:
    """A path without links in it; objects have none."""
    return path if is_object(path) else path.resolve()


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or objects under a prefix, and no object of its name.

    Raises:
        OSError: the store refused.
    """
    if not is_object(path):  # `Path.is_dir` fails where a name is too long or may not be looked at
        return os.path.isdir(path)  # noqa: PTH112
    if exists(path):
        return False
    import obstore

    with _as_os_error(path):
        store, key = _locate(path)
        return any(len(batch) for batch in obstore.list(store, prefix=key or None, chunk_size=1))


def exists(path: Path) -> bool:
    """Whether there is a file or an object of this name; a link counts wherever it leads.

    Raises:
        OSError: the store refused.
    """
    if not is_object(path):
        return os.path.lexists(path)
    import obstore

    try:
        with _as_os_error(path):
            store, key = _locate(path)
            return bool(key) and obstore.head(store, key) is not None
    except FileNotFoundError:
        return False


def list_folder(path: Path) -> tuple[list[Path], list[Path]]:
    """The folders right in a place, and the files, by name.

    Raises:
        OSError: it cannot be listed.
    """
    if not is_object(path):
        with os.scandir(path) as found:
            children = sorted(found, key=lambda child: child.name)
        folders = [path / child.name for child in children if child.is_dir()]
        return folders, [path / child.name for child in children if child.is_file()]
    import obstore

    with _as_os_error(path):
        store, key = _locate(path)
        listed = obstore.list_with_delimiter(store, prefix=key or None)
    files = [one["path"] for one in listed["objects"] if one["path"] != key]
    return _children(path, listed["common_prefixes"]), _children(path, files)


def _children(path: Path, keys: list[str]) -> list[Path]:
    return [path / key.rpartition("/")[2] for key in sorted(keys)]


def list_objects(path: Path) -> dict[str, str]:
    """All objects under a prefix: their states by their names within it, see `describe_state`.

    Raises:
        OSError: the store refused.
    """
    import obstore

    with _as_os_error(path):
        store, key = _locate(path)
        begin = len(key) + 1 if key else 0
        listed = obstore.list(store, prefix=key or None)
        return {
            one["path"][begin:]: _as_state(one)
            for batch in listed
            for one in batch
            if one["path"] != key
        }


def describe_state(path: Path) -> str:
    """What changes when an object, or any of those under a prefix, changes; "" for a folder's.

    Raises:
        OSError: it is not there, or the store refused.
    """
    if not is_object(path):
        return ""
    if is_folder(path):
        listed = sorted(list_objects(path).items())
        return hashlib.sha256(repr(listed).encode()).hexdigest()
    import obstore

    with _as_os_error(path):
        return _as_state(obstore.head(*_locate(path)))


def _as_state(found: Any) -> str:
    mark = str(found["e_tag"]).strip('"')  # with quotes or without, as a store likes
    return f"{found['size']} {mark}"


def open_file(path: Path, **text: Any) -> Any:
    """A file to be read from its beginning to its end; of an object, a copy that closing removes.

    Args:
        path: where it is.
        text: as `Path.open` takes it, where it is text.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if not is_object(path):
        return path.open("r" if text else "rb", **text)
    import obstore

    copy = tempfile.TemporaryFile(prefix="asif-lance-")  # noqa: SIM115 - the caller closes it
    try:
        with _as_os_error(path):
            store, key = _locate(path)
            for chunk in obstore.get(store, key).stream():
                copy.write(chunk)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return io.TextIOWrapper(copy, **text) if text else copy


def read_object(path: Path, most: int) -> bytes | None:
    """The bytes of an object; None if it is larger than may be.

    Raises:
        OSError: it is not there, or the store refused.
    """
    import obstore

    with _as_os_error(path):
        store, key = _locate(path)
        found = obstore.get(store, key)
        return bytes(found.bytes()) if found.meta["size"] <= most else None


def lance_address(path: Path) -> str:
    """A table as Lance takes it, which reads an address as a URL does."""
    if not is_object(path):
        return str(path)
    scheme, _, rest = str(path).partition("://")
    return f"{scheme}://{quote(rest)}"


class PinnedFile:
    """A file that is read by ranges; an object only as long as it stays what it was.

    Attributes:
        size: in bytes.
    """

    def __init__(self, path: Path) -> None:
        """Look at a file.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        self._path, self._mark = path, ""
        if not is_object(path):
            self.size = path.stat().st_size
            return
        import obstore

        with _as_os_error(path):
            found = obstore.head(*_locate(path))
        self.size, self._mark = int(found["size"]), str(found["e_tag"])

    def open(self) -> BinaryIO:
        """Open it to be read.

        Raises:
            OSError: it cannot be read; as does reading, also where it has changed.
        """
        if not is_object(self._path):
            return self._path.open("rb")
        ranges = _Ranges(self._path, self.size, self._mark)
        return cast("BinaryIO", io.BufferedReader(ranges, _BUFFER_BYTES))


class _Ranges(io.RawIOBase):
    """An object in the state of an etag, read by ranges."""

    def __init__(self, path: Path, size: int, mark: str) -> None:
        self._path, self._size, self._mark, self._at = path, size, mark, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        import obstore

        asked = {"range": (self._at, self._at + count), "if_match": self._mark}
        with _as_os_error(self._path):
            data = obstore.get(*_locate(self._path), options=asked).bytes()
        buffer[: len(data)] = memoryview(data)
        self._at += len(data)
        return len(data)


def _locate(path: Path) -> tuple[Any, str]:
    """The store of an object, and what the object is called there."""
    scheme, _, rest = str(path).partition("://")
    bucket, _, key = rest.partition("/")
    return open_store(f"{scheme}://{bucket}"), key.rstrip("/")


@contextmanager
def _as_os_error(path: Path) -> Iterator[None]:
    """What a store refuses, as what a disk refuses.

    Raises:
        OSError: it did, or it has no such name.
    """
    from obstore.exceptions import BaseError, PreconditionError

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from error
    except PreconditionError as error:
        raise OSError(errno.EIO, "changed while it was read", str(path)) from error
    except BaseError as error:
        raise OSError(errno.EIO, explain_refusal(error), str(path)) from error
    except ValueError as error:  # a name with `..` or an empty part
        raise FileNotFoundError(errno.ENOENT, explain_refusal(error), str(path)) from error
