"""Rows of a run: what its predictions are in the tables, and its own row and prompts."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import chain, groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from asif_lance.audit.replay import make_prompt_rows, make_query_row, recipe_of, to_table
from asif_lance.audit.runs import Run, drop_runs, list_runs, retention_rule
from asif_lance.database import append_rows, read_table, schemas
from asif_lance.errors import InputError
from asif_lance.relative import Recipe, format_sides
from asif_lance.store import PairStore

if TYPE_CHECKING:  # listing and pruning runs needs no torch
    from asif_lance.model import Contributions, Prediction, Prompts

#: Labels recorded per image, and pairs recorded per label, unless the caller says otherwise.
LABELS, PAIRS = 5, 20

#: Tables with predictions, in the order in which they are written: attributions first, so that a
#: prediction that is there has its pairs. With the column that names the run, or begins with it.
PREDICTION_TABLES = {
    "attributions": "prediction_id",
    "queries": "prediction_id",
    "predictions": "run_id",
}

_ID_BYTES = 6


def begin_run(prompts: Prompts, recipe: Recipe, version: str) -> Run:
    """A run without any prediction.

    Args:
        prompts: of the label set, averaged where it is asked so: as they are searched.
        recipe: that it is made with.
        version: of the model.
    """
    return Run(
        run_id=f"r{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(_ID_BYTES)}",
        created_at=datetime.now(UTC),
        model=version,
        recipe=recipe.name,
        label_set=fingerprint(prompts),
        labels=len(prompts.names),
        predictions=0,
        templates=prompts.templates or None,
    )


def check_limits(top: int | None, pairs: int | None) -> None:
    """Pass numbers of labels and pairs to record; None for all.

    Raises:
        InputError: nothing would be recorded.
    """
    if (top is not None and top < 1) or (pairs is not None and pairs < 1):
        raise InputError("record at least one label and one pair")


class PredictionRows:
    """Predictions as rows of `PREDICTION_TABLES`, until they are taken.

    Attributes:
        pairs_there: how many the model had, once a prediction is here.
    """

    def __init__(
        self, run: Run, store: PairStore, top: int | None = LABELS, pairs: int | None = PAIRS
    ) -> None:
        """Begin with nothing.

        Args:
            run: theirs.
            store: the database.
            top: labels recorded per image, best first; None for all.
            pairs: attributions recorded per label, largest first; None for all.
        """
        check_limits(top, pairs)
        self._run, self._top, self._pairs = run, top, pairs
        self._widths = store.image.dimension, store.text.dimension
        self._predictions: list[dict[str, Any]] = []
        self._queries: list[dict[str, Any]] = []
        self._attributions: list[tuple[str, str, Contributions]] = []
        self.pairs_there = 0

    def __len__(self) -> int:
        """Predictions that are here."""
        return len(self._queries)

    def add(self, prediction: Prediction, number: int, truth: str | None = None) -> str:
        """Take one in under its number in the run; returns its id.

        Raises:
            InputError: it was not made by exact search.
        """
        prediction_id = f"{self._run.run_id}-{number}"
        self._queries.append(make_query_row(prediction_id, prediction))
        self.pairs_there = prediction.evidence.anchors.pairs
        best = prediction.ranking[: self._top]
        found = prediction.evidence.contributions_of([label for label, _ in best], self._pairs)
        columns = ("run_id", "model", "label_set", "created_at")
        common = {key: getattr(self._run, key) for key in columns}
        common |= {"prediction_id": prediction_id, "image": prediction.image, "truth": truth}
        common |= {side: format_sides(getattr(prediction.recipe, side)) for side in ("k", "p")}
        for rank, ((label, score), shares) in enumerate(zip(best, found, strict=True), 1):
            covered = float(shares.contributions.sum())
            coverage = min(covered / score, 1.0) if score > 0 else 1.0
            row = {"label": label, "rank": rank, "score": score, "coverage": coverage}
            self._predictions.append(common | row)
            self._attributions.append((prediction_id, label, shares))
        return prediction_id

    def take(self) -> dict[str, pa.Table]:
        """All rows that are here, by table, in the order in which they are to be written."""
        if not len(self):
            return {}
        found = {
            "attributions": _attribution_rows(self._attributions),
            "queries": to_table(self._queries, schemas.queries_schema(*self._widths)),
            "predictions": to_table(self._predictions, schemas.PREDICTIONS),
        }
        self._attributions, self._predictions, self._queries = [], [], []
        return found


def finish_run(
    store: PairStore, run: Run, prompts: Prompts, pairs_there: int, since: int
) -> list[str]:
    """Writes what makes a run complete, once its predictions are there; doing it again is no harm.

    Args:
        store: the database.
        run: with the number of its predictions.
        prompts: as for `begin_run`.
        pairs_there: how many pairs the model had.
        since: the epoch of the label set.

    Returns:
        Ids of older runs that the retention rule dropped.

    Raises:
        StaleModelError: pairs were forgotten since.
    """
    widths = store.image.dimension, store.text.dimension
    rows = {
        "prompts": to_table(
            make_prompt_rows(run.run_id, prompts, pairs_there), schemas.prompts_schema(*widths)
        ),
        "runs": to_table([asdict(run)], schemas.RUNS),
    }
    for table, own in rows.items():
        with store.writing("record", since=since, beside=True, midway=True):
            if not has_rows(store.uri, table, "run_id", run.run_id):
                append_rows(store.uri, table, own)
    dropped = _drop_older_runs(store, run.run_id)
    store.settle()
    return dropped


def read_predictions(store: PairStore, run: Run) -> Iterator[Prediction]:
    """The predictions of a run in order, with the labels that were recorded of each.

    They are answers alone: what they rest on is in `attributions`.
    """
    from asif_lance.model import Prediction

    columns = ["prediction_id", "image", "label", "score"]
    rows = read_table(store.uri, "predictions", columns, f"run_id = '{run.run_id}'").to_pylist()
    recipe = recipe_of(store, run) if rows else None
    for _, own in groupby(rows, key=itemgetter("prediction_id")):
        labels = list(own)
        ranking = tuple((row["label"], row["score"]) for row in labels)
        assert recipe is not None
        yield Prediction(labels[0]["image"], run.model, recipe, ranking)


def has_rows(uri: str, table: str, column: str, run_id: str) -> bool:
    """Whether a table has something of a run."""
    where = f"{column} = '{run_id}' OR starts_with({column}, '{run_id}-')"
    return bool(len(read_table(uri, table, [column], where, limit=1)))


def _drop_older_runs(store: PairStore, own: str) -> list[str]:
    rule = retention_rule(store)
    if rule.everything:
        return []
    with store.writing("record", beside=True):
        # The newest run is one's own, or came since: neither may go.
        others, found = replace(rule, last=max(rule.last or 0, 1)), list_runs(store)
        gone = {run.run_id for run in others.dropped(found)} - {own}
        kept = {run.run_id for run in found} - gone
        return drop_runs(store, gone, kept) if gone else []


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


def fingerprint(prompts: Prompts) -> str:
    """Names a label set by its content: labels, prompts' vectors and ensemble."""
    digest = hashlib.sha256(prompts.ensemble.encode())
    for name in prompts.names:
        digest.update(name.encode() + b"\0")
    digest.update(prompts.owner.astype("<i8").tobytes())
    digest.update(prompts.vectors.astype("<f4").tobytes())
    return digest.hexdigest()[:16]
