"""What is kept of compiled label sets: files in the database's directory that hold no content.

A file names rows of fragments and similarities, and is a cache: lost or unreadable ones are made
again. `forget` removes them all.
"""

from __future__ import annotations

import contextlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asif_lance.errors import DatabaseError
from asif_lance.locks import WriteLock
from asif_lance.tables import local_path

DIRECTORY = "label_sets"

_FILES = 32  # the newest that stay
_READABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile)

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Kept:
    """The neighbors of t prompts in one state of the table.

    Attributes:
        state: as `Anchors.state`.
        rows: rows of each fragment.
        dead: positions of deleted rows.
        indices: (t, w) int64 positions, best first.
        similarities: (t, w) float32.
        complete: (t,) int64: so many of the first neighbors are the best of all.
    """

    state: tuple[str, ...]
    rows: Longs
    dead: Longs
    indices: Longs
    similarities: NDArray[np.float32]
    complete: Longs

    def save(self, path: Path) -> None:
        """Write a file that is there as a whole or not at all."""
        part = path.with_suffix(f".{os.getpid()}.tmp")
        columns = {name: getattr(self, name) for name in _COLUMNS}
        try:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, state=np.array(self.state), **columns)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @staticmethod
    def load(path: Path) -> Kept:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return Kept(tuple(file["state"].tolist()), *(file[name] for name in _COLUMNS))


_COLUMNS = ("rows", "dead", "indices", "similarities", "complete")


def load(uri: str, name: str) -> Kept | None:
    """What is kept of a label set, if it is there and can be read."""
    home = local_path(uri)
    with contextlib.suppress(*_READABLE):
        return None if home is None else Kept.load(home / DIRECTORY / f"{name}.npz")
    return None


def keep(uri: str, name: str, found: Kept) -> None:
    """Write it down if nobody else is writing; a database that cannot be written keeps nothing."""
    home, lock = local_path(uri), WriteLock(uri, timeout=0.0)
    if home is None:
        return
    with contextlib.suppress(OSError, DatabaseError), lock.hold("classify (label set)"):
        if not all(_exists(home, key) for key in found.state):
            return  # forgotten meanwhile
        directory = home / DIRECTORY
        directory.mkdir(exist_ok=True)
        found.save(directory / f"{name}.npz")
        by_age = sorted(directory.glob("*.npz"), key=lambda path: path.stat().st_mtime)
        for path in by_age[:-_FILES]:
            path.unlink(missing_ok=True)


def _exists(home: Path, key: str) -> bool:
    files = key.split("|")[1:-1]
    return all((home / "pairs.lance" / "data" / file).exists() for file in files)


def drop_all(uri: str) -> int:
    """Remove what is kept of all label sets."""
    home = local_path(uri)
    files = [] if home is None else list((home / DIRECTORY).glob("*"))
    for path in files:
        path.unlink(missing_ok=True)
    return len(files)
