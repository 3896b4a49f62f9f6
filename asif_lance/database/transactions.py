"""What Lance wrote down of the change that made a state of a table."""

from __future__ import annotations

import lance


def read_transaction(table: lance.LanceDataset, version: int) -> lance.Transaction | None:
    """The change that made a state; None where none is known.

    None, too, where a change rewrote indices along with rows, as compacting does: Lance's Python
    cannot make an object of it. Such a change is Lance's own. It never is one of `commit`, and
    neither adds pairs nor names them.

    Raises:
        OSError, ValueError: the state is gone.
    """
    try:
        found: lance.Transaction | None = table.read_transaction(version)
    except TypeError:
        return None
    return found
