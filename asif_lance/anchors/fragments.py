"""The rows of one Lance fragment, deleted ones included, in memory once for all versions.

A fragment's data files never change, and Lance writes vectors without compression: row after row,
as they are in memory. So they are not read but mapped: a version is ready at once, its bytes come
from the operating system's page cache, are shared with other processes, can be dropped whenever
memory is short, and no copy lies on disk that forgetting would have to find. Where the bytes lie
is what Lance's own reader says of the file; if that is not plain rows (narrow vectors, nulls, a
newer layout), the vectors are read through Lance instead. Of files in an object store the bytes are
kept in files on this machine, see `database.vector_cache`, and these are mapped.

Stored vectors have unit length. Some of each fragment are looked at when it is mapped, and all of
them when they are summed up: where one is not, the file is compared with its digest. That shows
zeros, foreign bytes and flipped exponents; `asif-lance check` shows every flipped bit.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa
import torch
from lance.file import LanceFileReader

from asif_lance.database import AttachedState, check_file, fetch_vectors, storage_errors
from asif_lance.errors import CorruptDatabaseError
from asif_lance.object_stores import is_remote, read_range
from asif_lance.records import BoolArray, Float64Array, UInt64Array
from asif_lance.relative import (
    BlockDistances,
    BlockSummary,
    BlockSums,
    Whitening,
    WhiteningStep,
)
from asif_lance.search import as_tensor

#: How Lance describes a page of plain float16 rows: so many rows, so many numbers in each.
_PLAIN = re.compile(
    r"FullZipLayout \{ bits_rep: 0, bits_def: 0, num_items: (\d+), num_visible_items: \1, "
    r"value_compression: Some\( CompressiveEncoding \{ compression: Some\( FixedSizeList\( "
    r"FixedSizeList \{ items_per_value: (\d+), has_validity: false, values: Some\( "
    r"CompressiveEncoding \{ compression: Some\( Flat\( Flat \{ bits_per_value: 16, data: None,"
)
_FLOAT16_BYTES = 2

# |a|² of unit vectors is that near to 1, as float16 rounds each number by a 2^-11th at most.
_MOST_OFF_UNIT = 2.0**-9
_SAMPLED_ROWS = 8  # spread over a fragment; each costs a page of its file

_shared: WeakValueDictionary[str, Fragment] = WeakValueDictionary()
_masks: WeakValueDictionary[str, BoolArray] = WeakValueDictionary()


class Fragment:
    """What one fragment's data files hold, read at first use; get it from `open_fragment`.

    Attributes:
        key: names the data files; equal keys mean equal rows.
        rows: rows ever written to it.
        summaries: what is known of a column of vectors as a whole, so far.
        id_hashes: what `hash_ids` gives of its pairs' ids, once it was asked for.
        whitened: the last exact whitened distances of a column of vectors.
        near_whitened: near ones under the last other whitening.
    """

    def __init__(self, key: str, rows: int) -> None:
        self.key, self.rows = key, rows
        self.summaries: dict[str, BlockSummary] = {}
        self._maps: list[mmap.mmap] = []
        self._vectors: dict[str, torch.Tensor] = {}
        self._places: dict[str, _Place] | None = None
        self._ids: pa.Array | None = None
        self.id_hashes: UInt64Array | None = None
        self.whitened: dict[str, WhitenedRows] = {}
        self.near_whitened: dict[str, WhitenedRows] = {}

    def has_vectors(self, *columns: str) -> bool:
        """Whether columns of vectors are in memory."""
        return all(column in self._vectors for column in columns)

    def pair_ids(self, fragment: Any) -> pa.Array:
        """The id of each row, by way of a Lance fragment that has these files."""
        if self._ids is None:
            with storage_errors(self.database):
                self._ids = _scan(fragment, "pair_id")["pair_id"].combine_chunks()
        return self._ids

    def vectors(self, dataset: Any, fragment: Any, column: str) -> torch.Tensor:
        """A column of vectors: (rows, d) float16, read-only where it is mapped.

        Raises:
            CorruptDatabaseError: the file that holds them is damaged, as far as that shows.
        """
        if column not in self._vectors:
            with storage_errors(self.database):
                mapped = self._mapped(dataset, fragment, column)
                vectors = _read(dataset, fragment, column) if mapped is None else mapped
            sample = vectors[:: max(self.rows // _SAMPLED_ROWS, 1)].double()
            self._check_units(column, (sample * sample).sum(dim=1).numpy())
            self._vectors[column] = vectors
        return self._vectors[column]

    def sums(self, dataset: Any, fragment: Any, column: str) -> BlockSums:
        """Exact sums over a column of vectors, deleted rows included."""
        if column not in self.summaries:
            sums = BlockSums.of(self.vectors(dataset, fragment, column))
            self._check_units(column, sums.squares)
            self.summaries[column] = BlockSummary(sums)
        return self.summaries[column].sums

    def _check_units(self, column: str, squares: Float64Array) -> None:
        """Passes when all |a|² are 1, or when it was vectors of another length that were stored."""
        if np.all(np.abs(squares - 1.0) <= _MOST_OFF_UNIT):
            return
        for file in (f"pairs.lance/data/{name}" for name in self.files.split("|")):
            if not check_file(self.database, file):
                reason = f"its {column} holds what is no vector of length 1"
                raise CorruptDatabaseError(self.database, file, reason)

    def distances(
        self, dataset: Any, fragment: Any, column: str, mean: Float64Array
    ) -> BlockDistances:
        """The rows' distances from a version's (d,) mean, or from a point near enough to it."""
        sums = self.sums(dataset, fragment, column)
        known = self.summaries[column].distances
        if known is None or not known.serve(mean):
            known = BlockDistances.of(self.vectors(dataset, fragment, column), sums, mean)
            self.summaries[column] = BlockSummary(sums, known)
        return known

    def hash_ids(self, fragment: Any) -> UInt64Array:
        """A hash of each row's id, see `hash_ids`."""
        if self.id_hashes is None:
            self.id_hashes = hash_ids(self.pair_ids(fragment))
        return self.id_hashes

    def whiten(
        self, dataset: Any, fragment: Any, column: str, used: NamedWhitening
    ) -> WhitenedRows:
        """The rows' whitened distances; damage shows as in `sums`."""
        self.sums(dataset, fragment, column)
        inverses = used.whitening.inverse_distances(self.vectors(dataset, fragment, column))
        known = self.whitened[column] = WhitenedRows(used, inverses, inverses)
        self.near_whitened.pop(column, None)
        return known

    def step_whitened(
        self,
        dataset: Any,
        fragment: Any,
        column: str,
        known: WhitenedRows,
        used: NamedWhitening,
        step: WhiteningStep,
    ) -> WhitenedRows:
        """Nearly the rows' distances under another whitening, by the exact ones that are known."""
        near = self.near_whitened.get(column)
        if near is None or near.used.fit != used.fit:
            vectors = self.vectors(dataset, fragment, column)
            inverses = step.step(vectors, known.inverses)
            unknown = np.full(self.rows, np.nan)
            near = WhitenedRows(used, inverses, unknown, off=step.off)
            self.near_whitened[column] = near
        return near

    @property
    def database(self) -> str:
        """The database's address."""
        return self.key.partition("|")[0].removeprefix("file://").rpartition("/")[0]

    @property
    def files(self) -> str:
        """The names of the data files, between bars."""
        return self.key.partition("|")[2]

    def release(self) -> None:
        """Let the system take back the memory of mapped vectors; they come again when used."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)

    def _mapped(self, dataset: Any, fragment: Any, column: str) -> torch.Tensor | None:
        if self._places is None:
            self._places = _find_places(dataset, fragment)
        place = self._places.get(column)
        if place is None:
            return None
        if place.remote is not None:
            place = self._fetch(dataset, fragment, column, place)
        try:
            with place.path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError:
            return None
        self._maps.append(mapped)
        flat = np.frombuffer(mapped, np.float16, self.rows * place.width, place.begin or 0)
        return as_tensor(flat.reshape(self.rows, place.width))

    def _fetch(self, dataset: Any, fragment: Any, column: str, place: _Place) -> _Place:
        """The same rows in a file on this machine that has nothing else."""
        uri, name = self.database, place.remote
        assert name is not None
        size = self.rows * place.width * _FLOAT16_BYTES

        def read() -> bytes:
            if place.begin is None:
                return _read(dataset, fragment, column).numpy().tobytes()
            return read_range(uri, f"pairs.lance/data/{name}", place.begin, size)

        return _Place(fetch_vectors(uri, name, column, size, read), 0, place.width)


@dataclass(frozen=True, slots=True)
class NamedWhitening:
    """A whitening and the name of the sample that it was fitted on."""

    fit: str
    whitening: Whitening


@dataclass(frozen=True, slots=True)
class WhitenedRows:
    """Whitened distances of a fragment's rows.

    Attributes:
        used: the whitening.
        inverses: (n,) float64, 1 / distance.
        exact: (n,) float64, those that are known exactly; NaN for the others, until some search
            needs them.
        kept: whether they are on disk.
        off: how far they may be off, as shares of themselves; 0 if they are exact.
    """

    used: NamedWhitening
    inverses: Float64Array
    exact: Float64Array
    kept: bool = False
    off: float = 0.0


def hash_ids(pair_ids: pa.Array | pa.ChunkedArray) -> UInt64Array:
    """A fixed 64-bit hash of each id: (n,)."""
    ids = (str(pair_id).encode() for pair_id in pair_ids.to_pylist())
    joined = b"".join(hashlib.blake2b(one, digest_size=8).digest() for one in ids)
    return np.frombuffer(joined, "<u8").astype(np.uint64)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column lies as plain rows: from byte `begin` of the file, `width` numbers a row.

    Of a file in an object store the name is known, and None where its rows are not plain.
    """

    path: Path
    begin: int | None
    width: int
    remote: str | None = None


def open_fragment(dataset: Any, fragment: Any) -> Fragment:
    """The rows of a Lance fragment, shared with all who hold them."""
    key = f"{dataset.uri}|{'|'.join(map(_file_name, fragment.data_files()))}"
    held = _shared.get(key)
    if held is None:
        held = _shared[key] = Fragment(key, int(fragment.physical_rows))
    return held


def _file_name(data: Any) -> str:
    """The name of a data file; Lance's own `path` makes a class each time it is asked, 0.1 ms."""
    return str(getattr(data, "_path", None) or data.path)


def name_state(held: Fragment, fragment: Any) -> str:
    """A name of a fragment's data files and deletions, equal where rows and mask are."""
    return f"{held.key}|{fragment.deletion_file()}"


def open_mask(held: Fragment, fragment: Any) -> BoolArray:
    """Which rows of a fragment are live in the version that `fragment` was taken from: (rows,)."""
    key = name_state(held, fragment)
    live = _masks.get(key)
    if live is None:
        live = np.ones(held.rows, dtype=np.bool_)
        if fragment.deletion_file() is not None:
            with storage_errors(held.database):
                rows = _scan(fragment, "_rowid")["_rowid"]
            live = rows.is_valid().to_numpy(zero_copy_only=False)
        _masks[key] = live
    return live


def _scan(fragment: Any, column: str) -> Any:
    """All rows ever written to a fragment; `_rowid` is null for those deleted since."""
    columns = [] if column == "_rowid" else [column]
    return fragment.scanner(columns=columns, include_deleted_rows=True, with_row_id=True).to_table()


def _read(dataset: Any, fragment: Any, column: str) -> torch.Tensor:
    if isinstance(dataset, AttachedState):
        held = dataset.take_vectors(fragment.fragment_id, column)
        if held is not None:
            return torch.from_numpy(held)
    vectors = _scan(fragment, column)[column].combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return torch.from_numpy(flat.reshape(len(vectors), vectors.type.list_size).copy())


def _find_places(dataset: Any, fragment: Any) -> dict[str, _Place]:
    """The places of all columns of vectors that lie in files as plain rows, or in objects."""
    found: dict[str, _Place] = {}
    if isinstance(dataset, AttachedState) or fragment.metadata.overlays:
        return found  # somebody else's vectors are made ours while they are read
    names = {field.id(): field.name() for field in dataset.lance_schema.fields()}
    for data in fragment.data_files():
        name = _file_name(data)
        address = f"{dataset.uri.removeprefix('file://')}/data/{name}"
        remote = name if is_remote(address) else None
        if data.base_id is not None or not (remote or Path(address).is_file()):
            continue
        columns = LanceFileReader(address).metadata().columns
        for field, at in zip(data.fields, data.column_indices, strict=True):
            plain = _find_plain_rows(columns[at].pages, fragment.physical_rows) if at >= 0 else None
            column = names.get(field, "")
            if plain is not None and column:
                found[column] = _Place(Path(address), *plain, remote)
            elif remote and column.endswith("_vector"):
                width = dataset.schema.field(column).type.list_size
                found[column] = _Place(Path(address), None, width, remote)
    return found


def _find_plain_rows(pages: Sequence[Any], rows: int) -> tuple[int, int] | None:
    """Where a column's rows begin in its file and how wide they are; None if not plain."""
    begin, seen, width = None, 0, 0
    for page in pages:
        if len(page.buffers) != 1:
            return None
        layout = _PLAIN.search(" ".join(str(page.encoding).split()))
        if layout is None:
            return None
        (buffer,) = page.buffers
        begin = buffer.position if begin is None else begin
        count, width = int(layout[1]), int(layout[2])
        if (
            buffer.position != begin + seen * width * _FLOAT16_BYTES
            or buffer.size != count * width * _FLOAT16_BYTES
        ):
            return None  # another page or padding lies between
        seen += count
    return None if begin is None or seen != rows else (begin, width)
