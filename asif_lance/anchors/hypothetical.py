"""Anchors with some pairs left out or some more behind them, over the same matrices."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from asif_lance.anchors.anchors import Anchors
from asif_lance.records import BoolArray, Float32Array, Int64Array, Neighbors
from asif_lance.search import exact_top_k


class HypotheticalAnchors(Anchors):
    """The anchors of a version, less some, or with some more behind them."""

    @classmethod
    def of(cls, anchors: Anchors) -> HypotheticalAnchors:
        """A copy that shares all vectors; `state` is empty, so that nothing of it is kept."""
        imagined = cls.__new__(cls)
        anchors.image, anchors.text  # noqa: B018  # so that the copy has them
        imagined.__dict__.update(copy.copy(anchors.__dict__))
        imagined.state, imagined._centres = (), {}
        if not isinstance(anchors, HypotheticalAnchors):
            imagined._stored, imagined._new = anchors.live, None
            imagined._gone = np.zeros(len(anchors), dtype=np.bool_)
            imagined._blocks = len(anchors.image)
        return imagined

    _stored: BoolArray  # which rows the version has
    _gone: BoolArray  # which of them are left out
    _new: pa.Table | None  # the rows behind them
    _blocks: int  # of the version

    @property
    def came(self) -> int:
        """How many rows lie behind those of the version."""
        return 0 if self._new is None else self._new.num_rows

    @property
    def went(self) -> Int64Array:
        """The positions of the version's rows that are left out."""
        return np.flatnonzero(self._gone)

    def rows(self, positions: Int64Array, columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the pairs at (m,) positions, imagined ones too."""
        rows: list[dict[str, Any]] = [{}] * len(positions)
        stored = np.flatnonzero(positions < len(self._stored))
        if len(stored):
            logical = np.cumsum(self._stored)[positions[stored]] - 1
            found = self.dataset.take(logical.tolist(), columns=list(columns)).to_pylist()
            for i, row in zip(stored.tolist(), found, strict=True):
                rows[i] = row
        if self._new is not None:
            for i in np.flatnonzero(positions >= len(self._stored)).tolist():
                at = int(positions[i]) - len(self._stored)
                rows[i] = self._new.slice(at, 1).select(list(columns)).to_pylist()[0]
        return rows

    def touched(self, queries: Float32Array, near: Neighbors, k: int) -> BoolArray:
        """Which of m queries have other neighbors here than `near`, those of the real version."""
        if near.indices.shape[1] != min(k, self.count):
            return np.ones(len(queries), dtype=np.bool_)
        touched: BoolArray = np.any(self._gone[near.indices], axis=1)
        if self._new is not None:
            new = [block.cpu() for block in self.image[self._blocks :]]
            nearest = exact_top_k(queries, new, 1).similarities[:, 0]
            touched |= nearest >= near.similarities[:, -1]
        return touched
