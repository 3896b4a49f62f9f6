"""Erases forgotten pairs from everything derived from them: other tables, messages, cache files.

An eraser is a function of the database's address and the forgotten content that says how much it
erased. It erases physically (`purge_rows` does that for tables), and doing it twice does no harm:
it may have been killed half-way before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import (
    DISTANCES,
    LABEL_SETS,
    Ledger,
    RowFilter,
    drop_caches,
    finish_deletes,
    list_erasers,
    open_table,
    purge_rows,
)
from asif_lance.forgetting.content import Content
from asif_lance.records import BoolArray
from asif_lance.verifier import as_matrix

Eraser = Callable[[str, Content], int]

_REDACTED = "[forgotten]"

# Shorter texts turn up in others by chance.
_SHORTEST_QUOTE = 8


def erase_derived(uri: str, content: Content) -> dict[str, int]:
    """Erases forgotten pairs from all but `pairs`; says how much, by eraser."""
    return {name: ERASERS[name](uri, content) for name in list_erasers()}


def erase_rejects(uri: str, content: Content) -> int:
    """Rejected items that are a forgotten pair's picture, or were rejected as its duplicate."""
    names = content.column("image_uri") | content.column("pair_id")

    def is_doomed(rows: pa.RecordBatch) -> BoolArray:
        both = zip(rows["item"].to_pylist(), rows["reason"].to_pylist(), strict=True)
        return np.array([item in names or not names.isdisjoint(why.split()) for item, why in both])

    return purge_rows(uri, "rejects", ["item", "reason"], is_doomed)


def redact_messages(uri: str, content: Content) -> int:
    """Messages of model versions that quote a forgotten pair; the versions keep all else."""
    texts = _quotable_texts(content)
    ledger = Ledger(uri)
    old = ledger.rows()
    everything = "\n".join(row["message"] for row in old)
    quoted = _match_any(text for text in texts if text in everything)
    new = [{**row, "message": quoted.sub(_REDACTED, row["message"])} for row in old]
    changed = [after for after, before in zip(new, old, strict=True) if after != before]
    if changed:
        ledger.write(changed)
    finish_deletes(uri, "versions")
    return len(changed)


def erase_attributions(uri: str, content: Content) -> int:
    """Shares of forgotten pairs; the scores that they were part of stay as they are recorded."""
    return purge_rows(
        uri, "attributions", ["pair_id"], _make_filter("pair_id", content.column("pair_id"))
    )


def erase_predictions(uri: str, content: Content) -> int:
    """Predictions for a forgotten pair's own picture, with all their attributions."""
    texts = {*_quotable_texts(content), *content.column("image_uri")}
    quoted = _match_any(texts)
    rows = open_table(uri, "predictions").to_table(columns=["prediction_id", "image"])
    both = zip(rows["prediction_id"].to_pylist(), rows["image"].to_pylist(), strict=True)
    ids = {prediction_id for prediction_id, image in both if quoted.search(image)}
    ids |= set(_with_vectors(uri, "queries", "prediction_id", content))
    is_doomed = _make_filter("prediction_id", ids)
    purge_rows(uri, "attributions", ["prediction_id"], is_doomed)
    purge_rows(uri, "queries", ["prediction_id"], is_doomed)
    return purge_rows(uri, "predictions", ["prediction_id"], is_doomed)


def erase_prompts(uri: str, content: Content) -> int:
    """Prompts of runs that asked with a forgotten caption; whole, as half a label set is none."""
    runs = _with_vectors(uri, "prompts", "run_id", content)
    return purge_rows(uri, "prompts", ["run_id"], _make_filter("run_id", runs))


def _with_vectors(uri: str, table: str, key: str, content: Content) -> list[str]:
    """Keys of the rows whose vector is that of a forgotten pair's picture or caption."""
    found: list[str] = []
    for batch in open_table(uri, table).scanner(columns=[key, "vector"]).to_batches():
        rows = sorted({row for row, _ in content.match_vectors(as_matrix(batch["vector"]))})
        found += batch[key].take(pa.array(rows, pa.int64())).to_pylist()
    return found


def _quotable_texts(content: Content) -> set[str]:
    """Texts of forgotten pairs that others may quote."""
    columns = ("pair_id", "caption", "image_uri", "image_sha256", "attributes")
    return {
        text for name in columns for text in content.column(name) if len(text) >= _SHORTEST_QUOTE
    }


def _match_any(texts: Iterable[str]) -> re.Pattern[str]:
    """Matches any of some texts, the longest that there is; nothing where there are none."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _make_filter(column: str, values: Iterable[str]) -> RowFilter:
    """Which rows have one of these values in a column."""
    wanted = pa.array(sorted(values), pa.string())

    def is_doomed(rows: pa.RecordBatch) -> BoolArray:
        found: BoolArray = pc.is_in(rows[column], wanted).to_numpy(zero_copy_only=False)
        return found

    return is_doomed


#: By the names that the registry of tables and receipts use.
ERASERS: dict[str, Eraser] = {
    "rejects": erase_rejects,
    "messages": redact_messages,
    "predictions": erase_predictions,
    "attributions": erase_attributions,
    "prompts": erase_prompts,
    # All of them: label sets hold places in fragments that are gone, sums of distances vectors.
    "label sets": lambda uri, _: drop_caches(uri, LABEL_SETS),
    "distances": lambda uri, _: drop_caches(uri, DISTANCES),
}
