"""The rows of one model version as its files hold them, deleted ones included.

A Lance fragment never changes: deleting rows adds a mask beside it. So its vectors are in memory
once, shared by every version that has the fragment, and each version adds its own masks: going from
one version to the next costs what the next one added or deleted.

What is as long as the table (masks, ids, vectors) is made when it is asked for. Whoever asks for
some rows at their addresses alone never holds more than these and a few numbers a fragment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch

from asif_lance.anchors import distance_cache, whitened_cache
from asif_lance.anchors.device_rows import place_on_device
from asif_lance.anchors.fragments import (
    Fragment,
    NamedWhitening,
    WhitenedRows,
    name_state,
    open_fragment,
    open_mask,
)
from asif_lance.anchors.whitened import find_step
from asif_lance.database import (
    AttachedState,
    drop_stale_vectors,
    files_exist,
    read_epoch,
    storage_errors,
)
from asif_lance.devices import is_accelerator
from asif_lance.errors import StaleModelError, StorageError
from asif_lance.progress import track
from asif_lance.records import EXAMPLE, BoolArray, Float64Array, Int64Array, UInt64Array
from asif_lance.relative import BlockDistances, BlockSums, WhiteningStep

Side = Literal["image", "text"]

# A row address is its fragment's id in the upper and its place therein in the lower 32 bits.
_PLACE_BITS = 32


@contextmanager
def stale_where_gone(uri: str, check: Callable[[], object]) -> Iterator[None]:
    """Around what Lance reads of a model version of a database.

    Args:
        uri: the database.
        check: says more where it was a forget.

    Raises:
        StaleModelError: upkeep or a forget removed some of these files.
    """
    try:
        with storage_errors(uri):
            yield
    except StorageError as error:
        if "not found" not in str(error).lower():
            raise
        check()
        raise StaleModelError(
            uri,
            "files of this model version were rewritten or removed since it was opened: reopen it",
        ) from error


class VersionRows:
    """The rows of a dataset version, in the order of its fragments.

    Attributes:
        dataset: the Lance dataset, checked out at the version.
        device: where vectors are that fit there.
        count: rows that are not deleted in this version.
        example_positions: (e,) int64, ascending; those of live rows whose pairs are examples.
        state: names each fragment's files and deletions; equal states have equal rows at equal
            positions.
        files: names each fragment's files alone.
        fragment_ids: (fragments,) uint64, ascending; Lance's own.
        rows_per_fragment: (fragments,) int64, deleted rows included.
        epoch: up to which nothing of these rows was forgotten, see `database.read_epoch`.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        device: str = "cpu",
        memory_limit: int | None = None,
        epoch: int | None = None,
        fragments: AbstractSet[int] | None = None,
    ) -> None:
        """Read which rows there are; vectors and ids are read at first use. See `Anchors`.

        Of some `fragments` alone, what is found out is not kept beside that of all.
        """
        self.dataset = dataset
        self._database: str = dataset.uri.removeprefix("file://").rpartition("/")[0]
        self.epoch = read_epoch(self._database) if epoch is None else epoch
        drop_stale_vectors(self._database, self.epoch)
        self.device = torch.device(device)
        self._limit = memory_limit
        self._sources = sorted(
            (f for f in dataset.get_fragments() if fragments is None or f.fragment_id in fragments),
            key=lambda f: f.fragment_id,
        )
        self._keeps = fragments is None
        self._fragments = [open_fragment(dataset, source) for source in self._sources]
        if isinstance(dataset, AttachedState):
            sides = ("image_vector", "text_vector")
            new = (s for f, s in self._each() if not f.has_vectors(*sides))
            dataset.hold_vectors([source.fragment_id for source in new])
        self.state = tuple(name_state(*both) for both in self._each())
        self.fragment_ids = np.array([s.fragment_id for s in self._sources], dtype=np.uint64)
        self.files = tuple(fragment.key for fragment in self._fragments)
        self.rows_per_fragment = np.array([f.rows for f in self._fragments], dtype=np.int64)
        with self.reading():
            self.count = sum(_count_live(*both) for both in self._each())
        self.example_positions = self._find_examples()

    @cached_property
    def _masks(self) -> list[BoolArray]:
        """Held so that other versions find them."""
        with self.reading():
            return [open_mask(*both) for both in self._each()]

    @cached_property
    def live(self) -> BoolArray:
        """(n,) False where a row is deleted in this version."""
        return np.concatenate([np.zeros(0, dtype=np.bool_), *self._masks])

    @cached_property
    def examples(self) -> BoolArray:
        """(n,) True where a live row's pair is an example."""
        found = np.zeros(int(self.rows_per_fragment.sum()), dtype=np.bool_)
        found[self.example_positions] = True
        return found

    @cached_property
    def pair_ids(self) -> pa.ChunkedArray:
        """The n ids."""
        with self.reading():
            ids = [fragment.pair_ids(source) for fragment, source in self._each()]
        return pa.chunked_array(ids or [[]], pa.string())

    @cached_property
    def image(self) -> list[torch.Tensor]:
        """Image vectors: one (rows, d) float16 tensor per fragment, on the device if they fit."""
        return self._read("image")

    @cached_property
    def text(self) -> list[torch.Tensor]:
        """Caption vectors: likewise."""
        return self._read("text")

    def sums(self, side: Side) -> list[BlockSums]:
        """Exact sums over each block of one side."""
        column = f"{side}_vector"
        distance_cache.load_distances(self.dataset.uri, column, self._fragments)
        return [f.sums(self.dataset, source, column) for f, source in self._one_by_one(side)]

    def distances(self, side: Side, mean: Float64Array) -> list[BlockDistances]:
        """Distances of each block's rows from a (d,) mean, or from a point near enough to it."""
        column = f"{side}_vector"
        found = [
            fragment.distances(self.dataset, source, column, mean)
            for fragment, source in self._one_by_one(side)
        ]
        if self._keeps:
            distance_cache.save_distances(self.dataset.uri, column, self._fragments, self.epoch)
        return found

    def id_hashes(self) -> UInt64Array:
        """A fixed hash of each id: (n,)."""
        with self.reading():
            found = [fragment.hash_ids(source) for fragment, source in self._each()]
        return np.concatenate([np.zeros(0, dtype=np.uint64), *found])

    def known_whitening(self, side: Side, width: int) -> NamedWhitening | None:
        """The whitening of one side that earlier processes kept, and with it what they found."""
        column = f"{side}_vector"
        return whitened_cache.load_whitened(self.dataset.uri, column, width, self._fragments)

    def whitened(self, side: Side, used: NamedWhitening) -> list[WhitenedRows]:
        """Whitened distances of each block's rows, or such as are near enough to them."""
        column, width = f"{side}_vector", len(used.whitening.mean)
        work, found = len(self.live) * width**2, list[WhitenedRows]()
        steps: dict[str, WhiteningStep | None] = {}
        for fragment, source in self._one_by_one(side):
            known = fragment.whitened.get(column)
            if known is not None and known.used.fit != used.fit:
                fit, before = known.used.fit, known
                if fit not in steps:
                    steps[fit] = find_step(before.used, used, work)
                step, known = steps[fit], None
                if step is not None:
                    known = fragment.step_whitened(self.dataset, source, column, before, used, step)
            found.append(known or fragment.whiten(self.dataset, source, column, used))
        uri, fragments = self.dataset.uri, self._fragments
        if self._keeps:
            whitened_cache.save_whitened(uri, column, used, fragments, self.epoch)
        return found

    def release_of(self, side: Side) -> Callable[[int], None] | None:
        """What gives a block's memory back after its use; None for a side that may stay."""
        vectors = self.image if side == "image" else self.text
        return self._release if self._too_large(vectors) else None

    def check_current(self) -> int:
        """Passes while none of these rows was forgotten; returns the epoch up to which.

        A forget removes every data file that held one of its pairs: if all are there, none did.

        Raises:
            StaleModelError: some were, or the files went otherwise and it cannot be told.
        """
        now = read_epoch(self._database)
        if now != self.epoch:
            names = (name for files in self.files for name in files.split("|")[1:])
            if not files_exist(self._database, names):
                raise StaleModelError(
                    self._database,
                    "pairs of this model version were forgotten since it was opened: reopen it",
                )
            self.epoch = now
        return now

    def reading(self) -> AbstractContextManager[None]:
        """Around whatever Lance reads: files that no version needs any more are removed.

        Raises:
            StaleModelError: upkeep or a forget removed some of these.
        """
        return stale_where_gone(self._database, self.check_current)

    def take(self, positions: Int64Array, columns: Sequence[str]) -> pa.Table:
        """Columns of the live rows at (m,) positions, in that order; of no other row is read."""
        with self.reading():
            addresses = pa.array(self.find_addresses(positions))
            return self.dataset._take_rows(addresses, columns=list(columns))

    def _find_examples(self) -> Int64Array:
        """Read roles from the files that have some; those of ordinary pairs have no such column."""
        if isinstance(self.dataset, AttachedState):  # somebody else's pairs are all ordinary
            return np.zeros(0, dtype=np.int64)
        fields = {field.name(): field.id() for field in self.dataset.lance_schema.fields()}
        number = fields.get("role")
        files = ((source, source.data_files()) for source in self._sources)
        holding = [source for source, held in files if any(number in f.fields for f in held)]
        if not holding:
            return np.zeros(0, dtype=np.int64)
        asked = {"filter": f"role = '{EXAMPLE}'", "fragments": holding, "columns": []}
        with self.reading():
            rows = self.dataset.scanner(with_row_address=True, **asked).to_table()
        return np.sort(self.find_positions(rows["_rowaddr"].to_numpy()))

    def find_positions(self, addresses: UInt64Array) -> Int64Array:
        """The positions of rows with these addresses, of Lance."""
        fragment = np.searchsorted(self.fragment_ids, addresses >> np.uint64(_PLACE_BITS))
        places = addresses & np.uint64(2**_PLACE_BITS - 1)
        positions: Int64Array = self._starts[fragment] + places.astype(np.int64)
        return positions

    def find_addresses(self, positions: Int64Array) -> UInt64Array:
        """Lance's addresses of the rows at some positions."""
        fragment = np.searchsorted(self._starts, positions, side="right") - 1
        places = (positions - self._starts[fragment]).astype(np.uint64)
        addresses: UInt64Array = self.fragment_ids[fragment] << np.uint64(_PLACE_BITS) | places
        return addresses

    @property
    def _starts(self) -> Int64Array:
        starts: Int64Array = np.cumsum(self.rows_per_fragment) - self.rows_per_fragment
        return starts

    def _each(self) -> Iterator[tuple[Fragment, Any]]:
        return zip(self._fragments, self._sources, strict=True)

    def _one_by_one(self, side: Side) -> Iterator[tuple[Fragment, Any]]:
        """The fragments and their sources; each one's memory is given back after its use."""
        release = self.release_of(side)
        each = track(f"read {side}s", self._each(), len(self._fragments))
        for i, both in enumerate(each):
            yield both
            if release:
                release(i)

    def _read(self, side: Side) -> list[torch.Tensor]:
        column = f"{side}_vector"
        with self.reading():
            vectors = [f.vectors(self.dataset, source, column) for f, source in self._each()]
        if not is_accelerator(self.device):
            return vectors
        return place_on_device(self.device, column, self.files, vectors, self._limit)

    def _too_large(self, vectors: list[torch.Tensor]) -> bool:
        return self._limit is not None and sum(v.nbytes for v in vectors) > self._limit

    def _release(self, block: int) -> None:
        if block < len(self._fragments):  # hypothetical rows lie behind them, in their own memory
            self._fragments[block].release()


def _count_live(held: Fragment, source: Any) -> int:
    """How many rows of a fragment are not deleted; no mask is read where Lance knows the number."""
    return held.rows if source.deletion_file() is None else int(source.count_rows())
