"""The lease of a database in an object store: one small object that says who may write.

It is made if it is absent, and otherwise replaced only in the state that was read, which the store
itself decides: of many that try at once one succeeds. Whoever holds it renews it all the time.
Clocks of different machines are never compared: a holder counts as dead when others have seen the
object unchanged for as long as a lease lasts, and writes nothing any more once it could not
renew for half of that. Each taking has a number of its own, and so has each model version: it is
allotted by replacing the lease, which fails for whoever does not hold it any more. What keeps the
commits out of whoever was overtaken all the same: see `overtaken`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from asif_lance.errors import DatabaseBusyError, StorageError
from asif_lance.object_stores import (
    Mark,
    create_object,
    read_marked,
    remove_object,
    replace_object,
)
from asif_lance.progress import note
from asif_lance.verifier import LEASE_FILE

#: Seconds after which a lease that nobody renewed is free.
LASTING = 20.0
#: Seconds since the last renewal for which a holder goes on to write, which takes time, too.
RENEWED_WITHIN = 10.0
_RENEWALS = 6  # within that time
_POLL_SECONDS = 0.2
_NONCE_BYTES = 8

_held: dict[str, Lease] = {}


@dataclass(frozen=True, slots=True)
class LeaseState:
    """What the object says.

    Attributes:
        holder: of one taking of the lease; None while it is free.
        command: what the holder does.
        epoch: how often the lease was taken.
        allotted: the highest number that a model version was given.
        renewals: of this holder, so that no two states are the same.
        excluded: the epoch at which it was last taken over without having been given back; no
            commit of an earlier one counts any more. 0 if that never happened.
    """

    holder: str | None
    command: str
    epoch: int
    allotted: int
    renewals: int
    excluded: int = 0

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> LeaseState:
        """From what is stored.

        Raises:
            StorageError: it is something else.
        """
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            told = f"{LEASE_FILE} is not a lease: remove it when nobody writes"
            raise StorageError(told) from error


class Lease:
    """A lease that this process holds; get it from `hold_lease`.

    Attributes:
        uri: the database.
        state: as it was last renewed.
        taken_over: from one who had not given it back, and has not been kept out yet.
    """

    def __init__(self, uri: str, state: LeaseState, mark: Mark, taken: float) -> None:
        self.uri, self.state, self._mark = uri, state, mark
        self.taken_over = state.excluded == state.epoch
        self._renewed, self._lost = taken, False
        self._changing, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep, name="asif-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Passes while nobody else can hold it.

        Raises:
            StorageError: it could not be renewed in time, or somebody has taken it over.
        """
        if self._lost or time.monotonic() - self._renewed > RENEWED_WITHIN:
            raise StorageError(
                f"{self.uri}: the lease of this writer ran out before it was done; what it had "
                "not written yet is not written: run the command again"
            )

    def allot(self, number: int) -> int:
        """A number for a model version: this one, or the next above all that were allotted.

        Raises:
            StorageError: the lease is somebody else's by now.
        """
        number = max(number, self.state.allotted + 1)
        self.check()
        self._replace(allotted=number)
        self.check()
        return number

    def confirm(self) -> None:
        """Renews it now; errors as for `check`."""
        with contextlib.suppress(StorageError):
            self._replace()
        self.check()

    def release(self) -> None:
        """Gives it back; where the store does not answer, it runs out by itself.

        So it does where what its last holder has begun was not kept out: that is left to the next.
        """
        self._ended.set()
        self._thread.join()
        if not self.taken_over:
            with contextlib.suppress(StorageError):
                self._replace(holder=None, command="")

    def _keep(self) -> None:
        while not self._ended.wait(LASTING / _RENEWALS) and not self._lost:
            with contextlib.suppress(StorageError):  # tried again while there is time
                self._replace()

    def _replace(self, **changes: Any) -> None:
        with self._changing:
            begun = time.monotonic()
            new = replace(self.state, renewals=self.state.renewals + 1, **changes)
            mark = replace_object(self.uri, LEASE_FILE, new.encode(), self._mark)
            if mark is None:
                self._lost = True
            else:
                self.state, self._mark, self._renewed = new, mark, begun


@contextlib.contextmanager
def hold_lease(uri: str, command: str, timeout: float, *, outlive: bool = False) -> Iterator[Lease]:
    """Holds the lease of a database, as `WriteLock.hold`.

    Raises:
        DatabaseBusyError: another writer kept it for longer than the timeout.
        StorageError: the store refused, or does not honour conditions.
    """
    check_conditions(uri)
    lease = _take(uri, command, timeout, outlive)
    _held[uri] = lease
    try:
        yield lease
        lease.check()
    finally:
        del _held[uri]
        lease.release()


def find_lease(uri: str) -> Lease | None:
    """The lease that this process holds of a database, by its address or that of a table of it."""
    return _held.get(uri) or _held.get(uri.rpartition("/")[0])


def check_lease(uri: str) -> None:
    """Before each write: passes while this process holds the lease; where none is held, too.

    Raises:
        StorageError: it has run out.
    """
    lease = find_lease(uri)
    if lease is not None:
        lease.check()


def confirm_lease(uri: str) -> None:
    """The same as the store itself sees it; errors as for `check_lease`."""
    lease = find_lease(uri)
    if lease is not None:
        lease.confirm()


def allot_number(uri: str, number: int) -> int:
    """A number for a model version under the lease that is held; the same in a folder."""
    return _held[uri].allot(number) if uri in _held else number


@lru_cache(maxsize=64)
def check_conditions(uri: str) -> bool:
    """Passes stores that honour conditions, which is tried out once in a process.

    Returns:
        Whether the bucket keeps versions of its objects.

    Raises:
        StorageError: of two writers on one condition both won.
    """
    name = f".asif-probe-{secrets.token_hex(_NONCE_BYTES)}"
    first = create_object(uri, name, b"1")
    second = create_object(uri, name, b"2")
    changed = replace_object(uri, name, b"3", first) if first else None
    late = replace_object(uri, name, b"4", first) if first else None
    with contextlib.suppress(StorageError):
        remove_object(uri, name)
    if first is None or changed is None or second is not None or late is not None:
        raise StorageError(
            f"{uri}: this object store does not honour conditional writes, without which nothing "
            "keeps two writers apart: nothing is written there"
        )
    return "version" in first


def _take(uri: str, command: str, timeout: float, outlive: bool) -> Lease:
    """Waits until the lease is free, or nobody renews it any more, and takes it."""
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(_NONCE_BYTES)}"
    start, seen, since = time.monotonic(), None, 0.0
    alive, told = False, False
    while True:
        found = read_marked(uri, LEASE_FILE)
        state = None if found is None else LeaseState.decode(found[0])
        if found is None or seen != found[1]:
            alive = seen is not None
            seen, since = (None if found is None else found[1]), time.monotonic()
        if state is None or state.holder is None or time.monotonic() - since > LASTING:
            taken = _try_to_take(uri, LeaseState(holder, command, 0, 0, 0), state, seen)
            if taken is not None:
                return taken
        name = f"`{state.command}` ({state.holder})" if state and state.holder else "another"
        if time.monotonic() - start >= timeout and (alive or not outlive):
            raise DatabaseBusyError(f"{uri} is in use by {name}: try again when it is done")
        if outlive and not told:
            note(f"waiting up to {LASTING:.0f} s to see whether {name} is still at work")
            told = True
        time.sleep(_POLL_SECONDS)


def _try_to_take(
    uri: str, wanted: LeaseState, old: LeaseState | None, mark: Mark | None
) -> Lease | None:
    begun = time.monotonic()
    if old is None or mark is None:
        new = replace(wanted, epoch=1)
        made = create_object(uri, LEASE_FILE, new.encode())
    else:
        epoch = old.epoch + 1
        excluded = old.excluded if old.holder is None else epoch
        new = replace(wanted, epoch=epoch, allotted=old.allotted, excluded=excluded)
        made = replace_object(uri, LEASE_FILE, new.encode(), mark)
    return None if made is None else Lease(uri, new, made, begun)
