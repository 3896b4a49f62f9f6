"""Who else keeps something of pairs: each lets go of what was forgotten, and says of how much.

A keeper is a function of the database's address and the forgotten content. It removes the content
physically (`purge_rows` does that for tables), and doing it twice does no harm: a keeper may have
been killed half-way before.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import (
    DISTANCES,
    LABEL_SETS,
    Ledger,
    drop_caches,
    finish_deletes,
    open_table,
    purge_rows,
)
from asif_lance.forgetting.fingerprints import Content, as_matrix
from asif_lance.records import BoolArray

Eraser = Callable[[str, Content], int]


_REDACTED = "[forgotten]"


# Shorter texts turn up in others by chance.
_QUOTABLE = 8


def erase_rejects(uri: str, content: Content) -> int:
    """Rejected items that are a forgotten pair's picture, or are said to double the pair."""
    names = content.column("image_uri") | content.column("pair_id")

    def doomed(rows: pa.RecordBatch) -> BoolArray:
        items, reasons = rows["item"].to_pylist(), rows["reason"].to_pylist()
        told = zip(items, reasons, strict=True)
        return np.array([item in names or not names.isdisjoint(r.split()) for item, r in told])

    return purge_rows(uri, "rejects", ["item", "reason"], doomed)


def redact_messages(uri: str, content: Content) -> int:
    """Messages of model versions that quote a forgotten pair; the versions keep all else."""
    texts = _quotable(content)
    ledger = Ledger(uri)
    old = ledger.rows()
    everything = "\n".join(row["message"] for row in old)
    found = sorted((text for text in texts if text in everything), key=len, reverse=True)
    quoted = re.compile("|".join(map(re.escape, found)) or "(?!)")
    new = [{**row, "message": quoted.sub(_REDACTED, row["message"])} for row in old]
    changed = [after for after, before in zip(new, old, strict=True) if after != before]
    if changed:
        ledger.write(changed)
    finish_deletes(uri, "versions")
    return len(changed)


def erase_attributions(uri: str, content: Content) -> int:
    """Shares of forgotten pairs; the scores that they were part of stay as they were said."""
    return purge_rows(uri, "attributions", ["pair_id"], rows_naming(content, "pair_id"))


def erase_predictions(uri: str, content: Content) -> int:
    """Predictions for a forgotten pair's own picture, with all their attributions."""
    texts = {*_quotable(content), *content.column("image_uri")}
    quoted = re.compile("|".join(map(re.escape, sorted(texts))) or "(?!)")
    rows = open_table(uri, "predictions").to_table(columns=["prediction_id", "image"])
    told = zip(rows["prediction_id"].to_pylist(), rows["image"].to_pylist(), strict=True)
    ids = {prediction_id for prediction_id, image in told if quoted.search(image)}
    ids |= set(_with_vectors(uri, "queries", "prediction_id", content))

    def doomed(batch: pa.RecordBatch) -> BoolArray:
        return np.array([i in ids for i in batch["prediction_id"].to_pylist()], dtype=bool)

    purge_rows(uri, "attributions", ["prediction_id"], doomed)
    purge_rows(uri, "queries", ["prediction_id"], doomed)
    return purge_rows(uri, "predictions", ["prediction_id"], doomed)


def erase_prompts(uri: str, content: Content) -> int:
    """Prompts of runs that asked with a forgotten caption; whole, as half a label set is none."""
    runs = pa.array(_with_vectors(uri, "prompts", "run_id", content), pa.string())

    def doomed(rows: pa.RecordBatch) -> BoolArray:
        found: BoolArray = pc.is_in(rows["run_id"], runs).to_numpy(zero_copy_only=False)
        return found

    return purge_rows(uri, "prompts", ["run_id"], doomed)


def _with_vectors(uri: str, table: str, key: str, content: Content) -> list[str]:
    """Keys of the rows whose vector is that of a forgotten pair's picture or caption."""
    found: list[str] = []
    for batch in open_table(uri, table).scanner(columns=[key, "vector"]).to_batches():
        rows = sorted({row for row, _ in content.in_vectors(as_matrix(batch["vector"]))})
        found += batch[key].take(pa.array(rows, pa.int64())).to_pylist()
    return found


def _quotable(content: Content) -> set[str]:
    """Texts of forgotten pairs that others may quote."""
    columns = ("pair_id", "caption", "image_uri", "image_sha256", "attributes")
    return {text for name in columns for text in content.column(name) if len(text) >= _QUOTABLE}


def erase_label_sets(uri: str, content: Content) -> int:
    """What is kept of label sets goes altogether: it holds places in fragments that are gone."""
    return drop_caches(uri, LABEL_SETS)


def erase_distances(uri: str, content: Content) -> int:
    """What is kept of distances goes too: forgotten vectors were part of its sums."""
    return drop_caches(uri, DISTANCES)


def rows_naming(content: Content, column: str) -> Callable[[pa.RecordBatch], BoolArray]:
    """For tables that name pairs in a column: which rows are about forgotten ones."""
    ids = pa.array(sorted(content.column("pair_id")), pa.string())

    def doomed(rows: pa.RecordBatch) -> BoolArray:
        found: BoolArray = pc.is_in(rows[column], ids).to_numpy(zero_copy_only=False)
        return found

    return doomed


ERASERS: dict[str, Eraser] = {
    "rejects": erase_rejects,
    "messages": redact_messages,
    "predictions": erase_predictions,
    "attributions": erase_attributions,
    "prompts": erase_prompts,
    "label sets": erase_label_sets,
    "distances": erase_distances,
}


"""Each keeper by the name that receipts give it. A room that keeps pairs' content adds its own."""
