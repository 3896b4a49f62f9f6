"""Concurrent questions of the same labels to the same model are answered by one search.

One search uses all cores and costs little more for many pictures than for one. So one runs at a
time, and what comes meanwhile waits and is searched together. An answer does not depend on what it
was searched with: that is the library's promise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from asif_lance.errors import AsifError
from asif_lance.model import LabelSet, Prediction
from asif_lance.records import Float32Array
from asif_lance.service.failures import RequestError
from asif_lance.service.open_models import OpenModel

#: Pictures that may wait; more are told to come again.
WAITING = 8192

_Waiting = tuple[list[str], Float32Array, "Future[list[Prediction]]"]


class SharedSearches:
    """Runs searches one at a time, each for all that wait for the same. Safe from threads.

    Args:
        observe: is told how many requests each search answered.
    """

    def __init__(self, observe: Callable[[int], None]) -> None:
        self._observe, self._lock = observe, threading.Lock()
        self._waiting: dict[tuple[int, int], list[_Waiting]] = {}
        self._pictures = 0
        self._searcher = ThreadPoolExecutor(1, thread_name_prefix="search")

    def classify(
        self, opened: OpenModel, labels: LabelSet, names: list[str], vectors: Float32Array
    ) -> list[Prediction]:
        """What the model says of (m, d) vectors; waits for the searches before.

        Raises:
            RequestError: too many wait.
            AsifError: as `Model.classify_vectors`.
        """
        key, answer = (id(opened), id(labels)), Future[list[Prediction]]()
        with self._lock:
            if self._pictures + len(names) > WAITING:
                raise RequestError(503, "too many pictures are waiting: ask again")
            self._pictures += len(names)
            waiting = self._waiting.setdefault(key, [])
            waiting.append((names, vectors, answer))
            if len(waiting) == 1:
                self._searcher.submit(self._search, key, opened, labels)
        return answer.result()

    def close(self) -> None:
        """Finish what waits."""
        self._searcher.shutdown()

    def _search(self, key: tuple[int, int], opened: OpenModel, labels: LabelSet) -> None:
        with self._lock:
            batch = self._waiting.pop(key)
            self._pictures -= sum(len(names) for names, _, _ in batch)
        self._observe(len(batch))
        try:
            self._answer(opened, labels, batch)
        except AsifError:  # somebody's vectors, or a forget: each finds out alone
            for one in batch:
                _answer_alone(opened, labels, one)
        except BaseException as error:  # whoever waits has to be told
            for _, _, answer in batch:
                answer.set_exception(error)

    def _answer(self, opened: OpenModel, labels: LabelSet, batch: list[_Waiting]) -> None:
        names = [name for names, _, _ in batch for name in names]
        vectors = np.concatenate([vectors for _, vectors, _ in batch])
        found = iter(list(opened.model.classify_vectors(names, vectors, labels)))
        for own, _, answer in batch:
            answer.set_result([next(found) for _ in own])


def _answer_alone(opened: OpenModel, labels: LabelSet, one: _Waiting) -> None:
    names, vectors, answer = one
    try:
        answer.set_result(list(opened.model.classify_vectors(names, vectors, labels)))
    except BaseException as error:  # whoever waits has to be told
        answer.set_exception(error)
