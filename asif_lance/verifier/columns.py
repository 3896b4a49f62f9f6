"""Texts, binaries and vectors in the columns of any file, however deep inside lists and structs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.records import Int64Array
from asif_lance.verifier.fingerprints import is_text, is_vector

# Labels and templates that users ask with may read like a caption, and are still their own words.
_WORDS_OF_USERS = {"label", "label_set", "templates", "truth"}
_LONGER_TEXT = 8

# Texts, binaries or vectors, where they are, and the row of each; -1 where that is not known.
Leaf = tuple[pa.Array, str, Int64Array]


def find_leaves(batch: pa.RecordBatch, program: set[str]) -> Iterator[Leaf]:
    """Texts, binaries and vectors of a batch, those inside lists and structs too.

    Args:
        batch: of any file.
        program: columns with words of the program, of which only longer ones are given.
    """
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name in _WORDS_OF_USERS:
            continue
        for leaf, where, rows in _unfold(column, name, np.arange(len(batch))):
            if name in program and is_text(leaf.type):
                longer = pc.greater_equal(pc.binary_length(leaf), _LONGER_TEXT)
                yield leaf.filter(longer), where, rows[longer.fill_null(False).to_numpy(False)]
            else:
                yield leaf, where, rows


def _unfold(column: pa.Array, where: str, rows: Int64Array) -> Iterator[Leaf]:
    kind = column.type
    if is_text(kind) and column.null_count == len(column):
        return  # there are many such columns, and each costs as much as a full one of few rows
    if is_text(kind) or is_vector(kind):
        yield column, where, rows
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            inner = column.field(index)
            yield from _unfold(inner, f"{where}.{kind.field(index).name}", rows)
    elif pa.types.is_map(kind):
        for leaf in (column.keys, column.items):
            yield from _unfold(leaf, where, np.full(len(leaf), -1))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        parents = pc.list_parent_indices(column).to_numpy()
        yield from _unfold(column.flatten(), where, rows[parents])
    elif pa.types.is_dictionary(kind):
        yield from _unfold(column.dictionary_decode(), where, rows)
