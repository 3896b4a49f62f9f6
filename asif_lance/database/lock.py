"""One writer at a time: an exclusive lock on a file in the database's directory.

The kernel frees the lock when its process ends, however it ends, so a killed command never leaves
a database locked. Object stores have no such lock: there every change is one optimistic Lance
commit, duplicates are kept out by the primary key, and commands of several steps (publishing,
rolling back, forgetting) ask that no other writer runs beside them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asif_lance.database.tables import local_path
from asif_lance.errors import DatabaseBusyError, StorageError

LOCK_FILE = ".asif-lock"
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class WriteLock:
    """The database's write lock; taken anew for each change.

    Attributes:
        uri: the database.
        timeout: seconds to wait for another writer.
    """

    uri: str
    timeout: float = 60.0

    @contextlib.contextmanager
    def hold(self, command: str) -> Iterator[None]:
        """Holds the lock; `command` is what others are told while they wait in vain.

        Raises:
            DatabaseBusyError: another writer kept it for longer than the timeout.
            StorageError: the lock file cannot be made.
        """
        directory = local_path(self.uri)
        if directory is None:
            yield
            return
        descriptor = _open(directory / LOCK_FILE)
        try:
            self._wait(descriptor)
            _sign(descriptor, command)
            yield
        finally:
            os.close(descriptor)  # frees the lock

    def _wait(self, descriptor: int) -> None:
        deadline = time.monotonic() + self.timeout
        while not _try_lock(descriptor):
            if time.monotonic() >= deadline:
                raise DatabaseBusyError(f"{self.uri} is in use by {_holder(descriptor)}")
            time.sleep(_POLL_SECONDS)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise StorageError(f"cannot write to {path.parent}: {error.strerror}") from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(descriptor: int, command: str) -> None:
    # The name in the lock file is a courtesy: a full disk must not stop the change itself.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "command": command}).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        note = json.loads(os.pread(descriptor, 1000, 0))
        return f"`{note['command']}` (process {note['pid']}): try again when it is done"
    except (ValueError, KeyError, TypeError):
        return "another writer: try again when it is done"
