"""What was forgotten as quick hashes in the table `sealed_hashes`, one row for a receipt.

They rule out nearly every new pair without a look into receipts, whose fingerprints decide about
the others. They are encrypted and authenticated with a key that is derived from the key of the
fingerprints: without that they confirm no guess, and nobody takes one out unnoticed. A receipt
without a row that can be opened is read itself.
"""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

import numpy as np
import pyarrow as pa
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from asif_lance.database import read_table, schemas, upsert_rows
from asif_lance.forgetting.keys import find_fingerprint_keys
from asif_lance.forgetting.quick_hashes import UInt64Array, hash_column
from asif_lance.verifier import name_key

_TABLE = "sealed_hashes"
_PURPOSE = b"asif-lance sealed hashes, 1"
_NONCE_BYTES = 16
_TEXTS = ("pair_id", "image_sha256", "thumbnail")


def save_hashes(uri: str, receipt_id: str, rows: pa.Table, key: bytes) -> None:
    """Keeps the hashes of what is looked up in a receipt, in one commit; again for nothing new.

    Args:
        uri: the database.
        receipt_id: which; the receipt itself may come later.
        rows: what is forgotten, columns as in `pairs`.
        key: of the fingerprints.
    """
    sealed = _seal(_hash_rows(rows), receipt_id, key)
    row = {"receipt_id": [receipt_id], "key_id": [name_key(key)], "sealed": [sealed]}
    upsert_rows(uri, _TABLE, pa.table(row, schema=schemas.SEALED_HASHES), "receipt_id")


def load_hashes(uri: str, folder: Path | None) -> dict[str, UInt64Array]:
    """The hashes of the receipts whose key is there and that nobody altered.

    Args:
        uri: the database.
        folder: of the keys; by default the user's.

    Raises:
        KeysError: a file is no key.
    """
    rows = read_table(uri, _TABLE)
    keys = find_fingerprint_keys(folder) if len(rows) else {}
    names = zip(rows["receipt_id"].to_pylist(), rows["key_id"].to_pylist(), strict=True)
    found = {}
    for at, (receipt_id, key_id) in enumerate(names):
        if key_id in keys:
            words = rows["sealed"][at].values.to_numpy(zero_copy_only=False)
            hashes = _unseal(words, receipt_id, keys[key_id])
            if hashes is not None:
                found[receipt_id] = hashes
    return found


def _hash_rows(rows: pa.Table) -> UInt64Array:
    """All that rows are looked up by: ids, pictures, and vectors that may be a picture's."""
    vectors = [n for n in ("image_vector", "text_vector") if n in rows.column_names]
    alike = [n for n in vectors if rows[n].type == rows[vectors[0]].type]
    names = [*(name for name in _TEXTS if name in rows.column_names), *alike]
    columns = [rows[name].combine_chunks().drop_null() for name in names]
    return np.unique(np.concatenate([hash_column(column) for column in columns]))


def _make_cipher(key: bytes) -> AESGCM:
    return AESGCM(hashlib.blake2b(_PURPOSE, key=key, digest_size=32).digest())


def _seal(hashes: UInt64Array, receipt_id: str, key: bytes) -> UInt64Array:
    """Nonce, ciphertext and tag as numbers: who scans a database takes bytes for a text."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = hashes.astype("<u8").tobytes()
    sealed = nonce + _make_cipher(key).encrypt(nonce, plain, receipt_id.encode())
    return np.frombuffer(sealed, "<u8").astype(np.uint64)


def _unseal(words: UInt64Array, receipt_id: str, key: bytes) -> UInt64Array | None:
    """The hashes, if they are those that were sealed for this receipt."""
    sealed = words.astype("<u8", copy=False).view(np.uint8)
    nonce, rest = sealed[:_NONCE_BYTES].tobytes(), sealed[_NONCE_BYTES:]
    if len(nonce) < _NONCE_BYTES:
        return None
    try:
        plain = _make_cipher(key).decrypt(nonce, rest.data, receipt_id.encode())
    except InvalidTag:
        return None
    return np.frombuffer(plain, "<u8").astype(np.uint64, copy=False)
