"""The journal of a purge under way: what is to be forgotten, and which steps are done.

It lies in the database's directory from before the first change until the receipt is stored, and
names the pairs in clear, for a killed purge has to be finished by whoever opens the database next.
Each line is one JSON object; a line that a kill cut short is the last one and does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from asif_lance.database import local_path
from asif_lance.errors import CorruptDatabaseError
from asif_lance.verifier import CONTENT_FILE, JOURNAL_FILE

_DRAFT = ".draft"

Entry = dict[str, Any]


def interrupted(uri: str) -> bool:
    """Whether a purge has begun and not ended; with the lock free, it was killed.

    What else there is counts: a purge that was killed before its journal was there has not begun,
    and still left content in clear.
    """
    directory = local_path(uri)
    return directory is not None and bool(_find_files(directory))


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of the purge in one database's directory."""

    directory: Path

    def start(self, intent: Entry, rows: pa.Table) -> None:
        """Makes the journal, with the rows to be forgotten, or leaves nothing.

        The rows go first: from the moment that the journal is there, the purge has begun.
        """
        draft = self.directory / (JOURNAL_FILE + _DRAFT)
        try:
            self.keep_content(rows)
            with draft.open("wb") as file:
                _write(file, intent)
            draft.replace(self._path)
        except OSError:
            self.close()
            raise
        _sync(self.directory)

    @property
    def started(self) -> bool:
        """Whether it is there, whole."""
        return self._path.exists()

    def repair(self) -> None:
        """Cuts off a line that a kill left unfinished, before more lines are added."""
        whole = self._path.read_bytes().rpartition(b"\n")
        os.truncate(self._path, len(whole[0]) + len(whole[1]))

    def note(self, entry: Entry) -> None:
        """Adds a line; it is on the disk when this returns."""
        with self._path.open("ab") as file:
            _write(file, entry)

    def intent(self) -> Entry:
        """What is to be forgotten: the first line.

        Raises:
            CorruptDatabaseError: the journal is damaged.
        """
        for entry in self.entries():
            return entry
        raise self._damage(JOURNAL_FILE)

    def entries(self) -> Iterator[Entry]:
        """All lines, the intent first.

        Raises:
            CorruptDatabaseError: the journal is damaged.
        """
        for line in self._path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise self._damage(JOURNAL_FILE) from error

    def keep_content(self, rows: pa.Table) -> None:
        """Writes the rows to be forgotten; the verifier looks for them after a kill, too."""
        draft = self.directory / (CONTENT_FILE + _DRAFT)
        with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        _sync(draft)
        draft.replace(self.directory / CONTENT_FILE)

    def content(self) -> pa.Table | None:
        """The rows that `keep_content` wrote, or None.

        Raises:
            CorruptDatabaseError: they are damaged, or are not those of the journal.
        """
        path = self.directory / CONTENT_FILE
        if not path.exists():
            return None
        try:
            with pa.OSFile(str(path)) as file:
                rows = pa.ipc.open_file(file).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise self._damage(CONTENT_FILE) from error
        self.check_content(rows["pair_id"].to_pylist())
        return rows

    def check_content(self, pair_ids: Iterable[str]) -> None:
        """Passes when there are rows of all pairs that the journal names.

        Raises:
            CorruptDatabaseError: some are missing, so that nobody could look for them afterwards.
        """
        if set(pair_ids) != set(self.intent()["pair_ids"]):
            raise self._damage(CONTENT_FILE)

    def close(self) -> None:
        """Ends the purge: the content goes first, so that no journal ever lacks its end."""
        for path in _find_files(self.directory):
            path.unlink()
        _sync(self.directory)

    def _damage(self, name: str) -> CorruptDatabaseError:
        reason = "it is not whole, and the forget that was killed cannot be finished without it"
        return CorruptDatabaseError(str(self.directory), name, reason)

    @property
    def _path(self) -> Path:
        return self.directory / JOURNAL_FILE


def _find_files(directory: Path) -> list[Path]:
    """The files of a purge, drafts too, in the order in which they go: the journal last."""
    names = (name + end for name in (CONTENT_FILE, JOURNAL_FILE) for end in (_DRAFT, ""))
    return [path for name in names if (path := directory / name).exists()]


def _write(file: BinaryIO, entry: Entry) -> None:
    file.write(json.dumps(entry).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Of a file its content, of a directory its names: on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
