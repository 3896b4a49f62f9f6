"""Recorded predictions: what a model said of which image, and which pairs made it say so.

    with Recorder(model.store, labels, model.recipe) as run:
        for prediction in model.classify(images, labels):
            run.add(prediction, truth="bird")

Tables: `runs` (one row per finished run), `predictions` (one row per image and label, best label
first) and `attributions` (the pairs that add most to each of those scores); and what it takes to
ask again, see `standings`. A killed run leaves predictions that no run names; `prune` takes them
away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.errors import InputError
from asif_lance.keepers import purge_rows
from asif_lance.recipes import Recipe, recipe, spelled
from asif_lance.schema import RUN_SCHEMAS
from asif_lance.standings import as_batch, prompt_rows, query_row
from asif_lance.store import PairStore
from asif_lance.tables import open_table, retried, storage_errors, tidy

if TYPE_CHECKING:  # listing and pruning runs needs no torch
    from asif_lance.labels import LabelSet
    from asif_lance.predictions import Prediction

#: Labels recorded per image, and pairs recorded per label, unless the caller says otherwise.
LABELS, PAIRS = 5, 20

_FLUSH = 500  # predictions per commit
_ID_BYTES = 6


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run.

    Attributes:
        run_id: names it.
        created_at: when it began, UTC.
        model: the model version.
        recipe: name of the recipe.
        label_set: fingerprint of the prompts' vectors and names; equal sets have equal ones.
        labels: how many labels could be chosen from.
        predictions: how many images were classified.
        templates: the named set of prompt templates, or the templates; None for brought label
            vectors and for runs of older releases.
    """

    run_id: str
    created_at: datetime
    model: str
    recipe: str
    label_set: str
    labels: int
    predictions: int
    templates: str | None


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
                | {"k": spelled(prediction.recipe.k), "p": spelled(prediction.recipe.p)}
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
        """Writes the rest, and the run itself if all went well."""
        if kind is None:
            self._flush()
            prompts = prompt_rows(self.run_id, self._labels, self._pairs_there)
            self._append_rows("prompts", prompts)
            self._append("runs", [pa.RecordBatch.from_pylist([self._finished()])])

    def _finished(self) -> dict[str, Any]:
        return self._row | {"predictions": self._count}

    def _attribute(self, prediction_id: str, prediction: Prediction, label: str) -> float:
        shares = prediction.evidence.shares(label, self._pairs)
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


def runs(store: PairStore) -> list[Run]:
    """All finished runs, oldest first."""

    def once() -> list[dict[str, Any]]:
        with storage_errors(store.uri):
            rows: list[dict[str, Any]] = open_table(store.uri, "runs").to_table().to_pylist()
            return rows

    rows = retried(once)
    return sorted((Run(**row) for row in rows), key=lambda run: run.created_at)


def find(store: PairStore, run_id: str | None = None) -> Run:
    """The run of this id, or the newest.

    Raises:
        InputError: there is none.
    """
    found = runs(store)
    named = [run for run in found if run_id in (None, run.run_id)]
    if not named:
        which = "no run is recorded" if run_id is None else f"no run {run_id!r}"
        raise InputError(f"{which}; `classify --record` makes one, `runs` lists them")
    return named[-1]


def recipe_of(store: PairStore, run: Run) -> Recipe:
    """The recipe that a run was made with, k and p included."""

    def once() -> dict[str, Any]:
        with storage_errors(store.uri):
            mine = f"run_id = '{run.run_id}'"
            table = open_table(store.uri, "predictions")
            rows = table.to_table(columns=["k", "p"], filter=mine, limit=1).to_pylist()
            return rows[0] if rows else {}

    row = retried(once)
    if not row:
        raise InputError(f"run {run.run_id} has no predictions left")
    k, p = (row[name].split(",") for name in ("k", "p"))
    return recipe(run.recipe, k=(int(k[0]), int(k[-1])), p=(float(p[0]), float(p[-1])))


def prune(
    store: PairStore, *, keep_last: int | None = None, older_than: timedelta | None = None
) -> list[str]:
    """Drops old runs with their predictions and attributions; returns the dropped runs' ids.

    What killed runs left goes too.

    Args:
        store: the database.
        keep_last: the newest runs that stay, at any age.
        older_than: only runs that began longer ago than this go.

    Raises:
        InputError: neither rule is given.
    """
    if keep_last is None and older_than is None:
        raise InputError("say which runs to keep: the last ones, or those younger than an age")
    with store.writing("prune runs"):
        found = runs(store)
        old = found[: max(len(found) - keep_last, 0)] if keep_last is not None else found
        if older_than is not None:
            old = [run for run in old if run.created_at < datetime.now(UTC) - older_than]
        gone = {run.run_id for run in old}
        kept = pa.array([run.run_id for run in found if run.run_id not in gone], pa.string())
        for table, column in _RUN_OF.items():
            purge_rows(store.uri, table, [column], _not_of(kept, column))
    return sorted(gone)


def fingerprint(labels: LabelSet) -> str:
    """Names a label set by its content: labels, prompts' vectors and ensemble."""
    digest = hashlib.sha256(labels.prompts.ensemble.encode())
    for name in labels.names:
        digest.update(name.encode() + b"\0")
    digest.update(labels.prompts.owner.astype("<i8").tobytes())
    digest.update(labels.prompts.vectors.astype("<f4").tobytes())
    return digest.hexdigest()[:16]


#: Which column of each table leads to a run; a prediction's id begins with its run's.
_RUN_OF = {
    "runs": "run_id",
    "predictions": "run_id",
    "prompts": "run_id",
    "queries": "prediction_id",
    "attributions": "prediction_id",
}


def _not_of(kept: pa.Array, column: str) -> Any:
    def doomed(rows: pa.RecordBatch) -> NDArray[np.bool_]:
        run_ids = pc.replace_substring_regex(rows[column], r"^(r\d+-\d+-[0-9a-f]+).*$", r"\1")
        found: NDArray[np.bool_] = pc.is_in(run_ids, kept).to_numpy(zero_copy_only=False)
        return ~found

    return doomed
