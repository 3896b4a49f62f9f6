"""Which predictions another state of the pairs would change, to what, and because of which pairs.

The other state is hypothetical (see `hypothetical`) or another model version; nothing is written.
Most images need no second search: one is searched again only if a pair among its k nearest is
removed (the next one enters) or an added pair is at least as near as its k-th. Where pictures are
compared from the mean, it moves with the pairs: all are searched in the other state, from which
their neighbors before follow. A whitening moves only with its sample; then all are searched in
both. Recorded predictions hardly need either, see `recorded_flips`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.model import BATCH, LabelSet, Model, Prediction, Prompts
from asif_lance.progress import track_batches
from asif_lance.records import SPARE, BoolArray, Float32Array, Neighbors
from asif_lance.search import unit_queries
from asif_lance.whatif.hypothetical import compile_for_both


@dataclass(frozen=True, slots=True)
class Influence:
    """What one pair contributes to a score in both states.

    Attributes:
        pair_id: the pair.
        caption: its caption.
        role: `records.EXAMPLE`, or None for an ordinary pair.
        label: the label whose score it is part of.
        before: its contribution to that score in the first state.
        after: the same in the other state.
    """

    pair_id: str
    caption: str
    role: str | None
    label: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class PredictionChange:
    """What becomes of one prediction.

    Attributes:
        before: what the first state says.
        after: what the other one says.
    """

    before: Prediction
    after: Prediction

    @property
    def flips(self) -> bool:
        """Whether the label is another one."""
        return self.before.label != self.after.label

    def because(self, n: int = 5) -> list[Influence]:
        """The n pairs whose contributions to the two states' best labels differ most, in order."""
        changed = [
            (pair_id, label, old, new)
            for label in dict.fromkeys((self.before.label, self.after.label))
            for pair_id, old, new in _contributions(self.before, self.after, label)
            if old != new
        ]
        changed.sort(key=lambda c: (-abs(c[3] - c[2]), c[0], c[1]))
        known = self._rows()
        return [
            Influence(i, known[i]["caption"], known[i]["role"], label, old, new)
            for i, label, old, new in changed[:n]
        ]

    def _rows(self) -> dict[str, dict[str, Any]]:
        known: dict[str, dict[str, Any]] = {}
        for prediction in (self.after, self.before):
            anchors = prediction.evidence.anchors
            near, taught = prediction.evidence.relative.indices[0], anchors.examples
            rows = anchors.rows(np.concatenate([near, taught]), ["pair_id", "caption", "role"])
            known.update({row["pair_id"]: row for row in rows})
        return known


def compare_states(
    before: Model,
    after: Model,
    ids: Sequence[str],
    vectors: Float32Array,
    prompts: Prompts,
) -> Iterator[PredictionChange]:
    """Classify (m, d) image embeddings in both states.

    Raises:
        DimensionError, InvalidVectorError: vectors that cannot be compared.
    """
    labels = compile_for_both(before, after, prompts)
    for at in track_batches("classify in both states", len(ids), BATCH):
        yield from compare_queries(before, after, ids[at], unit_queries(vectors[at]), labels)


def compare_models(
    before: tuple[Model, Float32Array, Prompts],
    after: tuple[Model, Float32Array, Prompts],
    ids: Sequence[str],
) -> Iterator[PredictionChange]:
    """Classify pictures by two models whose encoders may differ.

    Args:
        before: a model with the (m, d) image embeddings and the prompts of its own encoders.
        after: another one with its own.
        ids: the m pictures.

    Raises:
        DimensionError, InvalidVectorError: vectors that cannot be compared.
    """
    both = [
        model.classify_vectors(ids, vectors, model.compile(prompts))
        for model, vectors, prompts in (before, after)
    ]
    yield from map(PredictionChange, *both)


def compare_queries(
    before: Model,
    after: Model,
    ids: Sequence[str],
    queries: Float32Array,
    labels: tuple[LabelSet, LabelSet],
) -> Iterator[PredictionChange]:
    """The same of (m, d) unit queries and prompts compiled for each state."""
    near, other = _find_neighbors(before, after, queries)
    yield from map(
        PredictionChange,
        before.classify_neighbors(ids, queries, near, labels[0]),
        after.classify_neighbors(ids, queries, other, labels[1]),
    )


def _find_neighbors(
    before: Model, after: Model, queries: Float32Array
) -> tuple[Neighbors, Neighbors]:
    """The nearest anchors of (m, d) queries in both states."""
    anchors = after.anchors
    if not isinstance(anchors, HypotheticalAnchors):
        return before.neighbors(queries), after.neighbors(queries)
    measure = after.recipe.measures[0]
    if measure == "centred":  # with the mean, every similarity changes
        found = after.neighbors(queries, spare=SPARE)
        return _neighbors_before(before, anchors, queries, found), found
    near = before.neighbors(queries)
    if measure == "white" and not anchors.whitened("image").equals(
        before.anchors.whitened("image")
    ):
        return near, after.neighbors(queries)
    again = anchors.differ(queries, near, after.recipe.k[0], measure=measure)
    if again.all():
        return near, after.neighbors(queries)
    return near, _replaced(near, again, after, queries)


def _neighbors_before(
    before: Model, anchors: HypotheticalAnchors, queries: Float32Array, found: Neighbors
) -> Neighbors:
    """The same as `before.neighbors`, from those of a hypothetical state, which shares nearly all.

    Args:
        before: the model that the hypothetical state was made of, whose recipe compares from
            the mean.
        anchors: the hypothetical state's.
        queries: (m, d) unit image queries.
        found: their neighbors in that state, with some to spare.
    """
    k = min(before.recipe.k[0], before.anchors.count)
    if found.indices.shape[1] <= k:
        return before.neighbors(queries)
    stored = np.where(found.indices < len(before.anchors), found.indices, -1)
    removed = np.broadcast_to(anchors.removed, (len(queries), len(anchors.removed)))
    candidates = np.concatenate([stored, removed], axis=1)
    near = before.anchors.top_k_of("image", candidates, queries, k, measure="centred")
    mean = before.anchors.centre("image").mean
    drift = anchors.centre("image").bound_drift(queries, mean)
    # All others are at most as similar as the last one that was found, and may be tied with it.
    again = near.similarities[:, -1] <= found.similarities[:, -1] + drift
    return _replaced(near, again, before, queries)


def _replaced(near: Neighbors, again: BoolArray, model: Model, queries: Float32Array) -> Neighbors:
    """Neighbors of m queries, those of (m,) some of them found anew."""
    indices, similarities = near.indices.copy(), near.similarities.copy()
    if again.any():
        found = model.neighbors(queries[again])
        indices[again], similarities[again] = found.indices, found.similarities
    return Neighbors(indices, similarities)


def _contributions(
    before: Prediction, after: Prediction, label: str
) -> Iterator[tuple[str, float, float]]:
    old, new = before.evidence.contributions(label), after.evidence.contributions(label)
    first = dict(zip(old.pair_ids, old.contributions.tolist(), strict=True))
    second = dict(zip(new.pair_ids, new.contributions.tolist(), strict=True))
    for pair_id in first | second:
        yield pair_id, first.get(pair_id, 0.0), second.get(pair_id, 0.0)
