"""Databases in object stores (`s3://bucket/…`): their files as paths, and writes on condition.

Lance reads and writes its tables there by itself. What lies beside them goes through here, with the
same settings: the environment (`AWS_ENDPOINT`, `AWS_ACCESS_KEY_ID`, …), where
`use_storage_options` puts what a program brings.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from asif_lance.errors import InputError, StorageError

#: What a store says of the state of an object; a later write may ask that it is still that one.
Mark = Mapping[str, str]

#: How addresses of objects begin.
SCHEMES = ("s3", "gs", "az")
# How the names of settings begin in the environment, by scheme.
_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}


def is_remote(uri: str | Path) -> bool:
    """Whether an address is one of an object store."""
    return "://" in str(uri)


def use_storage_options(uri: str | Path, options: Mapping[str, str] | None) -> None:
    """Has this process, and those that it starts, reach an object store with these settings.

    Args:
        uri: the database; options for a folder are refused.
        options: as Lance takes them: `endpoint`, `region`, `aws_access_key_id`, `allow_http`, …

    Raises:
        InputError: the database is a folder.
    """
    if not options:
        return
    prefix = _PREFIXES.get(str(uri).partition("://")[0])
    if prefix is None:
        raise InputError(f"storage options are for object stores ({', '.join(SCHEMES)})")
    for name, value in options.items():
        key = name.upper()
        os.environ[key if key.startswith(prefix) else prefix + key] = str(value)
    open_store.cache_clear()


def open_path(uri: str | Path) -> Path:
    """A database's place: a folder's path, or one that reads and lists objects in the same way.

    Raises:
        StorageError: it is in an object store, and what reads these is not installed.
    """
    if not isinstance(uri, str):
        return uri
    if not is_remote(uri):
        return Path(uri)
    _register()
    from upath import UPath

    return cast("Path", UPath(uri))


@lru_cache(maxsize=1)
def _register() -> None:
    """Has fsspec reach object stores through the same library as Lance."""
    try:
        import upath  # noqa: F401 - extras
        from obstore.fsspec import register
    except ImportError as error:
        raise StorageError(
            f"object stores need {error.name}: pip install 'asif-lance[s3]'"
        ) from error
    for scheme in SCHEMES:
        register(scheme)


@contextmanager
def fetch_file(path: Path) -> Iterator[Path]:
    """A file as one on this machine, under its own name; a copy while it is used, if remote.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="asif-lance-") as folder:
        copy = Path(folder, path.name)
        with path.open("rb") as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield copy


def list_sizes(root: Path, below: str = "") -> dict[str, int]:
    """The files under a place and their sizes, by their names within `root`; one request if remote.

    Args:
        root: the place.
        below: only what is in this folder of it.
    """
    if not is_remote(root):
        return dict(_list_folder(root, below))
    import obstore

    with _store_errors(root):
        listed = obstore.list(open_store(str(root)), prefix=below or None)
        return {one["path"]: int(one["size"]) for batch in listed for one in batch}


def is_there(path: Path) -> bool:
    """Whether there is a file; an error of the store is no answer.

    Raises:
        StorageError: the store refused.
    """
    if not is_remote(path):
        return path.exists()
    import obstore

    with _store_errors(path), suppress(FileNotFoundError):
        obstore.head(open_store(str(path.parent)), path.name)
        return True
    return False


def _list_folder(root: Path, below: str) -> Iterator[tuple[str, int]]:
    for path in (root / below).rglob("*"):
        with suppress(FileNotFoundError):  # somebody took it away meanwhile
            status = path.stat()
            if stat.S_ISREG(status.st_mode):
                yield path.relative_to(root).as_posix(), status.st_size


def remove_folder(path: Path) -> None:
    """Removes a folder with all that is in it; the objects under a prefix, if remote."""
    if not is_remote(path):
        shutil.rmtree(path)
        return
    remove_objects(str(path), list(list_sizes(path)))


def remove_objects(uri: str, names: Sequence[str]) -> None:
    """Removes objects, in this order as far as the store takes many at once."""
    import obstore

    with _store_errors(uri):
        obstore.delete(open_store(uri), names)


def read_range(uri: str, name: str, begin: int, size: int) -> bytes:
    """Some bytes of an object.

    Raises:
        StorageError: it is not there, or the store refused.
    """
    import obstore

    with _store_errors(uri):
        return bytes(obstore.get_range(open_store(uri), name, start=begin, length=size))


def read_marked(uri: str, name: str) -> tuple[bytes, Mark] | None:
    """An object and the mark of its state; None if it is not there."""
    import obstore

    with _store_errors(uri):
        try:
            found = obstore.get(open_store(uri), name)
        except FileNotFoundError:
            return None
        return bytes(found.bytes()), _make_mark(found.meta)


def create_object(uri: str, name: str, data: bytes) -> Mark | None:
    """Makes an object if there is none of this name; its mark, or None if there is."""
    return _put(uri, name, data, "create")


def replace_object(uri: str, name: str, data: bytes, mark: Mark) -> Mark | None:
    """Replaces an object in the state of this mark; its new mark, or None if it is in another."""
    return _put(uri, name, data, mark)


def remove_object(uri: str, name: str) -> None:
    """Removes an object, if it is there."""
    import obstore

    with _store_errors(uri):
        obstore.delete(open_store(uri), name)


def _put(uri: str, name: str, data: bytes, mode: Any) -> Mark | None:
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    with _store_errors(uri):
        try:
            done = obstore.put(open_store(uri), name, data, mode=mode)
        except (AlreadyExistsError, PreconditionError):
            # The answer to a first try may have got lost: then this is what was just written.
            found = read_marked(uri, name)
            return found[1] if found and found[0] == data else None
        return _make_mark(done)


def _make_mark(found: Any) -> Mark:
    return {key: found[key] for key in ("e_tag", "version") if found[key] is not None}


@lru_cache(maxsize=16)
def open_store(uri: str) -> Any:
    """The store of a bucket, or of a folder in it.

    Raises:
        StorageError: what reads it is not installed.
    """
    _register()
    from obstore.store import from_url

    return from_url(uri)


def is_store_error(error: BaseException) -> bool:
    """Whether an object store refused; such an error is of no common class."""
    return type(error).__module__.startswith("obstore")


def explain_refusal(error: BaseException) -> str:
    """What a store refused, in one line; what follows is for those who debug its client."""
    return " ".join(str(error).partition("Debug source:")[0].split())


@contextmanager
def _store_errors(uri: str | Path) -> Iterator[None]:
    """What the store refuses, in one line.

    Raises:
        StorageError: it did.
    """
    _register()
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        raise StorageError(f"{uri}: {explain_refusal(error)}") from error
