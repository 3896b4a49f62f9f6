"""How often a search gives the label of exact search, and how much faster it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from asif_lance.anchors import Anchors, Approximation, MeasuredSetting
from asif_lance.model import LabelSet
from asif_lance.progress import track
from asif_lance.records import Float32Array, RelativeVectors
from asif_lance.relative import Recipe, best_scores, relative_vectors, scores

_EXACT_INTERVAL = 8  # one query in so many is searched exactly again, for the time that takes

RelativeSearch = Callable[[Float32Array], RelativeVectors]


@dataclass(frozen=True, slots=True)
class _Answer:
    found: frozenset[int]
    label: int
    seconds: float


class AgreementTest:
    """Exact answers to some queries, asked one by one, to compare others with.

    Args:
        anchors: what is searched.
        recipe: with which k and p.
        queries: (m, d) unit vectors.
        labels: compiled against the same anchors.
    """

    def __init__(
        self, anchors: Anchors, recipe: Recipe, queries: Float32Array, labels: LabelSet
    ) -> None:
        self._anchors, self._recipe, self._queries = anchors, recipe, queries
        self._labels = labels
        self._exact = [
            self._answer(self._search_exactly, queries[i : i + 1])
            for i in track("search exactly", range(len(queries)))
        ]

    def measure(self, approximation: Approximation) -> MeasuredSetting:
        """What an approximation gives on these queries."""

        def search(query: Float32Array) -> RelativeVectors:
            return approximation(self._anchors, self._recipe, query, self._labels.compiled)

        answers, exact = self._answer_all(search)
        both = list(zip(answers, self._exact, strict=True))
        recalls = [len(a.found & e.found) / max(len(e.found), 1) for a, e in both]
        seconds = _mean_seconds(answers)
        return MeasuredSetting(
            setting=approximation.setting,
            recall=float(np.mean(recalls)),
            agreement=float(np.mean([a.label == e.label for a, e in both])),
            ratio=_mean_seconds(exact) / seconds,
            milliseconds=seconds * 1e3,
        )

    def _answer_all(self, search: RelativeSearch) -> tuple[list[_Answer], list[_Answer]]:
        """Answers to all queries, and exact ones in between: a busy machine slows both."""
        search(self._queries[:1])  # what only the first query waits for is not measured
        answers, exact = [], []
        for i in track("search", range(len(self._queries))):
            query = self._queries[i : i + 1]
            answers.append(self._answer(search, query))
            if i % _EXACT_INTERVAL == 0:
                exact.append(self._answer(self._search_exactly, query))
        return answers, exact

    def _search_exactly(self, query: Float32Array) -> RelativeVectors:
        neighbors = self._anchors.top_k(
            "image", query, self._recipe.k[0], measure=self._recipe.measures[0]
        )
        return relative_vectors(neighbors, self._recipe.p[0], len(self._anchors))

    def _answer(self, search: RelativeSearch, query: Float32Array) -> _Answer:
        begun = time.perf_counter()
        relative = search(query)
        seconds = time.perf_counter() - begun
        prompt_scores = scores(relative, self._labels.compiled)
        label = int(best_scores(prompt_scores, self._labels.owner)[0].argmax())
        return _Answer(frozenset(relative.indices[0].tolist()), label, seconds)


def agreement_at_least(agreement: float, queries: int) -> float:
    """The lower end of the 95% interval of an agreement seen on some queries (Wilson 1927)."""
    seen = binomtest(round(agreement * queries), queries)
    return float(seen.proportion_ci(method="wilson").low)


def _mean_seconds(answers: list[_Answer]) -> float:
    return float(np.mean([answer.seconds for answer in answers]))
