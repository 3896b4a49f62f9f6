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

from asif_lance.database import check_lease
from asif_lance.errors import CorruptDatabaseError
from asif_lance.object_stores import is_remote, is_there, open_path
from asif_lance.verifier import CONTENT_FILE, JOURNAL_FILE

_DRAFT = ".draft"

Entry = dict[str, Any]


def interrupted(uri: str) -> bool:
    """Whether a purge has begun and not ended; with the lock free, it was killed.

    What else there is counts: a purge that was killed before its journal was there has not begun,
    and still left content in clear.
    """
    return bool(_find_files(open_path(uri)))


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of the purge in one database's place; in an object store each note is a put."""

    directory: Path

    def start(self, intent: Entry, rows: pa.Table) -> None:
        """Makes the journal, with the rows to be forgotten, or leaves nothing.

        The rows go first: from the moment that the journal is there, the purge has begun.
        """
        try:
            self.keep_content(rows)
            _write_whole(self._path, _encode(intent))
            _sync(self.directory)
        except OSError:
            self.close()
            raise

    @property
    def started(self) -> bool:
        """Whether it is there, whole."""
        return is_there(self._path)

    @property
    def came_late(self) -> bool:
        """Whether a writer who was overtaken had it put when the purge had been ended already.

        The content is put before it, and taken away before it only when all steps are done.
        """
        content = self.directory / CONTENT_FILE
        return is_remote(content) and not is_there(content) and len(list(self.entries())) == 1

    def repair(self) -> None:
        """Cuts off a line that a kill left unfinished, before more lines are added."""
        if not is_remote(self._path):  # an object is there as a whole
            whole = self._path.read_bytes().rpartition(b"\n")
            os.truncate(self._path, len(whole[0]) + len(whole[1]))

    def note(self, entry: Entry) -> None:
        """Adds a line; it is on the disk when this returns."""
        if is_remote(self._path):
            check_lease(str(self.directory))
            self._path.write_bytes(self._path.read_bytes() + _encode(entry))
            return
        with self._path.open("ab") as file:
            _write(file, _encode(entry))

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
        content = pa.BufferOutputStream()
        with pa.ipc.new_file(content, rows.schema) as writer:
            writer.write_table(rows)
        _write_whole(self.directory / CONTENT_FILE, content.getvalue())

    def content(self) -> pa.Table | None:
        """The rows that `keep_content` wrote, or None.

        Raises:
            CorruptDatabaseError: they are damaged, or are not those of the journal.
        """
        path = self.directory / CONTENT_FILE
        if not is_there(path):
            return None
        try:
            rows = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
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
    ends = ("",) if is_remote(directory) else (_DRAFT, "")
    names = (name + end for name in (CONTENT_FILE, JOURNAL_FILE) for end in ends)
    return [path for name in names if is_there(path := directory / name)]


def _encode(entry: Entry) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def _write_whole(path: Path, content: Any) -> None:
    """Makes a file that is there as a whole or not at all, on the disk when this returns."""
    if is_remote(path):
        check_lease(str(path.parent))
        path.write_bytes(bytes(content))
        return
    draft = path.with_name(path.name + _DRAFT)
    with draft.open("wb") as file:
        _write(file, content)
    draft.replace(path)


def _write(file: BinaryIO, content: Any) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Of a directory its names: on the disk when this returns."""
    if is_remote(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
