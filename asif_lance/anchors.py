"""The pairs of one model version as two matrices, read fragment by fragment.

A Lance fragment never changes: deleting rows adds a mask beside it. So its vectors are read once,
dead rows included, shared by every version in memory that has the fragment, and each version
brings its own mask. Positions count the rows of all fragments in order, dead ones too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal
from weakref import WeakValueDictionary

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.typing import NDArray

from asif_lance.records import Neighbors
from asif_lance.search import exact_top_k

Side = Literal["image", "text"]


class _Block:
    """One fragment's vectors of one side; a class of its own so that it can be held weakly."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix


#: (file names, side) -> vectors. Weak: the versions in memory keep alive what they use.
_blocks: WeakValueDictionary[tuple[str, Side], _Block] = WeakValueDictionary()


class Anchors:
    """The anchors of one model version, both sides read at first use.

    Attributes:
        dataset: the Lance dataset, checked out at the version.
        live: (n,) bool; False where a row is deleted in this version.
        pair_ids: n ids, a `pyarrow.ChunkedArray` of strings.
        count: number of live anchors.
    """

    def __init__(self, dataset: Any, *, device: str = "cpu") -> None:
        self.dataset = dataset
        self._device = torch.device(device)
        self._fragments = sorted(dataset.get_fragments(), key=lambda f: f.fragment_id)
        ids = [_physical(fragment, "pair_id") for fragment in self._fragments]
        self.pair_ids = pa.chunked_array([part["pair_id"].combine_chunks() for part in ids] or [[]])
        self.live: NDArray[np.bool_] = np.concatenate(
            [part["_rowid"].is_valid().to_numpy() for part in ids] or [np.zeros(0, dtype=bool)]
        )
        self.count = int(self.live.sum())

    def __len__(self) -> int:
        """Positions, those of deleted rows included."""
        return len(self.live)

    @cached_property
    def tie_order(self) -> NDArray[np.int64]:
        """(n,) the rank of each anchor's id: equal cosines go to the smaller `pair_id`."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        order = pl.Series(self.pair_ids).arg_sort().to_numpy()
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        return rank

    @cached_property
    def image(self) -> list[torch.Tensor]:
        """Image vectors: one (rows, d) float16 tensor per fragment."""
        return self._side("image")

    @cached_property
    def text(self) -> list[torch.Tensor]:
        """Caption vectors: one (rows, d) float16 tensor per fragment."""
        return self._side("text")

    def top_k(self, side: Side, queries: NDArray[np.float32], k: int) -> Neighbors:
        """The k anchors most similar to each of the (m, d) queries on one side."""
        blocks = self.image if side == "image" else self.text
        return exact_top_k(
            queries,
            blocks,
            k,
            live=self.live,
            tie_order=self.tie_order,
        )

    def vectors(self, side: Side, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """The stored vectors at (m,) positions as (m, d) float32."""
        return _gather(self.image if side == "image" else self.text, positions)

    def ids(self, positions: NDArray[np.int64]) -> list[str]:
        """The pair ids at (m,) positions."""
        return [str(i) for i in self.pair_ids.take(pa.array(positions)).to_pylist()]

    def rows(self, positions: NDArray[np.int64], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the live pairs at (m,) positions, in that order."""
        if not len(positions):
            return []
        logical = np.cumsum(self.live)[positions] - 1
        rows: list[dict[str, Any]] = self.dataset.take(
            logical.tolist(), columns=list(columns)
        ).to_pylist()
        return rows

    def _side(self, side: Side) -> list[torch.Tensor]:
        held = [self._block(fragment, side) for fragment in self._fragments]
        self.__dict__[f"_held_{side}"] = held  # the weak table forgets what nobody holds
        return [block.matrix for block in held]

    def _block(self, fragment: Any, side: Side) -> _Block:
        files = "|".join(f.path for f in fragment.data_files())
        key = (f"{self.dataset.uri}|{files}|{self._device}", side)
        block = _blocks.get(key)
        if block is None:
            block = _Block(_matrix(fragment, f"{side}_vector").to(self._device))
            _blocks[key] = block
        return block


def _physical(fragment: Any, column: str) -> Any:
    """All rows ever written to a fragment; `_rowid` is null for those deleted since."""
    return fragment.scanner(
        columns=[column], include_deleted_rows=True, with_row_id=True
    ).to_table()


def _matrix(fragment: Any, column: str) -> torch.Tensor:
    vectors = _physical(fragment, column)[column].combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(flat.reshape(len(vectors), vectors.type.list_size).copy())


def _gather(blocks: list[torch.Tensor], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    starts = np.cumsum([0, *(len(b) for b in blocks)])
    which = np.searchsorted(starts, positions, side="right") - 1
    out = np.empty((len(positions), blocks[0].shape[1]), dtype=np.float32)
    for b in np.unique(which):
        mine = np.flatnonzero(which == b)
        rows = torch.from_numpy(positions[mine] - starts[b])
        out[mine] = blocks[b][rows.to(blocks[b].device)].float().cpu().numpy()
    return out
