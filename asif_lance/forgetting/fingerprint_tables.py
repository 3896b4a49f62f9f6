"""The fingerprints of many receipts in tables: whole columns are looked up in them at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from asif_lance.database import HashTable
from asif_lance.records import Int64Array
from asif_lance.verifier import Receipt, as_binary, as_matrix, is_vector

UInt64Array = NDArray[np.uint64]

# Receipts keep 16 bytes of a hash. Half of them are compared: with a million fingerprints, one of
# 10^13 values is mistaken for one of them.
_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class Forgetting:
    """Which receipt something was found in.

    Attributes:
        receipt_id: its name.
        created_at: when the forgetting began; UTC.
        key: of its fingerprints.
    """

    receipt_id: str
    created_at: datetime
    key: bytes


class FingerprintTables:
    """The fingerprints of all receipts that were made with one key.

    Values that pairs which stayed have too are no sign of a forgotten pair: a picture may have
    five captions of which one was forgotten.

    Attributes:
        key: of the fingerprints.
        receipts: these.
        ids: of pairs.
        values, vectors: texts, pictures and vectors of forgotten pairs.
        own_values, own_vectors: those that no pair which stayed had.
    """

    def __init__(self, key: bytes, receipts: Sequence[Receipt]) -> None:
        """Fills the tables.

        Raises:
            ValueError: a receipt has fingerprints that are none.
        """
        self.key = key
        self.receipts = [Forgetting(r.receipt_id, r.created_at, key) for r in receipts]
        self.ids, self.values, self.vectors = HashTable(), HashTable(), HashTable()
        self.own_values, self.own_vectors = HashTable(), HashTable()
        for number, receipt in enumerate(receipts):
            _fill(self.ids, receipt.ids, number)
            _fill(self.values, receipt.values, number)
            _fill(self.vectors, receipt.vectors, number)
            if isinstance(receipt.shared, tuple) or not receipt.shared:
                shared = frozenset(receipt.shared or ())
                _fill(self.own_values, _leave_out(receipt.values, shared), number)
                _fill(self.own_vectors, _leave_out(receipt.vectors, shared), number)

    def hash(self, column: pa.Array) -> tuple[Int64Array, UInt64Array]:
        """Which of n texts, binaries or vectors (float16, all there) are not null; their hashes."""
        if is_vector(column.type):
            return np.arange(len(column)), hash_rows(self.key, as_matrix(column))
        places = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
        return places, hash_values(self.key, as_binary(column.drop_null()).to_pylist())

    def find(self, table: HashTable, column: pa.Array) -> dict[int, set[int]]:
        """Rows of a column that a table has, and the numbers of the receipts that they are in."""
        places, hashes = self.hash(column)
        rows, numbers = table.find(hashes)
        found: dict[int, set[int]] = {}
        for row, number in zip(places[rows].tolist(), numbers.tolist(), strict=True):
            found.setdefault(row, set()).add(number)
        return found


def hash_values(key: bytes, values: Iterable[bytes | memoryview]) -> UInt64Array:
    """(n,) the first halves of the fingerprints of n values."""
    keyed = hashlib.blake2b(key=key, digest_size=_DIGEST_BYTES)

    def digest(value: bytes | memoryview) -> bytes:
        state = keyed.copy()
        state.update(value)
        return state.digest()

    return _take_halves(b"".join(map(digest, values)))


def hash_rows(key: bytes, matrix: NDArray[np.floating]) -> UInt64Array:
    """(n,) the first halves of the fingerprints of (n, d) float16 vectors."""
    rows = np.ascontiguousarray(matrix, np.float16)
    data, width = rows.reshape(-1).view(np.uint8).data, rows.shape[1] * rows.itemsize
    return hash_values(key, (data[at : at + width] for at in range(0, len(data), width)))


def _fill(table: HashTable, prints: Collection[str], number: int) -> None:
    halves = _take_halves(bytes.fromhex("".join(prints)))
    table.add(halves, np.full(len(halves), number, np.uint64))


def _leave_out(prints: Sequence[str], shared: frozenset[str]) -> Sequence[str]:
    return [one for one in prints if one not in shared] if shared else prints


def _take_halves(digests: bytes) -> UInt64Array:
    # Receipts list fingerprints sorted: read in this order, numbers are sorted as well.
    return np.frombuffer(digests, ">u8")[::2].astype(np.uint64)
