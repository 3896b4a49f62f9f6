"""The self-test: how well a version tells labels apart on its own pairs, without labelled pictures.

The captions nearest to a label stand for it. The pictures of their pairs are classified with those
pairs, and all that show the same picture, left out; a setting that mistakes them will mistake
others, too. What it cannot see is whether the pictures to come are of the same kind as the pairs'.

It is a function of the version and the prompts: nothing is kept, so nothing has to be forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.pair_similarity import SAME_PICTURE
from asif_lance.evaluation.sweep import score_labels
from asif_lance.model import LabelSet, Model, Prompts, average_prompts
from asif_lance.records import Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.relative import relative_vectors
from asif_lance.search import unit_queries

#: Captions that stand for a label.
PER_LABEL = 10

#: Fewer pairs than this leave too little to compare with.
LEAST_PAIRS = 2 * PER_LABEL

#: Where there are very many labels, pictures of some of them stand for all: each is compared with
#: every label, and more of them say little more.
MOST_PICTURES = 2000

_COPIES_AT_FIRST = 8  # looked for before more are


@dataclass(frozen=True, slots=True)
class SelfTest:
    """The m pairs that stand for c labels.

    Attributes:
        prompts: what is asked.
        positions: (m,) of the pairs among the anchors, label by label, the nearest caption first.
        truths: (m,) number of the label that each stands for.
        queries: (m, d) float32, their pictures' vectors as they are searched.
        copies: for each, the positions of all pairs that show its picture, itself among them.
        nearness: of each label that is tested, the cosine of its prompt and the nearest caption,
            both taken from the mean of all captions: what the pairs say of the label at all.
    """

    prompts: Prompts
    positions: Int64Array
    truths: Int64Array
    queries: Float32Array
    copies: tuple[Int64Array, ...]
    nearness: Float64Array

    def neighbors(self, model: Model, k: int) -> Neighbors:
        """(m, k) pairs with the most similar pictures under the model's recipe, copies left out.

        They are not found, and have no say in the mean and the metric that pictures are compared
        under. Rows that have fewer end with similarities of -1, which carry no weight.
        """
        measure = model.recipe.measures[0]
        return model.anchors.top_k_without("image", self.copies, self.queries, k, measure=measure)

    def scores(self, model: Model, labels: LabelSet) -> tuple[Float64Array, Neighbors]:
        """(m, c) scores under the model's recipe, and the neighbors that they were made of."""
        near = self.neighbors(model, model.recipe.k[0])
        relative = relative_vectors(near, model.recipe.p[0], len(model.anchors))
        return score_labels(relative, labels), near


def check_enough_pairs(count: int) -> None:
    """Pass a number of pairs that a self-test can be made of.

    Raises:
        InputError: fewer than 20.
    """
    if count < LEAST_PAIRS:
        raise InputError(
            f"{format_count(count, 'pair is', 'pairs are')} too few for a self-test: "
            f"at least {LEAST_PAIRS}"
        )


def build_self_test(model: Model, prompts: Prompts, per_label: int = PER_LABEL) -> SelfTest:
    """Let the captions nearest to each label stand for it.

    Args:
        model: the version; its recipe does not matter.
        prompts: the labels.
        per_label: how many captions stand for one.

    Raises:
        InputError: fewer than 20 pairs.
    """
    anchors = model.anchors
    check_enough_pairs(anchors.count)
    asked = average_prompts(prompts)
    nearest = anchors.top_k("text", asked.vectors, per_label, measure="centred")
    cuts = np.searchsorted(asked.owner, np.arange(1, len(asked.names)))
    rows = np.split(np.arange(len(asked.owner)), cuts)
    chosen = [_best_captions(anchors, nearest, own, per_label) for own in rows]
    positions = np.concatenate(chosen)
    queries = unit_queries(anchors.vectors("image", positions))
    return SelfTest(
        prompts=prompts,
        positions=positions,
        truths=np.repeat(np.arange(len(chosen)), [len(own) for own in chosen]),
        queries=queries,
        copies=_find_copies(anchors, queries, positions),
        nearness=np.array([nearest.similarities[own, 0].max() for own in rows], dtype=np.float64),
    )


def sample_self_test(model: Model, prompts: Prompts) -> SelfTest:
    """The same, but of at most `MOST_PICTURES` pairs, of evenly taken labels.

    Raises:
        InputError: fewer than 20 pairs.
    """
    count = len(prompts.names)
    kept = np.unique(np.linspace(0, count - 1, min(count, MOST_PICTURES)).astype(np.int64))
    rows = np.isin(prompts.owner, kept)
    some = replace(
        prompts,
        names=tuple(prompts.names[i] for i in kept.tolist()),
        owner=np.searchsorted(kept, prompts.owner[rows]),
        vectors=prompts.vectors[rows],
    )
    found = build_self_test(model, some, max(min(PER_LABEL, MOST_PICTURES // len(kept)), 1))
    return replace(found, prompts=prompts, truths=kept[found.truths])


def _best_captions(
    anchors: Anchors, nearest: Neighbors, rows: Int64Array, count: int
) -> Int64Array:
    """The captions nearest to any of a label's prompts, each once; equal ones by `pair_id`."""
    indices, similarities = nearest.indices[rows].ravel(), nearest.similarities[rows].ravel()
    ordered = indices[np.lexsort((anchors.tie_order(indices), -similarities))]
    first = np.sort(np.unique(ordered, return_index=True)[1])
    return np.asarray(ordered[first][:count], dtype=np.int64)


def _find_copies(
    anchors: Anchors, queries: Float32Array, positions: Int64Array
) -> tuple[Int64Array, ...]:
    """The pairs that show each picture, by the stored vectors."""
    count = _COPIES_AT_FIRST
    while True:
        found = anchors.top_k("image", queries, count)
        same = found.similarities >= SAME_PICTURE
        if count >= anchors.count or not same[:, -1].any():
            break
        count *= 4
    own = zip(positions, found.indices, same, strict=True)
    return tuple(np.union1d(row[mask], [position]) for position, row, mask in own)
