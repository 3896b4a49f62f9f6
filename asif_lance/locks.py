"""One writer at a time in a local database, for the moments that need it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from asif_lance.errors import DatabaseBusyError

LOCK_FILE = ".asif_lance.lock"


@contextmanager
def write_lock(uri: str, command: str, *, seconds: float = 60.0) -> Iterator[None]:
    """Hold a database's write lock; the kernel releases it however the process ends.

    Object stores have no such lock: there Lance's own commits and the primary key of the pairs
    table keep concurrent adds and deletes right, and two publishers may meet (one is refused).

    Raises:
        DatabaseBusyError: another process holds it for longer than `seconds`.
    """
    if "://" in uri:
        yield
        return
    with (Path(uri) / LOCK_FILE).open("a+") as file:
        _acquire(file.fileno(), uri, seconds)
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{command} (process {os.getpid()})".encode())
        try:
            yield
        finally:
            os.ftruncate(file.fileno(), 0)
            fcntl.flock(file.fileno(), fcntl.LOCK_UN)


def _acquire(file: int, uri: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(file, 200, 0).decode(errors="replace") or "another process"
                raise DatabaseBusyError(f"{uri} is being written by {holder}; try later") from None
            time.sleep(0.02)
        else:
            return
