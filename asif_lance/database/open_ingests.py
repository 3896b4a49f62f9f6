"""Ingests that several processes share, as far as they are: a folder each in the database's own.

A folder is there from when the ingest is planned until its version is published, and every file in
it is written once, whole, by whoever comes first. Files of rows that such an ingest has written,
and no version names yet, are spared by upkeep meanwhile. Forgetting removes all of it. Recordings
of predictions that several processes share are kept here in the same way.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from asif_lance.database.registry import INGESTS
from asif_lance.object_stores import (
    create_object,
    is_remote,
    list_sizes,
    open_path,
    remove_folder,
)

#: How the names of files begin that name files of rows, see `list_fragment_files`.
ROWS_PREFIX = "rows-"
#: What an ingest is; one without it is not open.
PLAN_FILE = "plan.json"
_DONE = ".done"


def ingest_folder(uri: str, ingest_id: str) -> Path:
    """Where an open ingest has its files."""
    return open_path(uri) / INGESTS / ingest_id


def list_open_ingests(uri: str) -> list[Path]:
    """The folders of open ingests, by name."""
    folder = open_path(uri) / INGESTS
    if is_remote(uri):
        names = list_sizes(folder)
        return [folder / name for name in sorted({name.partition("/")[0] for name in names})]
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix != _DONE)


def put_if_absent(path: Path, write: Callable[[Path], object]) -> bool:
    """Makes a file that is there as a whole or not at all; says whether it is this one.

    Args:
        path: of the file, in a folder that is there, or an object's.
        write: makes it at another path.

    Raises:
        FileNotFoundError: the folder is gone.
    """
    remote = is_remote(path)
    with tempfile.TemporaryDirectory(
        prefix=".draft-", dir=None if remote else path.parent
    ) as place:
        draft = Path(place, path.name)
        write(draft)
        if remote:
            return create_object(str(path.parent), path.name, draft.read_bytes()) is not None
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        return True


def close_ingest(folder: Path) -> None:
    """Removes the folder of an ingest that is done; killed half-way, it is closed all the same.

    Of objects the plan goes first, without which the others are nothing.
    """
    if is_remote(folder):
        for name in sorted(list_sizes(folder), key=lambda name: name != PLAN_FILE):
            (folder / name).unlink(missing_ok=True)
        return
    done = folder.with_suffix(_DONE)
    with contextlib.suppress(FileNotFoundError):
        folder.rename(done)
    for left in folder.parent.glob(f"*{_DONE}"):
        shutil.rmtree(left, ignore_errors=True)


def drop_open_ingests(uri: str) -> int:
    """Removes all open ingests and what closed ones left; returns how many files there were."""
    folder = open_path(uri) / INGESTS
    count = len(list_sizes(folder))
    if is_remote(uri) or folder.is_dir():
        remove_folder(folder)
    return count


def spare_fragments(uri: str, table: str) -> bool:
    """Keeps the files of a table that open ingests name from upkeep; says whether there may be any.

    Lance takes a file that no version names for one that is being written, up to seven days of
    age, unless it is told otherwise; so what open ingests name is made young.
    """
    folders, root = list_open_ingests(uri), Path(uri)
    for name in (name for folder in folders for name in _list_files(folder, table)):
        with contextlib.suppress(FileNotFoundError):
            os.utime(root / f"{table}.lance" / "data" / name)
    return bool(folders)


def list_fragment_files(fragments: list[dict[str, Any]]) -> Iterator[str]:
    """The names of the data files of fragments, as Lance writes these as JSON."""
    return (file["path"] for fragment in fragments for file in fragment["files"])


def _list_files(folder: Path, table: str) -> Iterator[str]:
    for path in folder.glob(f"{ROWS_PREFIX}*.json"):
        with contextlib.suppress(FileNotFoundError):
            yield from list_fragment_files(
                json.loads(path.read_bytes())["fragments"].get(table, [])
            )
