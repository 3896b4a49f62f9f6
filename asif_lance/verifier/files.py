"""The files of a database: which there are, what a receipt says of them, how they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lance.file import LanceFileReader

from asif_lance.errors import is_panic
from asif_lance.object_stores import is_remote, list_sizes

#: Endings of the files that Lance writes for rows and for indices.
LANCE = {".lance", ".idx"}
_ARROW = {".arrow", ".feather"}
_LANCE_MAGIC, _PARQUET_MAGIC, _ARROW_MAGIC = b"LANC", b"PAR1", b"ARROW1"


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file that was searched.

    Attributes:
        path: within the database, with `/`.
        bytes: its size.
        sha256: of its bytes.
    """

    path: str
    bytes: int
    sha256: str


def name_surface(path: str) -> str:
    """Which part of a database a file belongs to: a table, its indices, a folder of caches."""
    parts = path.split("/")
    if "_indices" in parts:
        return "search indices"
    return parts[0].removesuffix(".lance") if len(parts) > 1 else "other files"


def list_files(
    root: Path,
    ignore: Iterable[str] = (),
    unread: list[Path] | None = None,
    folders: list[Path] | None = None,
) -> list[Path]:
    """All files below a directory, those behind links too, each directory once.

    Args:
        root: the directory.
        ignore: names at its top that are left out.
        unread: gets what cannot be read: folders, links that lead nowhere, pipes.
        folders: gets the directories themselves, empty ones too.
    """
    skipped = {root / name for name in ignore}
    if is_remote(root):  # there are no folders, and nothing but files
        return sorted({root / name for name in list_sizes(root)} - skipped)
    files: list[Path] = []
    missed: list[Path] = [] if unread is None else unread
    # Links are followed last: what lies in the directory itself goes by its own name.
    waiting: list[Path] = [root]
    seen: set[str] = set()

    def miss(error: OSError) -> None:
        missed.append(Path(error.filename))

    for start in waiting:
        for folder, below, names in os.walk(start, onerror=miss):
            real = os.path.realpath(folder)
            if real in seen:
                below.clear()
                continue
            seen.add(real)
            inside = [Path(folder, name) for name in below]
            waiting += [path for path in inside if path.is_symlink()]
            if folders is not None:
                folders += inside
            paths = [Path(folder, name) for name in names]
            files += [path for path in paths if path.is_file()]
            missed += [p for p in paths if os.path.lexists(p) and not p.is_file()]
    return sorted(set(files) - skipped)


def record_file(name: str, path: Path) -> FileRecord:
    """What a receipt says of a file that was read, of this name within the database."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return FileRecord(name, file.tell(), digest)


def find_format(path: Path) -> str | None:
    """Which kind of table a file is, whatever it is called; None if it is none."""
    with path.open("rb") as file:
        start, size = file.read(len(_ARROW_MAGIC)), file.seek(0, os.SEEK_END)
        file.seek(max(size - len(_LANCE_MAGIC), 0))
        end = file.read()
    if path.suffix in LANCE or (end == _LANCE_MAGIC and path.suffix != ".manifest"):
        return "lance"
    if path.suffix == ".parquet" or (start[:4] == _PARQUET_MAGIC == end):
        return "parquet"
    return "arrow" if path.suffix in _ARROW or start == _ARROW_MAGIC else None


def open_lance(path: Path) -> LanceFileReader:
    """Opens a file that Lance wrote.

    Raises:
        OSError: it is none, or cut off.
    """
    with path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - len(_LANCE_MAGIC), 0))
        if file.read() != _LANCE_MAGIC:
            raise OSError(f"{path}: not a whole file of Lance")
    with panics_as_errors():
        return LanceFileReader(str(path))


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Lance reads files, and damaged ones may make it panic, which is no `Exception`.

    Raises:
        OSError: it did.
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise OSError(" ".join(str(error).split())) from error
