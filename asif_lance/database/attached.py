"""Somebody else's Lance table as the pairs of a database of ours, read-only and in place.

The database's folder names the table and its columns in `attached.json`; its own table of pairs
stays empty. `AttachedState` shows a version of the table with the columns of ours: ids and captions
as texts, vectors of unit length as float16, made while they are read. Nothing is written there, and
nothing of its rows is kept here. Its own Lance versions are the model versions, its tags aliases.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC
from functools import cached_property
from pathlib import Path
from typing import Any

import lance
import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.database.attached_rows import (
    DUPLICATE,
    REASONS,
    convert_column,
    judge_rows,
    vector_width,
)
from asif_lance.database.schemas import pairs_schema
from asif_lance.errors import (
    CorruptDatabaseError,
    DimensionError,
    InputError,
    StorageError,
    printable,
)
from asif_lance.object_stores import check_endpoint
from asif_lance.records import LATEST, BoolArray, Float16Array, Int64Array

_FILE = "attached.json"
_SIDES = ("image_vector", "text_vector")
_PLACE_BITS = 32  # of a row's address, below its fragment's id

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Attachment:
    """Which table a database reads, and how.

    Attributes:
        table: the Lance table's address.
        columns: what columns of ours are called there: `pair_id`, `image_vector` and `text_vector`
            at least.
    """

    table: str
    columns: Mapping[str, str]

    def open(self, version: int | None = None) -> lance.LanceDataset:
        """The table itself, at its head or a version.

        Raises:
            StorageError: it is gone.
        """
        check_endpoint(self.table)
        try:
            return lance.dataset(self.table, version=version)
        except ValueError as error:
            remote = "://" in self.table
            left = version is not None if remote else (Path(self.table) / "_versions").is_dir()
            if left or "was not found" not in str(error):
                raise
            raise StorageError(
                f"the table that this database is attached to is gone: {printable(self.table)}"
            ) from error

    def version_rows(self) -> list[Row]:
        """Its versions as rows of our table `versions`, oldest first; `added` and `removed` net."""
        dataset = self.open()
        tags: dict[int, list[str]] = {}
        for tag, found in sorted(dataset.tags.list().items()):
            if tag == LATEST or tag.isdecimal():
                continue  # as a name that means the newest version, or the version of that number
            tags.setdefault(int(found["version"]), []).append(tag)
        rows: list[Row] = []
        for one in dataset.versions():
            number = int(one["version"])
            pairs = self._count(number, one["metadata"])
            more = pairs - (rows[-1]["pairs"] if rows else 0)
            rows.append(
                {
                    "name": str(number),
                    "number": number,
                    "message": "",
                    "command": "",
                    "created_at": one["timestamp"].astimezone(UTC),
                    "pairs": pairs,
                    "added": max(more, 0),
                    "removed": max(-more, 0),
                    "aliases": tags.get(number, []),
                }
            )
        return rows

    def _count(self, version: int, metadata: Mapping[str, str]) -> int:
        told = metadata.get("total_rows")
        return int(told) if told is not None else int(self.open(version).count_rows())


def find_attachment(uri: str) -> Attachment | None:
    """What a database is attached to; None for one with pairs of its own.

    Raises:
        CorruptDatabaseError: the file that says it cannot be read.
    """
    if "://" in uri:
        return None
    try:
        value = json.loads((Path(uri) / _FILE).read_text("utf-8"))
        return Attachment(str(value["table"]), dict(value["columns"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorruptDatabaseError(uri, _FILE, f"it cannot be read: {error}") from error


def write_attachment(uri: str, attachment: Attachment) -> None:
    """Has a database's folder name a table; the file is there as a whole or not at all."""
    path = Path(uri) / _FILE
    part = path.with_suffix(f".{os.getpid()}.tmp")
    part.write_text(json.dumps(asdict(attachment), indent=2, ensure_ascii=False) + "\n", "utf-8")
    part.replace(path)


class AttachedState:
    """One version of the table, with the part of `lance.LanceDataset` that reading pairs takes.

    Attributes:
        uri: where a database of ours would have its pairs.
        stored: the table itself, checked out at the version.
        columns: what columns of ours are called there.
        schema: that of our pairs; what the table does not have is null.
    """

    def __init__(self, uri: str, attachment: Attachment, version: int | None = None) -> None:
        """Open a version, by default the newest; rows are looked at when they are asked for.

        Raises:
            InputError: this version has no such vectors or ids.
        """
        self.uri, self.stored = f"{uri}/pairs.lance", attachment.open(version)
        there = self.stored.schema.names
        self.columns = {ours: n for ours, n in attachment.columns.items() if n in there}
        for name in ("pair_id", *_SIDES):
            if name not in self.columns:
                wanted = attachment.columns[name]
                raise InputError(f"version {self.version} of {attachment.table} has no {wanted!r}")
        widths = [vector_width(self.stored.schema.field(self.columns[side])) for side in _SIDES]
        self.schema = pairs_schema(*widths)
        self._held: dict[int, dict[str, list[Float16Array]]] = {}

    @property
    def version(self) -> int:
        """Lance's number of the version."""
        return int(self.stored.version)

    def check_dimensions(self, image: int, text: int) -> AttachedState:
        """Itself, if its vectors have these sizes.

        Raises:
            DimensionError: they have not.
        """
        for side, expected in zip(_SIDES, (image, text), strict=True):
            given = self.schema.field(side).type.list_size
            if given != expected:
                raise DimensionError(
                    f"{self.columns[side]} of version {self.version}", expected, given
                )
        return self

    @cached_property
    def _raw(self) -> list[lance.LanceFragment]:
        return sorted(self.stored.get_fragments(), key=lambda one: one.fragment_id)

    @cached_property
    def _verdicts(self) -> list[NDArray[np.int8]]:
        """Per fragment, for every row ever written: 0 where it can be a pair, else a reason."""
        judged = [
            judge_rows(fragment, self.columns, self._held.get(fragment.fragment_id, {}))
            for fragment in self._raw
        ]
        ids = pa.chunked_array([ids for ids, _ in judged], pa.string())
        verdicts = np.concatenate([np.zeros(0, np.int8), *(verdict for _, verdict in judged)])
        live = np.concatenate([np.zeros(0, np.bool_), *self._alive])
        able = np.flatnonzero(live & (verdicts == 0))
        first = pl.Series(pl.from_arrow(ids.take(pa.array(able)))).is_first_distinct()
        verdicts[able[~first.to_numpy()]] = DUPLICATE
        ends = np.cumsum([len(ids) for ids, _ in judged])[:-1]
        return np.split(verdicts, ends) if judged else []

    def hold_vectors(self, fragment_ids: Iterable[int]) -> None:
        """Keep the vectors of some fragments when their rows are looked at, until they are taken.

        Whoever will ask for them anyway then need not read them again.
        """
        if "_verdicts" not in vars(self):
            self._held = {one: {side: [] for side in _SIDES} for one in fragment_ids}

    def take_vectors(self, fragment_id: int, side: str) -> Float16Array | None:
        """Those that were kept, (rows ever written, d), once; None if there are none."""
        parts = self._held.get(fragment_id, {}).pop(side, [])
        return np.concatenate(parts) if parts else None

    @cached_property
    def _alive(self) -> list[BoolArray]:
        return [live_rows(fragment) for fragment in self._raw]

    @cached_property
    def _kept(self) -> list[BoolArray]:
        """Per fragment: the rows that are neither deleted nor left out."""
        return [live & (bad == 0) for live, bad in zip(self._alive, self._verdicts, strict=True)]

    def left_out(self) -> dict[str, int]:
        """How many live rows cannot be pairs, by reason."""
        live = [bad[alive] for alive, bad in zip(self._alive, self._verdicts, strict=True)]
        counts = np.bincount(np.concatenate([np.zeros(0, np.int8), *live]), minlength=len(REASONS))
        return {REASONS[i]: int(n) for i, n in enumerate(counts) if i and n}

    def left_out_addresses(self) -> list[int]:
        """Lance's addresses of those rows."""
        each = zip(self._raw, self._alive, self._verdicts, strict=True)
        return [
            (fragment.fragment_id << _PLACE_BITS) + int(place)
            for fragment, alive, verdicts in each
            for place in np.flatnonzero(alive & (verdicts != 0))
        ]

    def get_fragments(self) -> list[AttachedFragment]:
        """The fragments, by id."""
        return [AttachedFragment(self, i) for i in range(len(self._raw))]

    def count_rows(self) -> int:
        """How many pairs there are."""
        return sum(int(kept.sum()) for kept in self._kept)

    def config(self) -> dict[str, str]:
        """Nothing of ours is kept in the table."""
        return {}

    def describe_indices(self) -> list[Any]:
        """Its indices, which are not used."""
        return list(self.stored.describe_indices())

    def take(self, indices: Sequence[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of the pairs at these places among all pairs, in that order."""
        both = zip(self._alive, self._kept, strict=True)
        kept = np.concatenate([np.zeros(0, np.bool_), *(kept[alive] for alive, kept in both)])
        names = self._names(columns)
        places: Int64Array = np.flatnonzero(kept)[np.asarray(indices, dtype=np.int64)]
        # Ids in any case: Lance takes no rows without columns.
        rows = self.stored.take(places.tolist(), self.stored_names([*names, "pair_id"]))
        return pa.table(self.convert(rows, names), schema=self._projected(names))

    def _take_rows(self, addresses: pa.Array, columns: Sequence[str]) -> pa.Table:
        """Columns of the pairs at Lance's addresses, in that order, as Lance's own."""
        rows = self.stored._take_rows(addresses, columns=self.stored_names([*columns, "pair_id"]))
        return pa.table(self.convert(rows, columns), schema=self._projected(columns))

    def convert(self, rows: pa.Table | pa.RecordBatch, names: Sequence[str]) -> list[Any]:
        """Columns of ours, made of some rows there."""
        return [convert_column(rows, self.schema.field(n), self.columns.get(n)) for n in names]

    def scanner(
        self, columns: Sequence[str] | None = None, *, fragments: Any = None, **asked: Any
    ) -> AttachedScanner:
        """A scan of all pairs, or those of some fragments, as Lance's own."""
        chosen = fragments or self.get_fragments()
        return AttachedScanner(self, chosen, self._names(columns), **asked)

    def to_table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of all pairs."""
        return self.scanner(columns).to_table()

    def _names(self, columns: Sequence[str] | None) -> list[str]:
        return self.schema.names if columns is None else list(columns)

    def _projected(self, names: Sequence[str]) -> pa.Schema:
        return pa.schema([self.schema.field(name).with_nullable(True) for name in names])

    def stored_names(self, names: Sequence[str]) -> list[str]:
        """What some columns of ours are called there, each once."""
        return list(dict.fromkeys(self.columns[n] for n in names if n in self.columns))


class AttachedFragment:
    """One fragment of such a state, with the part of `lance.LanceFragment` that reading takes."""

    def __init__(self, state: AttachedState, place: int) -> None:
        self.state, self._place = state, place
        self.stored = state._raw[place]
        self.fragment_id, self.metadata = self.stored.fragment_id, self.stored.metadata

    @property
    def physical_rows(self) -> int:
        """Rows ever written to it."""
        return int(self.stored.physical_rows)

    @property
    def kept(self) -> BoolArray:
        """Which of them are pairs."""
        return self.state._kept[self._place]

    def count_rows(self) -> int:
        """How many are."""
        return int(self.kept.sum())

    def data_files(self) -> list[Any]:
        """Lance's descriptions of its files."""
        return list(self.stored.data_files())

    def deletion_file(self) -> str | None:
        """A name of which rows are no pairs, deleted or left out; None if all are."""
        if self.kept.all():
            return None
        return hashlib.blake2b(np.packbits(self.kept).tobytes(), digest_size=16).hexdigest()

    def scanner(self, columns: Sequence[str] | None = None, **asked: Any) -> AttachedScanner:
        """A scan of its pairs."""
        return AttachedScanner(self.state, [self], self.state._names(columns), **asked)


class AttachedScanner:
    """One scan: Lance's own of the table, each batch converted."""

    def __init__(
        self,
        state: AttachedState,
        fragments: Sequence[AttachedFragment],
        names: Sequence[str],
        *,
        batch_size: int | None = None,
        include_deleted_rows: bool = False,
        with_row_id: bool = False,
        with_row_address: bool = False,
        scan_in_order: bool = True,
    ) -> None:
        self._state, self._fragments, self._names = state, fragments, names
        self._size, self._whole = batch_size, include_deleted_rows
        asked = {"_rowid": with_row_id, "_rowaddr": with_row_address}
        self._marks = [name for name, wanted in asked.items() if wanted]

    @property
    def projected_schema(self) -> pa.Schema:
        """The columns that come."""
        own = self._state._projected(self._names)
        return pa.schema([*own, *(pa.field(mark, pa.uint64()) for mark in self._marks)])

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, batch by batch."""
        for fragment in self._fragments:
            yield from self._scan(fragment)

    def to_table(self) -> pa.Table:
        """All rows."""
        return pa.Table.from_batches(self.to_batches(), self.projected_schema)

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows as a stream."""
        return pa.RecordBatchReader.from_batches(self.projected_schema, self.to_batches())

    def _scan(self, fragment: AttachedFragment) -> Iterator[pa.RecordBatch]:
        state, start = self._state, 0
        scanner = fragment.stored.scanner(
            columns=state.stored_names(self._names),
            batch_size=self._size,
            include_deleted_rows=True,
            with_row_id=True,  # so that there are rows where no column is asked for
        )
        for batch in scanner.to_batches():
            kept = fragment.kept[start : start + len(batch)]
            base = (fragment.fragment_id << _PLACE_BITS) + start
            addresses = pa.array(base + np.arange(len(batch), dtype=np.uint64), mask=~kept)
            columns = [*state.convert(batch, self._names), *(addresses for _ in self._marks)]
            rows = pa.RecordBatch.from_arrays(columns, schema=self.projected_schema)
            yield rows if self._whole else rows.filter(pa.array(kept))
            start += len(batch)


def live_rows(fragment: lance.LanceFragment) -> BoolArray:
    """Which of all rows ever written to a fragment are not deleted."""
    if fragment.deletion_file() is None:
        return np.ones(fragment.physical_rows, np.bool_)
    rows = fragment.scanner(columns=[], include_deleted_rows=True, with_row_id=True).to_table()
    return np.asarray(rows["_rowid"].is_valid(), np.bool_)
