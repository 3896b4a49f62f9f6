"""Anchors of a version with some pairs left out or more pairs added, over the same vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.fragments import hash_ids
from asif_lance.anchors.version_rows import Side, VersionRows
from asif_lance.errors import InputError
from asif_lance.records import (
    EXAMPLE,
    BoolArray,
    Float32Array,
    Int64Array,
    Neighbors,
    UInt64Array,
)
from asif_lance.relative import Measure


class HypotheticalAnchors(Anchors):
    """A version's rows, fewer of them there, and behind them rows that are in no version.

    `state` is empty: nothing that is found out about them is kept.
    """

    def __init__(
        self, stored: VersionRows, there: BoolArray, added: Sequence[pa.Table] = ()
    ) -> None:
        """Share a version's rows.

        Args:
            stored: the n rows of the version.
            there: (n + a,) bool, those that are there, examples too, added ones last.
            added: a rows in all, with `pair_id`, `caption`, `image_vector`, `text_vector` as the
                pairs table has them, and `role` where some are examples.

        Raises:
            InputError: vectors of another dimension.
        """
        super().__init__(stored.dataset, stored=stored)
        examples = np.concatenate([stored.examples, *map(_are_examples, added)])
        self.live, self.state, self.there = there & ~examples, (), there
        self.count, self.pairs = int(self.live.sum()), int(there.sum())
        self._added = tuple(added)
        self._image = [_block(pairs, "image", stored.image) for pairs in added]
        self._text = [_block(pairs, "text", stored.text) for pairs in added]

    def __len__(self) -> int:
        """Positions, those of deleted and of added rows included."""
        return len(self.there)

    def _example_positions(self) -> Int64Array:
        return np.flatnonzero(self.there & ~self.live)

    @staticmethod
    def of(anchors: Anchors) -> HypotheticalAnchors:
        """The same anchors, from which hypothetical ones can be made."""
        if isinstance(anchors, HypotheticalAnchors):
            return anchors
        return HypotheticalAnchors(anchors.stored, anchors.stored.live)

    def without(self, removed: BoolArray) -> HypotheticalAnchors:
        """These anchors but for the rows of an (n,) mask."""
        return HypotheticalAnchors(self.stored, self.there & ~removed, self._added)

    def with_pairs(self, pairs: pa.Table) -> HypotheticalAnchors:
        """These anchors with more pairs behind them; see `__init__`."""
        there = np.append(self.there, np.ones(pairs.num_rows, dtype=np.bool_))
        return HypotheticalAnchors(self.stored, there, [*self._added, pairs])

    @property
    def removed(self) -> Int64Array:
        """The positions of the version's ordinary pairs that are left out."""
        stored = self.stored.live & ~self.stored.examples
        return np.flatnonzero(stored & ~self.live[: len(stored)])

    @property
    def added(self) -> Int64Array:
        """The positions of the ordinary pairs that the version does not have."""
        count = len(self.stored.live)
        return count + np.flatnonzero(self.live[count:])

    @property
    def pair_ids(self) -> pa.ChunkedArray:
        """The n ids and those of the added rows."""
        chunks = [chunk for pairs in self._added for chunk in pairs["pair_id"].chunks]
        return pa.chunked_array([*super().pair_ids.chunks, *chunks], pa.string())

    @property
    def image(self) -> list[torch.Tensor]:
        """As in `Anchors`, and a block for each table of added pairs."""
        return [*super().image, *self._image]

    @property
    def text(self) -> list[torch.Tensor]:
        """As in `Anchors`, and a block for each table of added pairs."""
        return [*super().text, *self._text]

    def rows(self, positions: Int64Array, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the pairs at (m,) positions, added ones too; None for those not there."""
        count = len(self.stored.live)
        stored = iter(super().rows(positions[positions < count], columns))
        new = positions[positions >= count] - count
        there = [[n for n in columns if n in pairs.schema.names] for pairs in self._added]
        tables = [pairs.select(names) for pairs, names in zip(self._added, there, strict=True)]
        whole = pa.concat_tables(tables, promote_options="default") if len(new) else None
        added = iter(whole.take(new).to_pylist() if whole is not None else [])
        found = (next(stored if at < count else added) for at in positions.tolist())
        return [dict.fromkeys(columns) | row for row in found]

    def _id_hashes(self) -> UInt64Array:
        added = [hash_ids(pairs["pair_id"]) for pairs in self._added]
        return np.concatenate([super()._id_hashes(), *added])

    def differ(
        self, queries: Float32Array, near: Neighbors, k: int, *, measure: Measure = "cosine"
    ) -> BoolArray:
        """Which of m queries have other images near here than `near`, those in the real version.

        Under a measure that is the same in both.
        """
        if near.indices.shape[1] != min(k, self.count):
            return np.ones(len(queries), dtype=np.bool_)
        removed = np.zeros(len(self), dtype=np.bool_)
        removed[self.removed] = True
        other: BoolArray = np.any(removed[near.indices], axis=1)
        if len(self.added):
            found = self.top_k_among("image", self.added, queries, 1, measure=measure)
            nearest = found.similarities[:, 0]
            other |= nearest >= near.similarities[:, -1]
        return other


def _are_examples(pairs: pa.Table) -> BoolArray:
    if "role" not in pairs.schema.names:
        return np.zeros(len(pairs), dtype=np.bool_)
    found: BoolArray = pc.fill_null(pc.equal(pairs["role"], EXAMPLE), False).to_numpy()
    return found


def _block(pairs: pa.Table, side: Side, like: list[torch.Tensor]) -> torch.Tensor:
    column = pairs[f"{side}_vector"].combine_chunks()
    width = like[0].shape[1]
    if column.type.list_size != width:
        raise InputError(f"{side} vectors: expected dimension {width}, got {column.type.list_size}")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    return torch.from_numpy(flat.reshape(-1, width)).to(like[0].device)
