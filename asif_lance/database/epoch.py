"""The number of forgets so far: whoever writes what he read before the last one is refused.

The table `receipts` counts it: every forget adds one row as its last change, nothing takes one
away, and a forget that was killed adds it when it is finished. So no further state has to survive
a kill. Who holds something of pairs beyond one hold of the lock reads the epoch first, and whoever
writes it compares under the lock. Reading takes a tenth of a millisecond.
"""

from __future__ import annotations

from asif_lance.database.tables import open_table, retry_read
from asif_lance.errors import StaleModelError


def read_epoch(uri: str) -> int:
    """A number that every forget raises."""
    return int(retry_read(uri, lambda: open_table(uri, "receipts").count_rows()))


def check_epoch(uri: str, since: int) -> None:
    """Passes when nothing was forgotten since an epoch.

    Raises:
        StaleModelError: something was.
    """
    if read_epoch(uri) != since:
        raise StaleModelError(
            uri,
            "pairs were forgotten since this began to read, and it may hold some of them: "
            "reopen and do it again",
        )
