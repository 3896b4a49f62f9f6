"""What a version's examples say of the labels of a label set; see `relative.examples`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.model.labels import LabelSet, Prompts, TaughtLabels
from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.relative import (
    best_scores,
    find_members,
    fit_teaching,
    make_teaching,
    relative_vectors,
    scores,
)
from asif_lance.search import unit_queries

#: Examples that weight and threshold are fitted on, chosen by a hash of their ids: each is compared
#: with all ordinary pairs.
FITTED = 512


def teach_labels(labels: LabelSet, anchors: Anchors) -> LabelSet:
    """The label set with what the version's examples say, if some are of its labels.

    Args:
        labels: compiled against these anchors.
        anchors: of the model version.
    """
    positions = anchors.examples
    if not len(positions):
        return labels
    images, captions = anchors.vectors("image", positions), anchors.vectors("text", positions)

    def score(places: Int64Array) -> Float64Array:
        return _score_ordinary(images[places], labels, anchors)

    mean, ids = anchors.mean("image"), anchors.ids(positions)
    taught = teach(labels.prompts, images, captions, ids, mean, score)
    if taught is None:
        return labels
    return replace(labels, taught=replace(taught, positions=positions[taught.positions]))


def teach(
    prompts: Prompts,
    images: Float32Array,
    captions: Float32Array,
    ids: Sequence[str],
    mean: Float64Array,
    score: Callable[[Int64Array], Float64Array],
) -> TaughtLabels | None:
    """What e examples say of labels, `positions` being places among them; None if nothing.

    Args:
        prompts: of the labels, as they are searched.
        images: (e, d) as stored.
        captions: (e, d) likewise.
        ids: e names.
        mean: (d,) of the ordinary pairs' images, on the grid.
        score: gives the (m, c) ordinary scores of the examples at (m,) places.
    """
    members = find_members(captions, prompts.vectors, prompts.owner, len(prompts.names))
    places = np.flatnonzero(members >= 0)
    if not len(places):
        return None
    teaching = make_teaching(images[places], members[places], mean)
    chosen = _choose([ids[i] for i in places.tolist()])
    at = places[chosen]
    return TaughtLabels(fit_teaching(teaching, images[at], chosen, score(at)), places)


def _choose(ids: Sequence[str]) -> Int64Array:
    """The places of those of the examples that are compared with all pairs, ascending."""
    digests = [hashlib.sha256(name.encode()).digest() for name in ids]
    order = sorted(range(len(ids)), key=digests.__getitem__)
    return np.sort(np.array(order[:FITTED], dtype=np.int64))


def _score_ordinary(images: Float32Array, labels: LabelSet, anchors: Anchors) -> Float64Array:
    """(m, c) what the ordinary pairs say of stored image vectors."""
    recipe = labels.recipe
    near = anchors.top_k("image", unit_queries(images), recipe.k[0], measure=recipe.measures[0])
    relative = relative_vectors(near, recipe.p[0], len(anchors))
    return best_scores(scores(relative, labels.compiled), labels.owner)
