"""Copies of pairs that Lance or others keep in a database's directory, found before the deed.

What lies there and is not ours is not changed: a table that somebody made of our pairs, an export,
a folder that an editor left. It is read like everything else, so that whoever forgets is told
beforehand; afterwards the receipt calls it residual. Where Lance itself would keep content out of
reach, or forgetting would break what somebody works with, it is refused.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.database import (
    CACHES,
    TABLES,
    open_table,
    storage_errors,
    table_uri,
)
from asif_lance.errors import DatabaseError
from asif_lance.forgetting.content import Content
from asif_lance.object_stores import is_remote, open_path
from asif_lance.records import BoolArray
from asif_lance.verifier import KEY_BYTES, Found, list_files, scan_files

_OUR_FOLDERS = {*(f"{table.name}.lance" for table in TABLES), *(cache.name for cache in CACHES)}
_OUR_FILES = ".asif-"
_LANCE_FOLDERS = {"_deletions", "_indices", "_refs", "_transactions", "_versions", "data"}


@dataclass(frozen=True, slots=True)
class Copy:
    """Something beside ours that holds content of pairs.

    Attributes:
        place: its path within the database.
        pairs: how many of the pairs it names or holds content of.
    """

    place: str
    pairs: int


@dataclass
class _Witness:
    """Finds what `content` finds, and remembers which pairs were named."""

    content: Content
    named: set[str] = field(default_factory=set)

    def is_forgotten(self, pair_id: str) -> bool:
        """See `ContentMatcher`."""
        if not self.content.is_forgotten(pair_id):
            return False
        self.named.add(pair_id)
        return True

    def find_forgotten(self, ids: pa.Array) -> BoolArray:
        """See `ContentMatcher`."""
        found = self.content.find_forgotten(ids)
        self.named.update(ids.filter(pa.array(found)).to_pylist())
        return found

    def match_values(self, values: pa.Array) -> Found:
        """See `ContentMatcher`."""
        return self.content.match_values(values)

    def match_texts(self, texts: Iterable[str]) -> Iterator[str]:
        """See `ContentMatcher`."""
        return self.content.match_texts(texts)

    def list_quoted(self, text: str) -> Iterator[str]:
        """See `ContentMatcher`."""
        return self.content.list_quoted(text)

    def match_vectors(self, vectors: NDArray[np.floating]) -> Found:
        """See `ContentMatcher`."""
        return self.content.match_vectors(vectors)

    def match_bytes(self, data: bytes) -> Iterator[str]:
        """See `ContentMatcher`."""
        return self.content.match_bytes(data)


def find_foreign(directory: Path) -> dict[str, list[Path]]:
    """The files in a database's directory that are not ours, by the place that they belong to."""
    places: dict[str, list[Path]] = {}
    for path in list_files(directory):
        place = _find_place(path.relative_to(directory).parts)
        if place is not None:
            places.setdefault(place, []).append(path)
    return places


def find_copies(
    directory: Path, rows: pa.Table, shared: frozenset[str] = frozenset()
) -> tuple[Copy, ...]:
    """Where else content of some pairs is; captions and pictures that others have count, too.

    Args:
        directory: of the database.
        rows: of the pairs, with the columns of `pairs`.
        shared: what they have in common with others, see `find_shared`.
    """
    content = Content(secrets.token_bytes(KEY_BYTES), rows, shared)
    found = (_search(directory, *foreign, content) for foreign in find_foreign(directory).items())
    return tuple(copy for copy in found if copy is not None)


def check_not_shared(uri: str) -> None:
    """Passes when the tables' files are their own, and nobody else's in the same directory.

    Raises:
        DatabaseError: there are branches, shallow clones, or tags that keep old states of tables
            other than `pairs`; it says how to remove them.
    """
    for table in (table.name for table in TABLES if table.holds_content):
        dataset = open_table(uri, table)
        _check_no_names(uri, table, "branches", sorted(dataset.branches.list()))
        if table != "pairs":
            _check_no_names(uri, table, "tags", sorted(dataset.tags.list()))
    pairs = open_table(uri, "pairs")
    if pairs.base_paths():
        elsewhere = ", ".join(base.path for base in pairs.base_paths().values())
        raise DatabaseError(
            f"{uri}: the pairs table is a shallow clone and reads files of {elsewhere}, which "
            "forgetting cannot reach; forget there, or make it a copy of its own (deep_clone)"
        )
    for clone in _find_clones(uri):
        raise DatabaseError(
            f"{uri}: {clone} is a shallow clone that reads our files and would break; drop it "
            f"before forgetting: lancedb.connect({uri!r}).drop_table({clone[: -len('.lance')]!r})"
        )


def _check_no_names(uri: str, table: str, kind: str, names: list[str]) -> None:
    if names:
        raise DatabaseError(
            f"{uri}: the {table} table has {kind}, which keep old states ({', '.join(names)}); "
            f"remove them before forgetting: lance.dataset({table_uri(uri, table)!r}).{kind}."
            f"delete({names[0]!r})"
        )


def _find_clones(uri: str) -> Iterator[str]:
    for path in sorted(open_path(uri).glob("*.lance")):
        if path.name in _OUR_FOLDERS:
            continue
        try:
            with storage_errors(uri):
                bases = lance.dataset(str(path)).base_paths().values()
        except (DatabaseError, ValueError):
            continue  # no table, or none that can be opened: the search reads its files
        if any(_lies_in(base.path, uri) for base in bases):
            yield path.name


def _lies_in(address: str, uri: str) -> bool:
    if is_remote(uri):
        return uri.partition("://")[2] in address
    return Path(address).resolve().is_relative_to(Path(uri).resolve())


def _find_place(parts: tuple[str, ...]) -> str | None:
    """The place that a file belongs to, or None for a file of ours."""
    if len(parts) == 1:
        return None if parts[0].startswith(_OUR_FILES) else parts[0]
    if parts[0] not in _OUR_FOLDERS:
        return parts[0]
    is_table = parts[0].endswith(".lance")
    return "/".join(parts[:2]) if is_table and parts[1] not in _LANCE_FOLDERS else None


def _search(directory: Path, place: str, files: list[Path], content: Content) -> Copy | None:
    witness = _Witness(content)
    report = scan_files(directory, files, witness)
    if not report.hits:
        return None
    keys = {hit.key for hit in report.hits}
    return Copy(place, len(witness.named) or _count_owners(content, keys))


def _count_owners(content: Content, keys: set[str]) -> int:
    """How many pairs have one of the values with these fingerprints."""
    rows = content.rows
    owners = set()
    for row, pair_id in enumerate(rows["pair_id"].to_pylist()):
        prints = replace(content, rows=rows.slice(row, 1)).fingerprints()
        if not keys.isdisjoint(prints.ids | prints.values | prints.vectors):
            owners.add(pair_id)
    return len(owners)
