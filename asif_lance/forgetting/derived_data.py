"""Erases forgotten pairs from everything derived from them: other tables, messages, cache files.

An eraser is a function of the database's address and the forgotten content that says how much it
erased. It erases physically (`purge_rows` does that for tables), and doing it twice does no harm:
it may have been killed half-way before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.database import (
    DISTANCES,
    LABEL_SETS,
    PROMPT_VECTORS,
    Ledger,
    RowFilter,
    drop_caches,
    drop_open_ingests,
    finish_deletes,
    list_erasers,
    open_table,
    purge_rows,
    read_table,
    upsert_rows,
)
from asif_lance.errors import ReceiptError
from asif_lance.forgetting.content import Content
from asif_lance.forgetting.receipts import make_row, redact_reason
from asif_lance.progress import track
from asif_lance.records import BoolArray
from asif_lance.verifier import Document, as_matrix, find_in_item, find_in_path, find_quotes

Eraser = Callable[[str, Content], int]


def erase_derived(uri: str, content: Content) -> dict[str, int]:
    """Erases what only forgotten pairs had from all but `pairs`; says how much, by eraser."""
    own, names = content.own(), list_erasers()
    # What open ingests have written is spared as long as they are open.
    order = sorted(names, key=lambda name: name != "open ingests")
    found = {name: ERASERS[name](uri, own) for name in track("erase derived data", order)}
    return {name: found[name] for name in names}


def erase_rejects(uri: str, content: Content) -> int:
    """Rejected items that are a forgotten pair's picture or source, or refer to it."""

    def names_one(source: str, item: str, reason: str) -> bool:
        quotes = (find_quotes(content, source), find_quotes(content, reason))
        whole = find_in_path(content, f"{source}/{item}")
        return any(chain(*quotes, whole, find_in_item(content, item)))

    def is_doomed(rows: pa.RecordBatch) -> BoolArray:
        columns = (rows[name].to_pylist() for name in ("source", "item", "reason"))
        return np.array([names_one(*row) for row in zip(*columns, strict=True)])

    return purge_rows(uri, "rejects", ["source", "item", "reason"], is_doomed)


def redact_messages(uri: str, content: Content) -> int:
    """Messages of model versions that quote a forgotten pair; the versions keep all else."""
    ledger = Ledger(uri)
    old = ledger.rows()
    new = [{**row, "message": content.redact(row["message"])} for row in old]
    changed = [after for after, before in zip(new, old, strict=True) if after != before]
    if changed:
        ledger.write(changed)
    finish_deletes(uri, "versions")
    return len(changed)


def redact_receipts(uri: str, content: Content) -> int:
    """Reasons of earlier receipts that quote a forgotten pair; all that is signed stays."""
    count = 0
    for row in read_table(uri, "receipts").to_pylist():
        if not any(find_quotes(content, row["reason"])):
            continue
        with contextlib.suppress(ReceiptError):  # a damaged one is for the verifier to tell
            document = redact_reason(Document.parse(row["body"]))
            if document is not None:
                new = make_row(document, row["timestamp"])
                upsert_rows(uri, "receipts", new, "receipt_id")
                count += 1
    finish_deletes(uri, "receipts")
    return count


def erase_attributions(uri: str, content: Content) -> int:
    """Shares of forgotten pairs; the scores that they were part of stay as they are recorded."""
    return purge_rows(uri, "attributions", ["pair_id"], _make_filter("pair_id", content.ids))


def erase_predictions(uri: str, content: Content) -> int:
    """Predictions for a forgotten pair's own picture, with all their attributions."""
    is_doomed = _make_filter("prediction_id", _find_predictions(uri, content))
    purge_rows(uri, "attributions", ["prediction_id"], is_doomed)
    purge_rows(uri, "queries", ["prediction_id"], is_doomed)
    return purge_rows(uri, "predictions", ["prediction_id"], is_doomed)


def erase_prompts(uri: str, content: Content) -> int:
    """Prompts of runs that asked with a forgotten caption; whole, as half a label set is none."""
    runs = _with_vectors(uri, "prompts", "run_id", content)
    return purge_rows(uri, "prompts", ["run_id"], _make_filter("run_id", runs))


def find_runs(uri: str, content: Content) -> set[str]:
    """Recordings that erasing these pairs would take something from."""
    is_shown = _make_filter("pair_id", content.ids)
    shares = open_table(uri, "attributions").scanner(columns=["prediction_id", "pair_id"])
    touched = _find_predictions(uri, content)
    for batch in shares.to_batches():
        touched.update(batch["prediction_id"].filter(pa.array(is_shown(batch))).to_pylist())
    rows = open_table(uri, "predictions").to_table(columns=["prediction_id", "run_id"])
    runs = rows.filter(pa.array(_make_filter("prediction_id", touched)(rows)))["run_id"]
    return {*runs.to_pylist(), *_with_vectors(uri, "prompts", "run_id", content)}


def _find_predictions(uri: str, content: Content) -> set[str]:
    """Ids of the predictions for a forgotten pair's own picture, by its name or its vector."""
    rows = open_table(uri, "predictions").to_table(columns=["prediction_id", "image"])
    own = {i for i in rows["image"].unique().to_pylist() if any(find_in_path(content, i))}
    ids = rows.filter(pc.is_in(rows["image"], pa.array(sorted(own), pa.string())))["prediction_id"]
    return {*ids.to_pylist(), *_with_vectors(uri, "queries", "prediction_id", content)}


def _with_vectors(uri: str, table: str, key: str, content: Content) -> list[str]:
    """Keys of the rows whose vector is that of a forgotten pair's picture or caption."""
    found: list[str] = []
    for batch in open_table(uri, table).scanner(columns=[key, "vector"]).to_batches():
        rows = sorted({row for row, _ in content.match_vectors(as_matrix(batch["vector"]))})
        found += batch[key].take(pa.array(rows, pa.int64())).to_pylist()
    return found


def _make_filter(column: str, values: Iterable[str]) -> RowFilter:
    """Which rows have one of these values in a column."""
    wanted = pa.array(sorted(values), pa.string())

    def is_doomed(rows: pa.RecordBatch | pa.Table) -> BoolArray:
        found: BoolArray = np.asarray(pc.is_in(rows[column], wanted), np.bool_)
        return found

    return is_doomed


#: By the names that the registry of tables and receipts use.
ERASERS: dict[str, Eraser] = {
    "rejects": erase_rejects,
    "messages": redact_messages,
    "receipts": redact_receipts,
    "predictions": erase_predictions,
    "attributions": erase_attributions,
    "prompts": erase_prompts,
    # All of them: label sets hold places in fragments that are gone, distances are sums of what is
    # forgotten too, and a prompt may have quoted a forgotten caption.
    "label sets": lambda uri, _: drop_caches(uri, LABEL_SETS),
    "distances": lambda uri, _: drop_caches(uri, DISTANCES),
    "prompt vectors": lambda uri, _: drop_caches(uri, PROMPT_VECTORS),
    # They name items, and what they have encoded may be what is forgotten: they begin again.
    "open ingests": lambda uri, _: drop_open_ingests(uri),
}
