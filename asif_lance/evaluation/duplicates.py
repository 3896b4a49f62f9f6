"""Which pairs show the same picture, or nearly: by the bytes' SHA-256 and by the stored vectors.

Every picture is compared with every other, a block of both at a time: n² d / 2 multiplications for
n pairs. Memory is that of two blocks and of one number per pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from asif_lance.anchors import Anchors
from asif_lance.errors import InputError
from asif_lance.evaluation.diagnosis import Captions, examine_captions
from asif_lance.model import Model
from asif_lance.progress import track_batches
from asif_lance.records import Int64Array

#: Of the default encoder's vectors of 8,091 photos (Flickr8k) four are this similar to another. Of
#: copies of 80 of them 78% are (JPEG of quality 50), 91% (5% cut off each side), 31% (half size).
SIMILARITY = 0.9

_BLOCK = 4096
_COLUMNS = ["pair_id", "caption", "source", "image_sha256"]


@dataclass(frozen=True, slots=True)
class Group:
    """Pairs that show one picture, or nearly.

    Attributes:
        pair_ids, captions, sources: of its pairs, in one order; empty where a pair names none.
        identical: whether all of them have the same bytes; None where some were not seen.
    """

    pair_ids: tuple[str, ...]
    captions: tuple[str, ...]
    sources: tuple[str, ...]
    identical: bool | None


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The pairs of a version that show what others show.

    Attributes:
        model: the version's name.
        pairs: how many it has.
        hashed: those whose picture's bytes were seen.
        identical: those whose bytes another has too.
        similarity: the cosine from which on pictures count as nearly the same.
        similar: pairs with such a picture, identical ones among them.
        groups: what hangs together by that, largest first.
        captions: those that say nothing, or the same as others.
    """

    model: str
    pairs: int
    hashed: int
    identical: int
    similarity: float
    similar: int
    groups: tuple[Group, ...]
    captions: Captions


def find_duplicates(model: Model, *, similarity: float = SIMILARITY) -> Duplicates:
    """Look for pictures that several pairs show.

    Args:
        model: the version.
        similarity: cosine of the stored image vectors, above 0 and at most 1. They are rounded:
            identical pictures reach 0.999.

    Raises:
        InputError: a similarity that means nothing.
    """
    if not 0 < similarity <= 1:
        raise InputError(f"a similarity is above 0 and at most 1, not {similarity:g}")
    anchors = model.anchors
    live = np.flatnonzero(anchors.live)
    rows = anchors.rows(live, _COLUMNS)
    group_of = _link_similar(anchors, live, similarity)
    groups = [_group(rows, members) for members in _members(group_of)]
    digests = [row["image_sha256"] for row in rows if row["image_sha256"]]
    counts = np.unique(np.array(digests, dtype=str), return_counts=True)[1]
    return Duplicates(
        model=model.version.name,
        pairs=len(rows),
        hashed=len(digests),
        identical=int(counts[counts > 1].sum()),
        similarity=similarity,
        similar=sum(len(group.pair_ids) for group in groups),
        groups=tuple(sorted(groups, key=lambda group: (-len(group.pair_ids), group.pair_ids))),
        captions=examine_captions([row["caption"] or "" for row in rows]),
    )


def _link_similar(anchors: Anchors, live: Int64Array, similarity: float) -> Int64Array:
    """(n,) the group that each of n pairs is in: those linked by similar pictures share one."""
    group_of = np.arange(len(live))
    for rows in track_batches("compare pictures", len(live), _BLOCK):
        ours = anchors.vectors("image", live[rows])
        for start in range(rows.start, len(live), _BLOCK):
            theirs = anchors.vectors("image", live[start : start + _BLOCK])
            left, right = np.nonzero(ours @ theirs.T >= similarity)
            group_of = _join(group_of, left + rows.start, right + start)
    return group_of


def _join(group_of: Int64Array, left: Int64Array, right: Int64Array) -> Int64Array:
    """The groups after pairs at `left` were linked with those at `right`."""
    differ = group_of[left] != group_of[right]
    if not differ.any():
        return group_of
    ends = group_of[left[differ]], group_of[right[differ]]
    n = len(group_of)
    links = coo_array((np.ones(len(ends[0]), bool), ends), shape=(n, n))
    labels = connected_components(links, directed=False)[1]
    return np.asarray(labels[group_of], dtype=np.int64)


def _members(group_of: Int64Array) -> Iterator[Int64Array]:
    """Places of the pairs of each group of several."""
    order = np.argsort(group_of, kind="stable")
    cuts = np.flatnonzero(np.diff(group_of[order])) + 1
    for start, stop in pairwise([0, *cuts.tolist(), len(order)]):
        if stop - start > 1:
            yield order[start:stop]


def _group(rows: list[dict[str, str | None]], members: Int64Array) -> Group:
    chosen = sorted((rows[i] for i in members), key=lambda row: row["pair_id"] or "")
    digests = {row["image_sha256"] for row in chosen}
    return Group(
        pair_ids=tuple(row["pair_id"] or "" for row in chosen),
        captions=tuple(row["caption"] or "" for row in chosen),
        sources=tuple(row["source"] or "" for row in chosen),
        identical=None if None in digests else len(digests) == 1,
    )
