"""One writer at a time: an exclusive lock on a file in the database's directory.

The kernel frees the lock when its process ends, however it ends, so a killed command never leaves
a database locked. Object stores have no such lock: there it is a lease, see `lease`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from asif_lance.database.lease import hold_lease
from asif_lance.database.overtaken import exclude_overtaken
from asif_lance.database.tables import local_path
from asif_lance.errors import DatabaseBusyError, StorageError

LOCK_FILE = ".asif-lock"
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class WriteLock:
    """The database's write lock; taken anew for each change.

    It keeps out other threads, too, and is not re-entrant: whoever holds it waits for itself. A
    forked child does not hold it.

    Attributes:
        uri: the database.
        timeout: seconds to wait for another writer.
    """

    uri: str
    timeout: float = 60.0

    @contextlib.contextmanager
    def hold(self, command: str, *, outlive: bool = False) -> Iterator[None]:
        """Holds the lock.

        Args:
            command: what the error of others names while they wait in vain.
            outlive: in an object store, wait beyond the timeout until it is known whether the
                holder lives: it renews its lease, or that runs out.

        Raises:
            DatabaseBusyError: another writer kept it for longer than the timeout.
            StorageError: the lock file cannot be made, or the object store honours no conditions.
        """
        directory = local_path(self.uri)
        if directory is None:
            with hold_lease(self.uri, command, self.timeout, outlive=outlive) as lease:
                if lease.taken_over:
                    exclude_overtaken(self.uri)
                    lease.taken_over = False
                yield
            return
        lock = FileLock(
            directory / LOCK_FILE,
            self.timeout,
            poll_interval=_POLL_SECONDS,
            fallback_to_soft=False,  # which a killed process would leave locked
            on_acquired=lambda descriptor: _write_holder(descriptor, command),
        )
        self._acquire(lock, directory)
        try:
            yield
        finally:
            lock.release()

    def _acquire(self, lock: FileLock, directory: Path) -> None:
        try:
            directory.stat()  # the lock would make a directory that is gone
            lock.acquire()
        except Timeout:
            holder = _read_holder(directory / LOCK_FILE)
            raise DatabaseBusyError(f"{self.uri} is in use by {holder}") from None
        except OSError as error:
            raise StorageError(f"cannot write to {directory}: {error.strerror}") from error


def _write_holder(descriptor: int, command: str) -> None:
    # The name in the lock file is a courtesy: a full disk must not stop the change itself.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "command": command}).encode(), 0)


def _read_holder(path: Path) -> str:
    try:
        note = json.loads(path.read_bytes())
        return f"`{note['command']}` (process {note['pid']}): try again when it is done"
    except (OSError, ValueError, KeyError, TypeError):
        return "another writer: try again when it is done"
