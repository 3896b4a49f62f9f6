"""Which predictions another state of the pairs would change, to what, and because of which pairs.

The other state is imagined over the same matrices (`without`, `plus`) or is another model version;
nothing is written. An imagined one is exact: it answers what really deleting or adding would
answer. Most images need no second search: one is searched again only if a pair among its k nearest
is gone (the next one enters) or a new pair is at least as near as its k-th. Under a centred recipe
the mean moves with the pairs: all are searched there, and what they had before follows. Recorded
ones hardly need either, see `recorded_flips`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.model import BATCH, LabelSet, Model, Prediction, Prompts
from asif_lance.records import SPARE, Float32Array, Neighbors
from asif_lance.search import unit_queries
from asif_lance.whatif.hypothetical import compile_for_both, neighbors_before


@dataclass(frozen=True, slots=True)
class Influence:
    """How one pair moved a prediction.

    Attributes:
        pair_id: the pair.
        caption: its caption.
        label: the label whose score it is part of.
        before: its contribution to that score in the first state.
        after: the same in the other state.
    """

    pair_id: str
    caption: str
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
        """The n pairs that moved the two states' best labels most, largest first."""
        moved = [
            (pair_id, label, old, new)
            for label in dict.fromkeys((self.before.label, self.after.label))
            for pair_id, old, new in _contributions(self.before, self.after, label)
            if old != new
        ]
        moved.sort(key=lambda m: (-abs(m[3] - m[2]), m[0], m[1]))
        captions = self._captions()
        return [Influence(i, captions[i], label, old, new) for i, label, old, new in moved[:n]]

    def _captions(self) -> dict[str, str]:
        captions: dict[str, str] = {}
        for prediction in (self.after, self.before):
            anchors = prediction.evidence.anchors
            positions = prediction.evidence.relative.indices[0]
            rows = anchors.rows(positions, ["pair_id", "caption"])
            captions.update({row["pair_id"]: row["caption"] for row in rows})
        return captions


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
    for start in range(0, len(ids), BATCH):
        at = slice(start, start + BATCH)
        yield from compare_queries(before, after, ids[at], unit_queries(vectors[at]), labels)


def compare_queries(
    before: Model,
    after: Model,
    ids: Sequence[str],
    queries: Float32Array,
    labels: tuple[LabelSet, LabelSet],
) -> Iterator[PredictionChange]:
    """The same of (m, d) unit queries and prompts compiled for each state."""
    near, other = _both_neighbors(before, after, queries)
    yield from map(
        PredictionChange,
        before.classify_neighbors(ids, queries, near, labels[0]),
        after.classify_neighbors(ids, queries, other, labels[1]),
    )


def _both_neighbors(
    before: Model, after: Model, queries: Float32Array
) -> tuple[Neighbors, Neighbors]:
    imagined = after.anchors
    if not isinstance(imagined, HypotheticalAnchors):
        return before.neighbors(queries), after.neighbors(queries)
    if after.recipe.centred:  # with the mean, every similarity moves
        other = after.neighbors(queries, spare=SPARE)
        return neighbors_before(before, after, queries, other), other
    near = before.neighbors(queries)
    again = imagined.touched(queries, near, after.recipe.k[0])
    if again.all():
        return near, after.neighbors(queries)
    indices, similarities = near.indices.copy(), near.similarities.copy()
    if again.any():
        found = after.neighbors(queries[again])
        indices[again], similarities[again] = found.indices, found.similarities
    return near, Neighbors(indices, similarities)


def _contributions(
    before: Prediction, after: Prediction, label: str
) -> Iterator[tuple[str, float, float]]:
    old, new = before.evidence.contributions(label), after.evidence.contributions(label)
    first = dict(zip(old.pair_ids, old.contributions.tolist(), strict=True))
    second = dict(zip(new.pair_ids, new.contributions.tolist(), strict=True))
    for pair_id in first | second:
        yield pair_id, first.get(pair_id, 0.0), second.get(pair_id, 0.0)
