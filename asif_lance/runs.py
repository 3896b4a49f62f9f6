"""Recorded predictions: what a model said of which image, and which pairs made it say so.

    with Recorder(model.store, labels, model.recipe) as run:
        for prediction in model.classify(images, labels):
            run.add(prediction, truth="bird")

Tables: `runs` (one row per finished run), `predictions` (one row per image and label, best label
first) and `attributions` (the pairs that add most to each of those scores); and what it takes to
ask again, see `standings`. A killed run leaves predictions that no run names; `prune` takes them
away. `keep` says which runs stay, and every run that finishes drops the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from asif_lance.errors import DatabaseError, InputError
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
_KEEPING = "asif.keep"  # in the configuration of the table `runs`
#: How long a run without a row in `runs` may still be under way.
_UNDER_WAY = timedelta(days=1)


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


@dataclass(frozen=True, slots=True)
class Keeping:
    """Which runs stay: the newest ones, and young ones; all, if nothing is said.

    Attributes:
        last: how many of the newest stay, at any age.
        younger_than: those that began no longer ago than this stay, too.
    """

    last: int | None = None
    younger_than: timedelta | None = None

    def __post_init__(self) -> None:
        """Raises InputError for less than nothing."""
        if (self.last or 0) < 0 or (self.younger_than or timedelta(0)) < timedelta(0):
            raise InputError("neither a number of runs nor an age can be negative")

    @property
    def everything(self) -> bool:
        """Whether all runs stay."""
        return self.last is None and self.younger_than is None

    def dropped(self, runs: list[Run]) -> list[Run]:
        """Those of all runs, oldest first, that do not stay."""
        if self.everything:
            return []
        old = runs[: max(len(runs) - (self.last or 0), 0)]
        if self.younger_than is None:
            return old
        return [run for run in old if run.created_at < datetime.now(UTC) - self.younger_than]


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
        rule = keeping(self._store)
        if rule.everything:
            return []
        with self._store.writing("record"):
            # The newest run is one's own, or came since: neither may go.
            others, found = replace(rule, last=max(rule.last or 0, 1)), runs(self._store)
            gone = {run.run_id for run in others.dropped(found)} - {self.run_id}
            kept = {run.run_id for run in found} - gone
            return _drop(self._store, gone, kept) if gone else []

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


def keep(store: PairStore, rule: Keeping) -> None:
    """Says which runs stay from now on: each run that finishes drops the others, never itself.

    The rule is kept with the table `runs`, and holds until another is given.

    Raises:
        InputError: not even one run would stay.
    """
    if rule.last == 0:
        raise InputError("at least the newest run has to be kept")
    age = rule.younger_than
    value = {"last": rule.last, "seconds": None if age is None else age.total_seconds()}
    with store.writing("runs keep"), storage_errors(store.uri):
        open_table(store.uri, "runs").update_config({_KEEPING: json.dumps(value)})


def keeping(store: PairStore) -> Keeping:
    """The rule that `keep` was last given; everything, if none was."""

    def once() -> Keeping:
        with storage_errors(store.uri):
            text = open_table(store.uri, "runs").config().get(_KEEPING)
            if text is None:
                return Keeping()
            value = json.loads(text)
            seconds = value["seconds"]
            return Keeping(value["last"], None if seconds is None else timedelta(seconds=seconds))

    return retried(once)


def prune(
    store: PairStore, *, keep_last: int | None = None, older_than: timedelta | None = None
) -> list[str]:
    """Drops old runs with their predictions and attributions; returns the dropped runs' ids.

    What killed runs left a day ago or earlier goes too.

    Args:
        store: the database.
        keep_last: the newest runs that stay, at any age.
        older_than: only runs that began longer ago than this go.

    Raises:
        InputError: neither rule is given.
    """
    rule = Keeping(keep_last, older_than)
    if rule.everything:
        raise InputError("say which runs to keep: the last ones, or those younger than an age")
    with store.writing("prune runs"):
        found = runs(store)
        gone = {run.run_id for run in rule.dropped(found)}
        return _drop(store, gone, {run.run_id for run in found} - gone)


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


def _drop(store: PairStore, gone: set[str], kept: set[str] | None = None) -> list[str]:
    """Removes runs; given all that stay, also what runs left that are in neither set."""
    for table, column in _RUN_OF.items():
        purge_rows(store.uri, table, [column], _of_runs(column, gone, kept))
    return sorted(gone)


def _of_runs(column: str, gone: set[str], kept: set[str] | None) -> Any:
    yesterday = f"r{datetime.now(UTC) - _UNDER_WAY:%Y%m%d-%H%M%S}"  # ids sort by time

    def doomed(rows: pa.RecordBatch) -> NDArray[np.bool_]:
        run_ids = pc.replace_substring_regex(rows[column], r"^(r\d+-\d+-[0-9a-f]+).*$", r"\1")
        found = pc.is_in(run_ids, pa.array(sorted(gone), pa.string()))
        if kept is not None:
            unknown = pc.invert(pc.is_in(run_ids, pa.array(sorted(kept), pa.string())))
            left = pc.and_(unknown, pc.less(run_ids, yesterday))
            found = pc.or_(found, left)
        mask: NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
        return mask

    return doomed
