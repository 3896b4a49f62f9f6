"""Twins: pairs that stay and have the same picture as one that is forgotten.

The picture is the same if its hash is, or if the image vectors point the same way: it may have
been encoded twice, or saved anew. Pairs with the same caption alone are told apart from these:
equal words are no sign of the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass

import lance
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import LATEST, Ledger, live_rows_key, open_table
from asif_lance.forgetting.content import Content, have_one_of, list_captions
from asif_lance.progress import track
from asif_lance.records import BoolArray
from asif_lance.verifier import as_matrix

_COLUMNS = ("pair_id", "caption", "captions", "image_sha256", "image_vector")
# Vectors that are sought at once: a block of stored ones has a product with each.
_SOUGHT_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Twins:
    """Pairs that stay and share something with those that are forgotten.

    Attributes:
        same_picture: ids of those with the same picture, sorted.
        same_caption: ids of those that have only the caption in common, sorted.
    """

    same_picture: tuple[str, ...] = ()
    same_caption: tuple[str, ...] = ()


def find_twins(uri: str, ids: Set[str], rows: pa.Table) -> Twins:
    """Twins at head and in the newest version; one pass over their image vectors.

    Args:
        uri: the database.
        ids: of the pairs that are to be forgotten.
        rows: what is stored of them, columns as in `pairs`.
    """
    forgotten, pictures = pa.array(sorted(ids), pa.string()), _PictureSearch(rows)
    captions = set(list_captions(rows))
    same_picture: set[str] = set()
    same_caption: set[str] = set()
    for state, fragment in track("look for twins", list(_list_fragments(uri))):
        there = [name for name in _COLUMNS if name in state.schema.names]
        for batch in state.scanner(columns=there, fragments=[fragment]).to_batches():
            stays = pc.invert(pc.is_in(batch["pair_id"], forgotten))
            same_picture.update(_take_ids(batch, stays, pictures.find(batch)))
            same_caption.update(_take_ids(batch, stays, have_one_of(batch, captions)))
    return Twins(tuple(sorted(same_picture)), tuple(sorted(same_caption - same_picture)))


class _PictureSearch:
    """Finds some pictures by their hashes and vectors."""

    def __init__(self, rows: pa.Table) -> None:
        self._hashes = pc.unique(rows["image_sha256"].combine_chunks()).drop_null()
        vectors = rows.select(["image_vector"])
        starts = range(0, len(vectors), _SOUGHT_AT_ONCE)
        # No fingerprint leaves from here: any key will do.
        self._parts = [Content(b"twins", vectors.slice(at, _SOUGHT_AT_ONCE)) for at in starts]

    def find(self, batch: pa.RecordBatch) -> BoolArray:
        """(n,) which of n rows have one of the pictures."""
        same: BoolArray = pc.is_in(batch["image_sha256"], self._hashes).to_numpy(False).copy()
        vectors = as_matrix(batch["image_vector"])
        for part in self._parts:
            same[[row for row, _ in part.match_vectors(vectors)]] = True
        return same


def _take_ids(batch: pa.RecordBatch, stays: pa.Array, same: pa.Array | BoolArray) -> list[str]:
    chosen = pc.and_(stays, pa.array(same))
    return list(batch["pair_id"].filter(chosen).to_pylist())


def _list_fragments(uri: str) -> Iterator[tuple[lance.LanceDataset, lance.LanceFragment]]:
    """The fragments of head and of the newest version, those that both have once."""
    head, tags = open_table(uri, "pairs"), Ledger(uri).lance_versions()
    versions = dict.fromkeys([head.version, tags.get(LATEST, head.version)])
    seen = set()
    for version in versions:
        state = open_table(uri, "pairs", version)
        for fragment in state.get_fragments():
            key = live_rows_key(fragment)
            if key not in seen:
                seen.add(key)
                yield state, fragment
