"""Cache files in the database's directory: they save time, and lost ones are made again.

Those that refer to rows of data files by place are not written once a data file is gone, and
forgetting removes all of them. Their names carry the epoch, see `read_epoch`: what a writer who was
overtaken puts into an object store after a forget is never read, and goes with the next one that is
kept, or with the next upkeep. Each kind has a budget: the least recently used go first.
"""

from __future__ import annotations

import contextlib
import io
import os
import zipfile
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asif_lance.database.epoch import check_epoch, read_epoch
from asif_lance.database.lock import WriteLock
from asif_lance.database.migrate import check_still_migrated
from asif_lance.database.registry import DISTANCES, LABEL_SETS, PROMPT_VECTORS
from asif_lance.errors import DatabaseError
from asif_lance.object_stores import is_remote, list_sizes, open_path, read_marked

#: Bytes that the files of one kind may occupy together, and how many there may be.
BYTES_KEPT, FILES_KEPT = 2**30, 256
_KINDS = (LABEL_SETS, DISTANCES, PROMPT_VECTORS)
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)


def load_cache(
    uri: str, directory: str, name: str, columns: Iterable[str]
) -> dict[str, NDArray[Any]] | None:
    """The arrays cached under a name, by column; None if they are not there or cannot be read."""
    with contextlib.suppress(DatabaseError, *_UNREADABLE):
        path = open_path(uri) / directory / _name_file(name, read_epoch(uri))
        kept = _read_object(path) if is_remote(path) else path
        with np.load(kept, allow_pickle=False) as file:
            found = {column: file[column] for column in columns}
        if not is_remote(path):  # of objects the last written ones stay
            with contextlib.suppress(OSError):
                os.utime(path)  # for `_drop_least_used`
        return found
    return None


def _read_object(path: Path) -> io.BytesIO:
    """What is in an object; a file that is empty if it is not there, which is no cache."""
    found = read_marked(str(path.parent), path.name)
    return io.BytesIO(found[0] if found else b"")


def save_cache(
    uri: str,
    directory: str,
    name: str,
    arrays: Mapping[str, NDArray[Any]],
    files: Iterable[str],
    *,
    since: int,
) -> None:
    """Caches arrays, unless somebody else is writing or the database cannot be written.

    Nor if something was forgotten since they were made, or the database became a newer one.

    Args:
        uri: the database.
        directory: `LABEL_SETS`, `DISTANCES` or `PROMPT_VECTORS`.
        name: under which `load_cache` finds them.
        arrays: by column.
        files: names of the data files that they refer to.
        since: the epoch before anything that they were made of was read.
    """
    home, lock = open_path(uri), WriteLock(uri, timeout=0.0)
    if sum(array.nbytes for array in arrays.values()) > BYTES_KEPT:
        return
    with contextlib.suppress(OSError, DatabaseError), lock.hold(f"classify ({directory})"):
        check_still_migrated(uri)
        check_epoch(uri, since)
        if not files_exist(uri, files):
            return  # compacted meanwhile
        (home / directory).mkdir(exist_ok=True)
        _write_whole(home / directory / _name_file(name, since), arrays)
        _drop_old(home / directory, since)
        _drop_least_used(home / directory)


def _name_file(name: str, epoch: int) -> str:
    return f"{name}.{epoch}.npz"


def drop_old_caches(uri: str) -> int:
    """Removes files from before the last forget; returns how many bytes they had."""
    epoch = read_epoch(uri)
    return sum(_drop_old(open_path(uri) / directory, epoch) for directory in _KINDS)


def _drop_old(directory: Path, epoch: int) -> int:
    old = [path for path in directory.glob("*") if not path.name.endswith(_name_file("", epoch))]
    freed = sum(path.stat().st_size for path in old)
    for path in old:
        path.unlink(missing_ok=True)
    return freed


def _drop_least_used(directory: Path) -> None:
    """Removes what the budget has no room for."""
    files = [(path, path.stat()) for path in directory.glob("*.npz")]
    files.sort(key=lambda file: file[1].st_mtime, reverse=True)
    sizes = accumulate(status.st_size for _, status in files)
    for place, ((path, _), size) in enumerate(zip(files, sizes, strict=True)):
        if place >= FILES_KEPT or size > BYTES_KEPT:
            path.unlink(missing_ok=True)


def _write_whole(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes a file that is there as a whole or not at all."""
    if is_remote(path):
        content = io.BytesIO()
        np.savez(content, allow_pickle=False, **arrays)
        path.write_bytes(content.getvalue())
        return
    part = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def files_exist(uri: str, files: Iterable[str]) -> bool:
    """Whether a database has all of these data files."""
    home = open_path(uri)
    if is_remote(uri):
        there = list_sizes(home, "pairs.lance/data")
        return all(f"pairs.lance/data/{file}" in there for file in files)
    return all((home / "pairs.lance/data" / file).exists() for file in files)


def drop_caches(uri: str, directory: str) -> int:
    """Removes all files of one kind; returns how many there were."""
    files = list((open_path(uri) / directory).glob("*"))
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)
