"""What is open in a database: an ingest or a recording that several processes share.

It has a folder of its own, in which every file is put once, by whoever comes first. A file there
has the name of what will be committed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from asif_lance.database import PLAN_FILE, ingest_folder, list_fragment_files, put_if_absent
from asif_lance.errors import DatabaseError
from asif_lance.object_stores import is_remote, is_there, remove_folder
from asif_lance.store import PairStore

#: How the ids of recordings begin; those of ingests are hexadecimal alone.
RECORDING_PREFIX = "recording-"
#: Digits of an id.
ID_LENGTH = 16

_LOCK_SECONDS = 600.0  # many workers take turns

Write = Callable[[Path], object]

#: Fragments that were written apart, as Lance writes them as JSON, by table.
Fragments = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class OpenWork:
    """What several processes share.

    Attributes:
        uri: the database.
        ingest_id: names it while it is open.
        commit_id: names what it commits; another one each time that it is planned.
        epoch: of the database when it was planned; what was read before a forget is void.
    """

    uri: str
    ingest_id: str
    commit_id: str
    epoch: int
    kind: ClassVar[str] = "ingest"

    @property
    def folder(self) -> Path:
        """Where its files are while it is open."""
        return ingest_folder(self.uri, self.ingest_id)

    def open_store(self) -> PairStore:
        """The database, whose lock many may wait for."""
        return replace(PairStore.open(self.uri), lock_timeout=_LOCK_SECONDS)

    def writing(self, *, current: bool = True) -> AbstractContextManager[None]:
        """Holds the write lock.

        Args:
            current: only if no pair was forgotten since it was planned.
        """
        since, beside = self.epoch if current else None, self.kind != "ingest"
        return self.open_store().writing(self.kind, since=since, beside=beside)

    def check_open(self) -> None:
        """Passes while it is open.

        Raises:
            DatabaseError: it was committed or abandoned, or pairs were forgotten.
        """
        if not (is_there(self.folder / PLAN_FILE) and is_there(self.folder / self.commit_id)):
            raise DatabaseError(
                f"{self.uri}: {self.kind} {self.ingest_id} is not open any more, since another "
                "driver finished it or pairs were forgotten: run it again to see what is left to do"
            )

    def put(self, name: str, write: Write) -> bool:
        """Writes a file of it if that is not there yet; says whether this was the first.

        Raises:
            DatabaseError: it is not open any more.
            StaleModelError: pairs were forgotten since it was planned.
        """
        with self.writing():
            self.check_open()
            return put_if_absent(self.folder / name, write)

    def list_paths(self, fragments: Fragments) -> list[Path]:
        """Where the files of fragments are."""
        root = self.folder.parents[1]
        return [
            root / f"{table}.lance" / "data" / name
            for table, own in fragments.items()
            for name in list_fragment_files(own)
        ]

    def remove_files(self, fragments: Fragments) -> None:
        """Removes the files of fragments that no state of their table names."""
        for path in self.list_paths(fragments):
            path.unlink(missing_ok=True)


def begin_work(
    store: PairStore,
    ingest_id: str,
    plan: dict[str, Any],
    files: dict[str, Write] | None = None,
) -> None:
    """Opens it, unless it is open.

    Args:
        store: the database.
        ingest_id: names it.
        plan: goes into its plan as JSON, with the epoch at which it was made.
        files: what else it begins with, by name.

    Raises:
        StaleModelError: pairs were forgotten since that epoch.
    """
    folder = ingest_folder(store.uri, ingest_id)
    beside = ingest_id.startswith(RECORDING_PREFIX)
    with store.writing("ingest", since=plan["epoch"], beside=beside):
        if is_remote(folder) and not is_there(folder / PLAN_FILE):
            remove_folder(folder)  # what one left that was killed while it was closed
        elif not is_remote(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for name, write in (files or {}).items():
            put_if_absent(folder / name, write)
        put_if_absent(folder / PLAN_FILE, lambda path: path.write_text(json.dumps(plan)))
        # Planned anew after its end it has the same id: workers of then are not to write here.
        commit_id = read_plan(store.uri, ingest_id)["commit_id"]
        put_if_absent(folder / commit_id, lambda path: path.touch())


def read_plan(uri: str, ingest_id: str) -> dict[str, Any]:
    """The plan of what is open.

    Raises:
        DatabaseError: nothing of this id is.
    """
    try:
        found: dict[str, Any] = json.loads((ingest_folder(uri, ingest_id) / PLAN_FILE).read_bytes())
    except FileNotFoundError as error:
        raise DatabaseError(f"{uri}: no ingest {ingest_id} is open") from error
    return found
