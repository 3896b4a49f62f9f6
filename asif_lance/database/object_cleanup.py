"""Objects of a table that none of its states needs, found and removed so that no writer can lose.

Lance's own cleaning removes what no state names at the moment when it lists the files. In an object
store a writer may stand still before that and be overtaken; what others have written since then
would go. Here the files are listed first, then the lease is checked: what is listed was there while
nobody else wrote. Besides, what an open ingest has written stays, however old it is.
"""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatch

import lance
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database.commits import committing, keep_excluding
from asif_lance.object_stores import list_sizes, open_path, remove_objects

# What Lance writes; everything else in a table's place is somebody else's.
_WRITTEN = (
    *("data/*.lance", "_deletions/*", "_indices/*", "_transactions/*.txn"),
    "_versions/*.manifest",
)


def remove_unneeded(table: lance.LanceDataset, gone: Collection[int], *, sparing: bool) -> int:
    """Removes these states of a table, and all files that no other state has.

    Args:
        table: at head.
        gone: Lance versions; head stays, and those with a tag or a branch.
        sparing: data files that no state has ever had stay, too.

    Returns:
        How many bytes that were.
    """
    table = keep_excluding(table)
    listed = list_sizes(open_path(table.uri))
    with committing(table.uri):
        kept = {table.version, *(tag["version"] for tag in table.tags.list().values())}
        kept |= {branch["parent_version"] for branch in table.branches.list().values()}
        named = table.tracked_files().read_all()
        removed = pa.array(sorted(set(gone) - kept), pa.int64())
        needed = named.filter(pc.invert(pc.is_in(named["version"], removed)))["path"].to_pylist()
        left = set(filter(_is_written, listed)) - set(needed)
        if sparing:
            left -= {n for n in left if n.startswith("data/")} - set(named["path"].to_pylist())
        # States go before their files: a state that lacks one would be damaged.
        remove_objects(table.uri, sorted(left, key=lambda name: not name.startswith("_versions/")))
    return sum(listed[name] for name in left)


def _is_written(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _WRITTEN)
