"""Records predictions as they are made: the answers, and the pairs that they rest on."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa

from asif_lance.audit.replay import as_batch, prompt_rows, query_row
from asif_lance.database import RUN_SCHEMAS, open_table, tidy
from asif_lance.errors import DatabaseError, InputError
from asif_lance.relative import Recipe, format_sides
from asif_lance.store import PairStore

if TYPE_CHECKING:  # listing and pruning runs needs no torch
    from asif_lance.model import LabelSet, Prediction
from asif_lance.audit.runs import _drop, list_runs, retention_rule

#: Labels recorded per image, and pairs recorded per label, unless the caller says otherwise.
LABELS, PAIRS = 5, 20


_FLUSH = 500  # predictions per commit


_ID_BYTES = 6


class Recorder:
    """Writes predictions of one label set as they come; the run is there once all went well.

    Args:
        store: the database.
        labels: the label set of all predictions to come.
        recipe: the recipe that they are made with.
        top: labels recorded per image, best first; None for all.
        pairs: attributions recorded per label, largest first; None for all. The column `coverage`
            of a prediction says which share of the score they add up to.

    Attributes:
        run_id: the name of the run.
        dropped: ids of older runs that went, by what `keep` says, when this one was there.
    """

    def __init__(
        self,
        store: PairStore,
        labels: LabelSet,
        recipe: Recipe,
        *,
        top: int | None = LABELS,
        pairs: int | None = PAIRS,
    ) -> None:
        if (top is not None and top < 1) or (pairs is not None and pairs < 1):
            raise InputError("record at least one label and one pair")
        self._store, self._top, self._pairs = store, top, pairs
        self.run_id = f"r{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(_ID_BYTES)}"
        self.dropped: list[str] = []
        self._row = {
            "run_id": self.run_id,
            "created_at": datetime.now(UTC),
            "model": labels.version,
            "recipe": recipe.name,
            "label_set": fingerprint(labels),
            "labels": len(labels.names),
            "templates": labels.prompts.templates or None,
        }
        self._labels, self._pairs_there, self._count = labels, 0, 0
        self._predictions: list[dict[str, Any]] = []
        self._queries: list[dict[str, Any]] = []
        self._attributions: list[pa.RecordBatch] = []

    def add(self, prediction: Prediction, truth: str | None = None) -> str:
        """Records one prediction and, where it is known, the true label; returns its id.

        Raises:
            StorageError: the disk refused.
        """
        prediction_id = f"{self.run_id}-{self._count}"
        self._count += 1
        self._pairs_there = prediction.evidence.anchors.count
        self._queries.append(query_row(prediction_id, prediction))
        for rank, (label, score) in enumerate(prediction.ranking[: self._top], 1):
            covered = self._attribute(prediction_id, prediction, label)
            self._predictions.append(
                {key: self._row[key] for key in ("run_id", "model", "label_set", "created_at")}
                | {"prediction_id": prediction_id, "image": prediction.image, "truth": truth}
                | {"label": label, "rank": rank, "score": score}
                | {"coverage": min(covered / score, 1.0) if score > 0 else 1.0}
                | {"k": format_sides(prediction.recipe.k), "p": format_sides(prediction.recipe.p)}
            )
        if self._count % _FLUSH == 0:
            self._flush()
        return prediction_id

    def __enter__(self) -> Recorder:
        """The run begins; nothing is written yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Writes the rest, and the run itself if all went well; else takes back what is there."""
        if kind is None:
            self._flush()
            prompts = prompt_rows(self.run_id, self._labels, self._pairs_there)
            self._append_rows("prompts", prompts)
            self._append("runs", [pa.RecordBatch.from_pylist([self._finished()])])
            self.dropped = self._make_room()
        elif self._count >= _FLUSH:
            with contextlib.suppress(DatabaseError), self._store.writing("record"):
                _drop(self._store, {self.run_id})  # on a full disk, `prune` does it later

    def _make_room(self) -> list[str]:
        rule = retention_rule(self._store)
        if rule.everything:
            return []
        with self._store.writing("record"):
            # The newest run is one's own, or came since: neither may go.
            others, found = replace(rule, last=max(rule.last or 0, 1)), list_runs(self._store)
            gone = {run.run_id for run in others.dropped(found)} - {self.run_id}
            kept = {run.run_id for run in found} - gone
            return _drop(self._store, gone, kept) if gone else []

    def _finished(self) -> dict[str, Any]:
        return self._row | {"predictions": self._count}

    def _attribute(self, prediction_id: str, prediction: Prediction, label: str) -> float:
        shares = prediction.evidence.contributions(label, self._pairs)
        count = len(shares.pair_ids)
        if count:
            columns = {
                "prediction_id": pa.array([prediction_id] * count),
                "label": pa.array([label] * count),
                "pair_id": pa.array(shares.pair_ids),
                "image_similarity": pa.array(shares.image_similarities, pa.float32()),
                "text_similarity": pa.array(shares.text_similarities, pa.float32()),
                "contribution": pa.array(shares.contributions, pa.float64()),
                "rank": pa.array(np.arange(1, count + 1)),
            }
            self._attributions.append(pa.RecordBatch.from_pydict(columns))
        return float(shares.contributions.sum())

    def _flush(self) -> None:
        # Attributions first: a prediction that is there has its pairs.
        self._append("attributions", self._attributions)
        self._append_rows("queries", self._queries)
        self._append("predictions", [pa.RecordBatch.from_pylist(self._predictions)])
        self._attributions, self._predictions, self._queries = [], [], []

    def _append_rows(self, table: str, rows: list[dict[str, Any]]) -> None:
        """Rows with vectors, whose size only the table knows."""
        if rows:
            with self._store.writing("record"):
                dataset = open_table(self._store.uri, table)
                batch = as_batch(rows, dataset.schema)
                new = pa.Table.from_batches([batch])
                tidy(lance.write_dataset(new, dataset, mode="append"))

    def _append(self, table: str, batches: Iterable[pa.RecordBatch]) -> None:
        schema = RUN_SCHEMAS[table]
        ordered = [b.select(schema.names).cast(schema) for b in batches if b.num_rows]
        if ordered:
            with self._store.writing("record"):
                rows = pa.Table.from_batches(ordered)
                tidy(lance.write_dataset(rows, open_table(self._store.uri, table), mode="append"))


def fingerprint(labels: LabelSet) -> str:
    """Names a label set by its content: labels, prompts' vectors and ensemble."""
    digest = hashlib.sha256(labels.prompts.ensemble.encode())
    for name in labels.names:
        digest.update(name.encode() + b"\0")
    digest.update(labels.prompts.owner.astype("<i8").tobytes())
    digest.update(labels.prompts.vectors.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
