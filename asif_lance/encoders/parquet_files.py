"""Parquet files read a piece at a time; damage costs its rows, and no small file takes much memory.

A few hundred bytes of Parquet can stand for gigabytes: a long text that a million rows refer to, a
run of a billion equal numbers. So what a file says of its own size is checked before it is read,
and as few rows are read at once as could need the memory of one piece.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from asif_lance.encoders.decoding import MAX_BYTES
from asif_lance.errors import SourceError, printable
from asif_lance.object_files import PinnedFile, is_object

# What Arrow and polars raise on damaged data. A panic of polars is no `Exception`, but it is caught
# at the border of its own code and leaves nothing half done.
PARQUET_DAMAGE = (
    pa.ArrowException,
    OSError,
    MemoryError,
    OverflowError,
    UnicodeDecodeError,
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)

# A piece takes about so much memory, if one row does not need more.
PIECE_BYTES = 32 * 2**20

# Usual files hold no more rows than bytes, and do not grow a hundredfold.
_MAX_ROWS = 1_000_000
_MAX_GROWTH = 100
_MAX_GROWN_BYTES = 256 * 2**20

# Bytes per value by physical type; texts count as the offset to where they begin.
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "FLOAT": 4, "BYTE_ARRAY": 4, "INT96": 12}


@dataclass(frozen=True, slots=True)
class UnreadableRows:
    """Consecutive rows that cannot be read, counted from 1, and why."""

    first: int
    last: int
    reason: str

    def __str__(self) -> str:
        return (
            f"row {self.first}" if self.first == self.last else f"rows {self.first} to {self.last}"
        )


#: The number of the first row (from 1), and the rows themselves; or why there are none.
Piece: TypeAlias = tuple[int, pl.DataFrame] | UnreadableRows


class ParquetRows:
    """An open Parquet file.

    Attributes:
        names: its columns.
        schema: those whose types polars has.
        metadata: what is noted beside the columns.
    """

    def __init__(self, path: Path) -> None:
        """Open a file.

        Raises:
            SourceError: it is not Parquet, or claims to hold more than its size allows.
        """
        try:
            self._pinned = PinnedFile(path)
            whole = self._pinned.open() if is_object(path) else path
            metadata = pq.read_metadata(whole)
            self._file = pq.ParquetFile(
                whole,
                metadata=metadata,
                read_dictionary=_columns_by_reference(metadata.schema),
                pre_buffer=False,
                buffer_size=1 << 20,
                page_checksum_verification=True,
            )
            self._size = self._pinned.size
            arrow = self._file.schema_arrow
            self.names: list[str] = arrow.names
            self.metadata: Mapping[bytes, bytes] = arrow.metadata or {}
            types = {field.name: _plain_type(field.type) for field in arrow}
            readable = {name: kind for name, kind in types.items() if _is_readable(kind)}
            empty = pl.DataFrame(pl.from_arrow(pa.schema(readable.items()).empty_table()))
            self.schema: pl.Schema = empty.schema
        except PARQUET_DAMAGE as error:
            reason = f"is not readable Parquet: {first_line(error)}"
            raise SourceError(f"{printable(str(path))} {reason}") from error
        rows = metadata.num_rows
        if rows > max(_MAX_ROWS, self._size):
            claim = f"claims to hold {rows:,} rows in {self._size:,} bytes"
            raise SourceError(f"{printable(str(path))} {claim}")

    def pieces(
        self, columns: Sequence[str], most_rows: int, groups: tuple[int, int] | None = None
    ) -> Iterator[Piece]:
        """The rows of some columns in order, at most `most_rows` at a time.

        With `groups`, those from one row group up to another, without it.
        """
        first, (begin, end) = 1, groups or (0, self._file.num_row_groups)
        for group in range(min(end, self._file.num_row_groups)):
            last = first + max(self._file.metadata.row_group(group).num_rows, 0) - 1
            if group < begin:
                first = last + 1
                continue
            try:
                for piece in self._pieces_of(group, first, columns, most_rows):
                    yield piece
                    first = piece.last + 1 if isinstance(piece, UnreadableRows) else _end(piece)
            except PARQUET_DAMAGE as error:
                yield UnreadableRows(first, last, f"damaged Parquet ({first_line(error)})")
            first = last + 1

    def _pieces_of(
        self, group: int, first: int, columns: Sequence[str], most_rows: int
    ) -> Iterator[Piece]:
        self._check_chunks(group)
        count = self._file.metadata.row_group(group).num_rows
        size, largest_row = self._sizes(group, set(columns))
        if size > max(_MAX_GROWN_BYTES, _MAX_GROWTH * self._size):
            reason = f"{self._size:,} bytes of Parquet would grow to {size:,}"
            yield UnreadableRows(first, first + count - 1, reason)
            return
        rows = PIECE_BYTES // max(size // max(count, 1) + largest_row, 1)
        rows = min(max(rows, 1), most_rows)
        batches = self._file.iter_batches(rows, row_groups=[group], columns=list(columns))
        for batch in _gather(batches, most_rows):
            batch.validate(full=True)
            yield from _decoded(batch, first)
            first += batch.num_rows

    def _check_chunks(self, group: int) -> None:
        """Fail if the file's notes on a row group are damaged: pyarrow's own look would abort."""
        every = range(self._file.metadata.num_columns)
        no_rows = self._file.reader.iter_batches(0, row_groups=[group], column_indices=every)
        for _ in no_rows:
            pass

    def _sizes(self, group: int, columns: set[str]) -> tuple[int, int]:
        """Bytes of a row group without compression, and at most of what a row may refer to."""
        metadata, size, largest_row = self._file.metadata.row_group(group), 0, 0
        for i in range(metadata.num_columns):
            chunk = metadata.column(i)
            if any(f"{chunk.path_in_schema}.".startswith(f"{name}.") for name in columns):
                column = self._file.schema.column(i)
                width = column.length or _WIDTHS.get(chunk.physical_type, 8)
                shared = _dictionary_size(self._pinned, chunk)
                size += max(chunk.total_uncompressed_size, chunk.num_values * width, shared)
                if chunk.physical_type == "BYTE_ARRAY" and not _is_by_reference(column):
                    largest_row += shared
        return size, largest_row


def first_line(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def _end(piece: tuple[int, pl.DataFrame]) -> int:
    return piece[0] + len(piece[1])


def _gather(batches: Iterator[pa.RecordBatch], most_rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of nearly `most_rows`, or fewer where these would be large."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if waiting and (rows + batch.num_rows > most_rows or size + batch.nbytes > PIECE_BYTES):
            yield _joined(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)  # which copies even one


def _columns_by_reference(schema: pq.ParquetSchema) -> list[str]:
    columns = (schema.column(i) for i in range(len(schema)))
    return [column.path for column in columns if _is_by_reference(column)]


def _is_by_reference(column: pq.ColumnSchema) -> bool:
    """Whether a column holds texts, or bytes in lists: many rows may refer to a long one of them.

    They are read as references, so that their size is known before they take any memory. Bytes
    that are no lists are pictures, which would only be copied once more.
    """
    is_text = column.logical_type.type == "STRING" or column.max_repetition_level > 0
    return bool(column.physical_type == "BYTE_ARRAY" and is_text)


def _dictionary_size(file: PinnedFile, chunk: pq.ColumnChunkMetaData) -> int:
    """Bytes of the values that the rows of a column chunk refer to, 0 if they refer to none."""
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    with file.open() as stream:
        stream.seek(start)
        header = stream.read(8)
    # Thrift's compact protocol: the page's type (0 and 3 are data, 2 a dictionary), then its size
    # without compression, both as zigzag numbers of seven bits a byte.
    if header[:2] in (b"\x15\x00", b"\x15\x06"):
        return 0
    if header[:3] != b"\x15\x04\x15":
        return int(chunk.total_uncompressed_size)
    size = 0
    for i, byte in enumerate(header[3:]):
        size |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            break
    return size >> 1


def _decoded(batch: pa.RecordBatch, first: int) -> Iterator[Piece]:
    """The batch with texts instead of references, in halves as long as it would be too large."""
    size = sum(map(_decoded_size, batch.columns))
    if size > PIECE_BYTES and batch.num_rows > 1:
        half = batch.num_rows // 2
        for start, end in ((0, half), (half, batch.num_rows)):
            rows = batch.take(pa.array(range(start, end)))  # a slice would be cast as a whole
            yield from _decoded(rows, first + start)
    elif size > PIECE_BYTES + MAX_BYTES:
        yield UnreadableRows(first, first, f"row too large ({size >> 20} MiB)")
    else:
        plain = pa.schema([field.with_type(_plain_type(field.type)) for field in batch.schema])
        yield first, pl.DataFrame(pl.from_arrow(batch.cast(plain)))


def _decoded_size(array: Any) -> int:
    """Bytes of an Arrow array whose references are replaced by what they refer to."""
    kind = array.type
    if pa.types.is_dictionary(kind):
        if not _is_binary(kind.value_type):
            return len(array) * 8
        used = array.indices.value_counts()
        sizes = pc.binary_length(array.dictionary.take(used.field("values")))
        return pc.sum(pc.multiply(pc.cast(sizes, pa.int64()), used.field("counts"))).as_py() or 0
    if pa.types.is_struct(kind):
        return sum(map(_decoded_size, array.flatten()))
    if _is_list(kind):
        return _decoded_size(array.flatten())
    return int(array.nbytes)


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        return _plain_type(kind.storage_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_plain_type(field.type)) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_plain_type(kind.value_type), kind.list_size)
    if _is_list(kind):
        return pa.large_list(_plain_type(kind.value_type))
    return kind


def _is_readable(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return all(_is_readable(field.type) for field in kind)
    if _is_list(kind):
        return _is_readable(kind.value_type)
    types = pa.types
    numeric = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal128(kind)
    plain = types.is_boolean(kind) or types.is_null(kind) or types.is_fixed_size_binary(kind)
    return bool(numeric or plain or types.is_temporal(kind)) or _is_binary(kind)


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    own = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    return any(is_kind(kind) for is_kind in own)


def _is_binary(kind: pa.DataType) -> bool:
    types = pa.types
    texts = (types.is_string, types.is_large_string, types.is_string_view)
    data = (types.is_binary, types.is_large_binary, types.is_binary_view)
    return any(is_kind(kind) for is_kind in (*texts, *data))
