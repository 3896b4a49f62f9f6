"""Whether all tables can be read, asked before a change that must not stop half-way.

A forget reads every table at its end, when there is no way back. What would stop it there is found
here first, and named, by the sizes of files: Lance would panic on some, on stderr.
"""

from __future__ import annotations

from pathlib import Path

import lance

from asif_lance.database.digests import explain_failure, find_damage, read_digests
from asif_lance.database.integrity import CHANGED
from asif_lance.database.registry import TABLES
from asif_lance.database.tables import find_table, storage_errors
from asif_lance.errors import CorruptDatabaseError
from asif_lance.object_stores import open_path


def check_readable(uri: str) -> None:
    """Passes when every table is there, its files have their sizes, and its rows can be decoded.

    Of `pairs` no rows are decoded, but the files of all states that have a digest count.

    Raises:
        CorruptDatabaseError: a table or a file is missing or damaged.
        StorageError: the disk refused.
    """
    root = open_path(uri)
    with storage_errors(uri):
        for file, digest in read_digests(root).items():
            _check_size(uri, root, file, digest.size, required=False)
        for table in TABLES:
            if table.name != "digests":  # made anew where it cannot be read
                _check_table(uri, root, table.name)


def _check_table(uri: str, root: Path, name: str) -> None:
    dataset = find_table(uri, name)
    if dataset is None:
        raise CorruptDatabaseError(uri, f"{name}.lance", "no state of it is there")
    for fragment in dataset.get_fragments():
        own = (f for f in fragment.metadata.files if f.base_id is None)  # a clone's lie elsewhere
        for file in own:
            path = f"{name}.lance/data/{file.path}"
            _check_size(uri, root, path, file.file_size_bytes, required=True)
    reason = None if name == "pairs" else explain_failure(lambda: _decode(dataset))
    if reason is not None:
        file = find_damage(root, thorough=True) or f"{name}.lance"
        raise CorruptDatabaseError(uri, file, reason)


def _check_size(uri: str, root: Path, file: str, size: int | None, *, required: bool) -> None:
    """A file that only states without a name have may be gone: upkeep takes such away."""
    try:
        found = (root / file).stat().st_size
    except FileNotFoundError:
        if required:
            raise CorruptDatabaseError(uri, file, "missing") from None
        return
    if size is not None and found != size:
        raise CorruptDatabaseError(uri, file, CHANGED)


def _decode(dataset: lance.LanceDataset) -> None:
    for _ in dataset.scanner().to_batches():
        pass
