"""What a version's examples say of the labels of a label set; see `relative.examples`."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from asif_lance.anchors import Anchors
from asif_lance.model.labels import LabelSet, TaughtLabels
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
    prompts = labels.prompts
    captions = anchors.vectors("text", positions)
    members = find_members(captions, prompts.vectors, prompts.owner, len(prompts.names))
    positions, members = positions[members >= 0], members[members >= 0]
    if not len(positions):
        return labels
    images = anchors.vectors("image", positions)
    teaching = make_teaching(images, members, anchors.centre("image").mean)
    chosen = _choose(anchors.ids(positions))
    ordinary = _score_ordinary(images[chosen], labels, anchors)
    fitted = fit_teaching(teaching, images[chosen], chosen, ordinary)
    return replace(labels, taught=TaughtLabels(fitted, positions))


def _choose(ids: list[str]) -> Int64Array:
    """The places of those of the examples that are compared with all pairs, ascending."""
    digests = [hashlib.sha256(name.encode()).digest() for name in ids]
    order = sorted(range(len(ids)), key=digests.__getitem__)
    return np.sort(np.array(order[:FITTED], dtype=np.int64))


def _score_ordinary(images: Float32Array, labels: LabelSet, anchors: Anchors) -> Float64Array:
    """(m, c) what the ordinary pairs say of stored image vectors."""
    recipe = labels.recipe
    near = anchors.top_k("image", unit_queries(images), recipe.k[0], centred=recipe.centred)
    relative = relative_vectors(near, recipe.p[0], len(anchors))
    return best_scores(scores(relative, labels.compiled), labels.owner)
