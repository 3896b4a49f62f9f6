"""Concurrent questions of the same labels to the same model are answered by one search.

One search uses all cores and costs little more for many pictures than for one. So one runs at a
time, and what comes meanwhile waits and is searched together. The version is looked up after all of
a batch have come, once for all: each gets what was newest when it asked, or newer. An answer does
not depend on what it was searched with: that is the library's promise.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from asif_lance.errors import AsifError
from asif_lance.model import Prediction
from asif_lance.records import Float32Array
from asif_lance.service.failures import RequestError
from asif_lance.service.open_models import OpenModel, OpenModels
from asif_lance.service.question import Asked, ChosenRecipe

#: Pictures that may wait; more are told to come again.
WAITING = 8192

_PREPARING = 8  # new labels that are embedded and compiled at once, beside searches
_PREPARED = 64  # questions known to be prepared

Found = tuple[OpenModel, list[Prediction]]
_Waiting = tuple[list[str], Float32Array, "Future[Found]"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What can be searched together: the version's name, the recipe, labels, the dimension."""

    model: str
    how: ChosenRecipe
    asked: Asked
    dimension: int


class SharedSearches:
    """Runs searches one at a time, each for all that wait for the same. Safe from threads.

    Args:
        models: the open models.
        observe: is told how many requests each search answered.
    """

    def __init__(self, models: OpenModels, observe: Callable[[int], None]) -> None:
        self._models, self._observe = models, observe
        self._lock, self._searching = threading.Lock(), threading.Lock()
        self._waiting: dict[Wanted, list[_Waiting]] = {}
        self._prepared: OrderedDict[Wanted, None] = OrderedDict()
        self._pictures = 0
        self._searchers = ThreadPoolExecutor(_PREPARING, thread_name_prefix="search")

    def classify(self, wanted: Wanted, names: list[str], vectors: Float32Array) -> Found:
        """What the model says of (m, d) vectors, and the model; waits for the searches before.

        Raises:
            RequestError: too many wait.
            AsifError: as `OpenModels.answer` and `Model.classify_vectors`.
        """
        answer = Future[Found]()
        with self._lock:
            if self._pictures + len(names) > WAITING:
                raise RequestError(503, "too many pictures are waiting: ask again")
            self._pictures += len(names)
            waiting = self._waiting.setdefault(wanted, [])
            waiting.append((names, vectors, answer))
            if len(waiting) == 1:
                self._searchers.submit(self._search, wanted)
        return answer.result()

    def close(self) -> None:
        """Finish what waits."""
        self._searchers.shutdown()

    def _search(self, wanted: Wanted) -> None:
        try:
            with contextlib.suppress(AsifError):  # the search tells it to those who wait
                self._prepare(wanted)
        finally:
            with self._searching:
                self._answer_all(wanted, self._take(wanted))

    def _take(self, wanted: Wanted) -> list[_Waiting]:
        with self._lock:
            batch = self._waiting.pop(wanted)
            self._pictures -= sum(len(names) for names, _, _ in batch)
        self._observe(len(batch))
        return batch

    def _prepare(self, wanted: Wanted) -> None:
        """Embed and compile labels that are new, which may take long, while others search."""
        with self._lock:
            known = wanted in self._prepared
        if not known:
            self._models.answer(wanted.model, wanted.how, lambda one: one.labels(wanted.asked))
        with self._lock:
            self._prepared[wanted] = None
            self._prepared.move_to_end(wanted)
            while len(self._prepared) > _PREPARED:
                self._prepared.popitem(last=False)

    def _answer_all(self, wanted: Wanted, batch: list[_Waiting]) -> None:
        try:
            self._answer(wanted, batch)
        except AsifError:  # somebody's vectors, or a forget: each finds out alone
            for one in batch:
                try:
                    self._answer(wanted, [one])
                except BaseException as error:  # whoever waits has to be told
                    one[2].set_exception(error)
        except BaseException as error:  # whoever waits has to be told
            for _, _, answer in batch:
                answer.set_exception(error)

    def _answer(self, wanted: Wanted, batch: list[_Waiting]) -> None:
        names = [name for names, _, _ in batch for name in names]
        vectors = np.concatenate([vectors for _, vectors, _ in batch])

        def ask(opened: OpenModel) -> Found:
            labels = opened.labels(wanted.asked)
            return opened, list(opened.model.classify_vectors(names, vectors, labels))

        opened, every = self._models.answer(wanted.model, wanted.how, ask)
        found = iter(every)
        for own, _, answer in batch:
            answer.set_result((opened, [next(found) for _ in own]))
