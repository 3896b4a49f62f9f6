"""Vectors of databases in object stores, read once and kept in files on this machine.

One file holds a column of one data file. Lance writes data files once and names them by chance, so
the name stands for the content, and a file serves every version. All together keep to a limit: the
least recently used go first. A forget removes what its data files had, here at once, and on other
machines when they next open the database: it then has another epoch.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

import platformdirs

from asif_lance.errors import InputError, StorageError
from asif_lance.object_stores import is_remote, list_sizes, open_path

#: Names another folder for the cache, and another limit of its bytes.
FOLDER_VARIABLE, LIMIT_VARIABLE = "ASIF_LANCE_CACHE", "ASIF_LANCE_CACHE_BYTES"
_LIMIT = 2**35
_SWEEPS = 16
# Of this process, since it last looked at the others; it looks when it begins.
_fetched = {"bytes": _LIMIT}
_SUFFIX = ".vectors"
_EPOCH_FILE = "epoch"


def fetch_vectors(uri: str, name: str, column: str, size: int, read: Callable[[], bytes]) -> Path:
    """A file on this machine with a column of a data file, fetched if it is not there.

    Args:
        uri: the database.
        name: of the data file.
        column: of vectors.
        size: bytes of its rows, one after the other.
        read: reads these bytes.

    Raises:
        StorageError: the store or the disk refused.
    """
    path = _find_folder(uri) / f"{name}.{column}{_SUFFIX}"
    with contextlib.suppress(OSError):
        if path.stat().st_size == size:
            os.utime(path)  # for `_drop_least_used`
            return path
    content = read()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(size)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
            draft.write(content)
        Path(draft.name).replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot keep vectors in {path.parent}: {error.strerror}; {FOLDER_VARIABLE} names "
            "another folder"
        ) from error
    return path


def drop_stale_vectors(uri: str, epoch: int) -> int:
    """Removes files of data files that are gone, once after each forget; returns how many."""
    if not is_remote(uri):  # as of most that are opened: their files are mapped where they are
        return 0
    folder = _find_folder(uri)
    if not folder.is_dir():
        return 0
    known = folder / _EPOCH_FILE
    with contextlib.suppress(OSError, ValueError):
        if int(known.read_text()) == epoch:
            return 0
    count = drop_gone_vectors(uri)
    known.write_text(str(epoch))
    return count


def drop_gone_vectors(uri: str) -> int:
    """Removes files of data files that the database has not any more; returns how many."""
    folder = _find_folder(uri)
    if not is_remote(uri) or not folder.is_dir():
        return 0
    there = {name.rpartition("/")[2] for name in list_sizes(open_path(uri), "pairs.lance/data")}
    found = (path for path in folder.iterdir() if path.name != _EPOCH_FILE)
    gone = [path for path in found if _data_file(path) not in there]
    for path in gone:
        path.unlink(missing_ok=True)
    return len(gone)


def _data_file(path: Path) -> str:
    return path.name.removesuffix(_SUFFIX).rpartition(".")[0]


def _find_home() -> Path:
    named = os.environ.get(FOLDER_VARIABLE) or platformdirs.user_cache_dir("asif-lance")
    return Path(named) / "vectors"


def _find_folder(uri: str) -> Path:
    """One for each database: the same address may lead elsewhere by another endpoint."""
    place = f"{uri} {os.environ.get('AWS_ENDPOINT') or os.environ.get('AWS_ENDPOINT_URL') or ''}"
    return _find_home() / hashlib.sha256(place.encode()).hexdigest()[:32]


def _read_limit() -> int:
    told = os.environ.get(LIMIT_VARIABLE)
    if told is None:
        return _LIMIT
    if not told.isdecimal():
        raise InputError(f"{LIMIT_VARIABLE} must be a number of bytes, got {told!r}")
    return int(told)


def _make_room(size: int) -> None:
    """Makes room for a file; looks at the others once for each sixteenth of the limit.

    What a process has mapped stays readable for it.
    """
    share = _read_limit() // _SWEEPS
    _fetched["bytes"] += size
    if _fetched["bytes"] > share:
        _drop_least_used(_read_limit() - share - size)
        _fetched["bytes"] = 0


def _drop_least_used(kept: int) -> None:
    files = []
    for path in _find_home().glob(f"*/*{_SUFFIX}"):
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            status = path.stat()
            files.append((status.st_mtime_ns, status.st_size, path))
    files.sort(reverse=True)
    sizes = accumulate(size for _, size, _ in files)
    for (_, _, path), together in zip(files, sizes, strict=True):
        if together > kept:
            path.unlink(missing_ok=True)
