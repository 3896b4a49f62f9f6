"""The journal of a purge under way: what is to be forgotten, and which steps are done.

It lies in the database's directory from before the first change until the receipt is stored, and
names the pairs in clear, for a killed purge has to be finished by whoever opens the database next.
Each line is one JSON object; a line that a kill cut short is the last one and does not count.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from asif_lance.database import local_path

JOURNAL_FILE = ".asif-forget.jsonl"
CONTENT_FILE = ".asif-forget.arrow"

Entry = dict[str, Any]


def interrupted(uri: str) -> bool:
    """Whether a purge has begun and not ended; with the lock free, it was killed."""
    directory = local_path(uri)
    return directory is not None and (directory / JOURNAL_FILE).exists()


@dataclass(frozen=True, slots=True)
class Journal:
    """The journal of the purge in one database's directory."""

    directory: Path

    def start(self, intent: Entry) -> None:
        """Makes the journal, whole or not at all."""
        draft = self.directory / (JOURNAL_FILE + ".draft")
        with draft.open("wb") as file:
            _write(file, intent)
        draft.replace(self._path)
        _sync(self.directory)

    def repair(self) -> None:
        """Cuts off a line that a kill left unfinished, before more lines are added."""
        whole = self._path.read_bytes().rpartition(b"\n")
        os.truncate(self._path, len(whole[0]) + len(whole[1]))

    def note(self, entry: Entry) -> None:
        """Adds a line; it is on the disk when this returns."""
        with self._path.open("ab") as file:
            _write(file, entry)

    def entries(self) -> Iterator[Entry]:
        """All lines, the intent first."""
        for line in self._path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                yield json.loads(line)

    def keep_content(self, rows: pa.Table) -> None:
        """Writes the rows to be forgotten; the verifier looks for them after a kill, too."""
        draft = self.directory / (CONTENT_FILE + ".draft")
        with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(self.directory / CONTENT_FILE)

    def content(self) -> pa.Table | None:
        """The rows that `keep_content` wrote, or None."""
        path = self.directory / CONTENT_FILE
        if not path.exists():
            return None
        with pa.OSFile(str(path)) as file:
            return pa.ipc.open_file(file).read_all()

    def close(self) -> None:
        """Ends the purge: the content goes first, so that no journal ever lacks its end."""
        for name in (CONTENT_FILE, JOURNAL_FILE):
            for path in self.directory.glob(name + "*"):
                path.unlink()
        _sync(self.directory)

    @property
    def _path(self) -> Path:
        return self.directory / JOURNAL_FILE


def _write(file: BinaryIO, entry: Entry) -> None:
    file.write(json.dumps(entry).encode() + b"\n")
    file.flush()
    os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
