"""One change of a database: under the lock, after repair, and by who may still write.

Refused are a release that does not know the database's migrations any more, and whoever would write
what it read before pairs were forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from asif_lance.database import WriteLock, check_epoch, check_still_migrated, storage_errors
from asif_lance.forgetting import interrupted, recover


@contextmanager
def begin_change(uri: str, command: str, *, timeout: float, since: int | None) -> Iterator[None]:
    """Holds the write lock around a change, see `PairStore.writing`."""
    while True:
        with WriteLock(uri, timeout).hold(command), storage_errors(uri):
            check_still_migrated(uri)
            if not interrupted(uri):
                if since is not None:
                    check_epoch(uri, since)
                yield
                return
        recover(uri)
