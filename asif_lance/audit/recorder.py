"""Records predictions as they are made: the answers, and the pairs that they rest on."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from asif_lance.audit.replay import make_prompt_rows, make_query_row, to_table
from asif_lance.audit.runs import drop_runs, list_runs, retention_rule
from asif_lance.database import append_rows, check_epoch, schemas
from asif_lance.errors import DatabaseError, InputError, StaleModelError
from asif_lance.relative import Recipe, format_sides
from asif_lance.store import PairStore

if TYPE_CHECKING:  # listing and pruning runs needs no torch
    from asif_lance.model import Contributions, LabelSet, Prediction

#: Labels recorded per image, and pairs recorded per label, unless the caller says otherwise.
LABELS, PAIRS = 5, 20

_PREDICTIONS_PER_COMMIT = 500
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
        dropped: ids of older runs that the retention rule dropped when this one was finished.
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
        self._widths = store.image.dimension, store.text.dimension
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
        self._since = labels.epoch
        self._labels, self._pairs_there, self._count = labels, 0, 0
        self._written = False  # whether tables may have something of the run
        self._predictions: list[dict[str, Any]] = []
        self._queries: list[dict[str, Any]] = []
        self._attributions: list[tuple[str, str, Contributions]] = []

    def add(self, prediction: Prediction, truth: str | None = None) -> str:
        """Records one prediction and, where it is known, the true label; returns its id.

        Raises:
            StorageError: the disk refused.
            StaleModelError: pairs were forgotten since the label set was compiled.
        """
        prediction_id = f"{self.run_id}-{self._count}"
        self._queries.append(make_query_row(prediction_id, prediction))
        self._count += 1
        self._pairs_there = prediction.evidence.anchors.pairs
        best = prediction.ranking[: self._top]
        found = prediction.evidence.contributions_of([label for label, _ in best], self._pairs)
        common = {key: self._row[key] for key in ("run_id", "model", "label_set", "created_at")}
        common |= {"prediction_id": prediction_id, "image": prediction.image, "truth": truth}
        common |= {side: format_sides(getattr(prediction.recipe, side)) for side in ("k", "p")}
        for rank, ((label, score), shares) in enumerate(zip(best, found, strict=True), 1):
            covered = float(shares.contributions.sum())
            coverage = min(covered / score, 1.0) if score > 0 else 1.0
            row = {"label": label, "rank": rank, "score": score, "coverage": coverage}
            self._predictions.append(common | row)
            self._attributions.append((prediction_id, label, shares))
        if self._count % _PREDICTIONS_PER_COMMIT == 0:
            self._commit()
        return prediction_id

    def __enter__(self) -> Recorder:
        """The run begins; nothing is written yet.

        Raises:
            StaleModelError: pairs were forgotten since the label set was compiled.
        """
        check_epoch(self._store.uri, self._since)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the rest, and the run itself if all went well; else takes back what is there.

        Raises:
            StaleModelError: pairs were forgotten meanwhile; nothing of the run is kept.
        """
        if kind is not None:
            self._take_back()
            return
        try:
            self._finish()
        except StaleModelError:
            self._take_back()
            raise

    def _finish(self) -> None:
        self._commit()
        prompts = make_prompt_rows(self.run_id, self._labels, self._pairs_there)
        self._append("prompts", to_table(prompts, schemas.prompts_schema(*self._widths)))
        run = self._row | {"predictions": self._count}
        self._append("runs", to_table([run], schemas.RUNS))
        self.dropped = self._drop_older_runs()
        self._store.settle()

    def _take_back(self) -> None:
        if self._written:
            with contextlib.suppress(DatabaseError), self._store.writing("record", beside=True):
                drop_runs(self._store, {self.run_id})  # on a full disk, pruning does it later

    def _drop_older_runs(self) -> list[str]:
        rule = retention_rule(self._store)
        if rule.everything:
            return []
        with self._store.writing("record", beside=True):
            # The newest run is one's own, or came since: neither may go.
            others, found = replace(rule, last=max(rule.last or 0, 1)), list_runs(self._store)
            gone = {run.run_id for run in others.dropped(found)} - {self.run_id}
            kept = {run.run_id for run in found} - gone
            return drop_runs(self._store, gone, kept) if gone else []

    def _commit(self) -> None:
        if not self._predictions:
            return
        # Attributions first: a prediction that is there has its pairs.
        self._append("attributions", _attribution_rows(self._attributions))
        self._append("queries", to_table(self._queries, schemas.queries_schema(*self._widths)))
        self._append("predictions", to_table(self._predictions, schemas.PREDICTIONS))
        self._attributions, self._predictions, self._queries = [], [], []

    def _append(self, table: str, rows: pa.Table) -> None:
        with self._store.writing("record", since=self._since, beside=True, midway=True):
            self._written = True
            append_rows(self._store.uri, table, rows)


def _attribution_rows(found: Sequence[tuple[str, str, Contributions]]) -> pa.Table:
    """Rows of `attributions`, of one or more predictions' ids, labels and shares."""
    prediction_ids, labels, shares = zip(*found, strict=True)
    counts = [len(one.pair_ids) for one in shares]
    owner = pa.array(np.repeat(np.arange(len(found)), counts))
    columns = {
        "prediction_id": pa.array(prediction_ids, pa.string()).take(owner),
        "label": pa.array(labels, pa.string()).take(owner),
        "pair_id": pa.array(chain.from_iterable(one.pair_ids for one in shares), pa.string()),
        "image_similarity": np.concatenate([one.image_similarities for one in shares]),
        "text_similarity": np.concatenate([one.text_similarities for one in shares]),
        "contribution": np.concatenate([one.contributions for one in shares]),
        "rank": np.concatenate([np.arange(1, count + 1) for count in counts]),
    }
    return pa.table(columns, schema=schemas.ATTRIBUTIONS)


def fingerprint(labels: LabelSet) -> str:
    """Names a label set by its content: labels, prompts' vectors and ensemble."""
    digest = hashlib.sha256(labels.prompts.ensemble.encode())
    for name in labels.names:
        digest.update(name.encode() + b"\0")
    digest.update(labels.prompts.owner.astype("<i8").tobytes())
    digest.update(labels.prompts.vectors.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
