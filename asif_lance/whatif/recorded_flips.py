"""Which recorded predictions another state of the pairs would flip, nearly without searching.

Bounds on how far scores can move settle most of them (`score_bounds`); of what they leave open
nearly all is told by the labels that may win, scored from their own anchors (`label_rescoring`);
what flips or cannot be told so is searched again. The answer is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.audit.replay import ReplayRecords
from asif_lance.errors import InputError
from asif_lance.model import BATCH, LabelSet, Model
from asif_lance.records import SPARE, BoolArray, Float64Array, Int64Array, Neighbors
from asif_lance.relative import Centre
from asif_lance.search import Blocks
from asif_lance.whatif.changes import PredictionChange, compare_queries
from asif_lance.whatif.hypothetical import compile_for_both, neighbors_before
from asif_lance.whatif.label_rescoring import cost, crossed, nearness, stands
from asif_lance.whatif.score_bounds import Crossing, Heavies, Images, Shift, contenders, shift_of
from asif_lance.whatif.similarity_estimates import Compare

_IMAGES = 2**14  # bounded at once
_NAMED = 1 / 8  # of the anchors; comparing images with more of them saves little
_HEAVY = 2**11  # anchors that weigh most for labels, all labels together
_FEW = 2**15  # anchors that are compared in no time, all of them


@dataclass(frozen=True, slots=True)
class RecordedFlips:
    """What becomes of recorded predictions.

    Attributes:
        flips: those that get another label.
        predictions: how many there are.
        searched: how many had to be searched again; all others surely keep their label.
    """

    flips: tuple[PredictionChange, ...]
    predictions: int
    searched: int


def find_recorded_flips(before: Model, after: Model, asked: ReplayRecords) -> RecordedFlips:
    """Which recorded predictions another imagined state would flip.

    Bounds on how far the scores can move settle most of them without a search, exactly. What they
    leave open is scored again, first from the contending labels' own anchors alone; what flips or
    cannot be told so is searched again.

    Args:
        before: the model that the predictions were recorded with.
        after: from `without` or `plus`.
        asked: the predictions.
    """
    labels = compile_for_both(before, after, asked.prompts)
    again = _unsettled(before, after, asked, labels)
    flips: list[PredictionChange] = []
    for start in range(0, len(again), BATCH):
        flips += _flips(before, after, asked, again[start : start + BATCH], labels)
    return RecordedFlips(tuple(flips), len(asked.ids), len(again))


def _flips(
    before: Model,
    after: Model,
    asked: ReplayRecords,
    at: Int64Array,
    labels: tuple[LabelSet, LabelSet],
) -> list[PredictionChange]:
    """Search again for the predictions at some places, and for those that flip in both states."""
    names, queries = [asked.images[i] for i in at], asked.queries[at]
    if not _as_recorded(before, asked):
        found = compare_queries(before, after, names, queries, labels)
        return [change for change in found if change.flips]
    wide = after.neighbors(queries, spare=SPARE)
    new = list(after.classify_neighbors(names, queries, wide, labels[1]))
    old_labels = [asked.prompts.names[i] for i in asked.best[at]]
    changed = [i for i, prediction in enumerate(new) if prediction.label != old_labels[i]]
    if not changed:
        return []
    theirs = Neighbors(wide.indices[changed], wide.similarities[changed])
    near = neighbors_before(before, after, queries[changed], theirs)
    chosen = [names[i] for i in changed]
    old = before.classify_neighbors(chosen, queries[changed], near, labels[0])
    return list(map(PredictionChange, old, (new[i] for i in changed)))


def _as_recorded(model: Model, asked: ReplayRecords) -> bool:
    """Whether the version still has what it had: only forgetting takes pairs out of one."""
    return model.anchors.count == asked.pairs


def _unsettled(
    before: Model, after: Model, asked: ReplayRecords, labels: tuple[LabelSet, LabelSet]
) -> Int64Array:
    """The places of the predictions that may flip."""
    if not isinstance(after.anchors, HypotheticalAnchors):
        raise InputError("only imagined states are compared with recorded predictions")
    full = asked.neighbors == before.recipe.k[0]
    known = _as_recorded(before, asked) and len(asked.ranks)
    if not known or (after.anchors.came and not full):
        return np.arange(len(asked.ids))
    states = States.of(before, after.anchors)
    old = replace(labels[0].relative, n=len(after.anchors))
    shift = shift_of(old, labels[1].relative, labels[0].owner, states.went, states.came)
    if len(shift.anchors) > _NAMED * max(len(after.anchors), _FEW):
        return np.arange(len(asked.ids))
    heavies, found = Heavies.of(labels[1].relative, _HEAVY), [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(asked.ids), _IMAGES):
        at = slice(start, start + _IMAGES)
        found.append(start + _open(states.standing(asked, at), shift, heavies, labels[1]))
    return np.concatenate(found)


def _open(standing: Standing, shift: Shift, heavies: Heavies, labels: LabelSet) -> Int64Array:
    """Which images bounds and contending labels' scores leave open."""
    recipe = labels.recipe
    again = np.flatnonzero(
        contenders(standing.images, shift, standing.first, recipe.p[0]).any(axis=1)
    )
    standing = standing.part(again)
    images, first = standing.images, standing.first
    went, came = (first(slice(None), shift.anchors[which]) for which in (shift.went, shift.came))
    near = nearness(images, went, came, recipe.k[0])
    crossing = Crossing(heavies, crossed(images, near))
    open_ = contenders(images, shift, first, recipe.p[0], crossing)
    left = np.flatnonzero(open_.any(axis=1))
    open_[left, images.best[left]] = True
    bounds = near[0][left], near[1][left]
    return again[left[~_stands(standing.part(left), bounds, open_[left], labels)]]


def _stands(
    standing: Standing,
    bounds: tuple[Float64Array, Float64Array],
    open_: BoolArray,
    labels: LabelSet,
) -> BoolArray:
    """Which images surely keep their label, as those that may win score."""
    texts = labels.relative, labels.owner
    if cost(open_, *texts) > len(open_) * labels.relative.n:
        return np.zeros(len(open_), dtype=np.bool_)  # a search takes no longer
    power = labels.recipe.p[0]
    return stands(standing.images, open_, bounds, *texts, standing.other, power)


@dataclass(frozen=True, slots=True)
class Standing:
    """Some images and how they compare with anchors in both states.

    Attributes:
        images: what is known of them.
        first: similarities before, also of anchors that come.
        other: similarities after.
    """

    images: Images
    first: Compare
    other: Compare

    def part(self, rows: Int64Array) -> Standing:
        """Some of them."""
        return Standing(self.images.part(rows), self.first.part(rows), self.other.part(rows))


@dataclass(frozen=True, slots=True)
class States:
    """The image side of both states.

    Attributes:
        anchors: (n, d), those of both.
        first: their centre before, also of those that come; None if the recipe needs none.
        other: their centre after.
        went: (g,) positions of the anchors that only the first has.
        came: (a,) positions of those that only the other has.
    """

    anchors: Blocks
    first: Centre | None
    other: Centre | None
    went: Int64Array
    came: Int64Array

    @staticmethod
    def of(before: Model, anchors: HypotheticalAnchors) -> States:
        """Find the centres."""
        went, came = anchors.went, np.arange(len(anchors) - anchors.came, len(anchors))
        first, other = None, None
        if before.recipe.centred:
            either = anchors.live.copy()
            either[went] = True
            first = anchors.centre_at("image", before.anchors.centre("image").mean, either)
            other = anchors.centre("image")
        return States(Blocks(anchors.image), first, other, went, came)

    def standing(self, asked: ReplayRecords, at: slice) -> Standing:
        """Compare some images of a run in both, and find how far their similarities drift."""
        first = Compare(asked.queries[at], self.anchors, self.first)
        other, drift = first, np.zeros(len(first.away))
        if self.first is not None and self.other is not None:
            other = Compare(asked.queries[at], self.anchors, self.other)
            drift = self.other.bound_drift_at(np.minimum(first.away, other.away), self.first.mean)
        known = {f.name: getattr(asked, f.name) for f in fields(Images) if f.name != "drift"}
        images = Images(**known, drift=np.zeros(len(asked.ids))).part(at)
        return Standing(replace(images, drift=drift), first, other)
