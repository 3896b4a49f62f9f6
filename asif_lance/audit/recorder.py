"""Records predictions as they are made: the answers, and the pairs that they rest on."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from asif_lance.audit.run_rows import LABELS, PAIRS, PredictionRows, begin_run, finish_run
from asif_lance.audit.runs import drop_runs
from asif_lance.database import append_rows, check_epoch
from asif_lance.errors import DatabaseError, StaleModelError
from asif_lance.relative import Recipe
from asif_lance.store import PairStore

if TYPE_CHECKING:  # listing and pruning runs needs no torch
    from asif_lance.model import LabelSet, Prediction

_PREDICTIONS_PER_COMMIT = 500


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
        self._store, self._labels, self._since = store, labels, labels.epoch
        self._run = begin_run(labels.prompts, recipe, labels.version)
        self._rows = PredictionRows(self._run, store, top, pairs)
        self.run_id, self.dropped = self._run.run_id, list[str]()
        self._count = 0
        self._written = False  # whether tables may have something of the run

    def add(self, prediction: Prediction, truth: str | None = None) -> str:
        """Records one prediction and, where it is known, the true label; returns its id.

        Raises:
            StorageError: the disk refused.
            StaleModelError: pairs were forgotten since the label set was compiled.
        """
        prediction_id = self._rows.add(prediction, self._count, truth)
        self._count += 1
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
        self._written = True
        run = replace(self._run, predictions=self._count)
        there = self._rows.pairs_there
        self.dropped = finish_run(self._store, run, self._labels.prompts, there, self._since)

    def _take_back(self) -> None:
        if self._written:
            with contextlib.suppress(DatabaseError), self._store.writing("record", beside=True):
                drop_runs(self._store, {self.run_id})  # on a full disk, pruning does it later

    def _commit(self) -> None:
        for table, rows in self._rows.take().items():
            with self._store.writing("record", since=self._since, beside=True, midway=True):
                self._written = True
                append_rows(self._store.uri, table, rows)
