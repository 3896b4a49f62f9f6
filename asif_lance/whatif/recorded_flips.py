"""Which recorded predictions another state of the pairs would flip, nearly without searching.

Bounds on how far scores can move settle most of them (`score_bounds`); of what they leave open
nearly all is settled by the labels that may win, scored from their own anchors (`label_rescoring`);
what may flip all the same is searched again. The answer is exact.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.audit.replay import ReplayRecords
from asif_lance.errors import InputError
from asif_lance.model import BATCH, LabelSet, Model
from asif_lance.progress import track_batches
from asif_lance.records import Int64Array, RelativeVectors
from asif_lance.relative import Centre, Recipe, WhitenedSide
from asif_lance.search import Blocks
from asif_lance.whatif.changes import PredictionChange, compare_queries
from asif_lance.whatif.hypothetical import compile_for_both
from asif_lance.whatif.label_rescoring import Rescoring, bound_kth_similarity
from asif_lance.whatif.score_bounds import (
    RecordedImages,
    TextChange,
    bound_contenders,
    compare_prompts,
)
from asif_lance.whatif.similarity_estimates import SimilarityEstimator

_IMAGES = 2**14  # bounded at once
_NAMED_SHARE = 1 / 8  # of the anchors; comparing images with more of them saves little
_FEW_ANCHORS = 2**15  # all of them are compared in no time


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
    """Which recorded predictions a hypothetical state would flip.

    Args:
        before: the model that the predictions were recorded with.
        after: from `without_pairs` or `with_pairs`.
        asked: the predictions.

    Raises:
        InputError: `after` is no hypothetical state.
    """
    labels = compile_for_both(before, after, asked.prompts)
    again = _find_unsettled(before, after, asked, labels)
    flips: list[PredictionChange] = []
    for at in track_batches("search again", len(again), BATCH):
        flips += _search_flips(before, after, asked, again[at], labels)
    return RecordedFlips(tuple(flips), len(asked.ids), len(again))


def _search_flips(
    before: Model,
    after: Model,
    asked: ReplayRecords,
    at: Int64Array,
    labels: tuple[LabelSet, LabelSet],
) -> list[PredictionChange]:
    """Search again for the predictions at some places, and for those that flip in both states."""
    if _is_unchanged(before, asked):
        queries, names = asked.queries[at], [asked.images[i] for i in at]
        new = after.classify_neighbors(names, queries, after.neighbors(queries), labels[1])
        recorded = [asked.prompts.names[i] for i in asked.best[at]]
        both = zip(new, recorded, strict=True)
        at = at[[prediction.label != label for prediction, label in both]]
    if not len(at):
        return []
    names = [asked.images[i] for i in at]
    found = compare_queries(before, after, names, asked.queries[at], labels)
    return [change for change in found if change.flips]


def _is_unchanged(model: Model, asked: ReplayRecords) -> bool:
    """Whether the version still has what it had: only forgetting takes pairs out of one."""
    return model.anchors.pairs == asked.pairs


def _find_unsettled(
    before: Model, after: Model, asked: ReplayRecords, labels: tuple[LabelSet, LabelSet]
) -> Int64Array:
    """The places of the predictions that may flip."""
    anchors, everything = after.anchors, np.arange(len(asked.ids))
    if not isinstance(anchors, HypotheticalAnchors):
        raise InputError("only hypothetical states are compared with recorded predictions")
    full = asked.neighbors == before.recipe.k[0]
    # What examples add is not bounded: that is found by asking again.
    taught = any(one.taught is not None for one in labels)
    known = _is_unchanged(before, asked) and len(asked.ranks) and not taught
    if not known or (len(anchors.added) and not full):
        return everything
    sides = ImageSides.of(before, anchors)
    if sides is None:
        return everything
    old, new = (replace(one.compiled.vectors(), n=len(anchors)) for one in labels)
    change = compare_prompts(old, new, labels[0].owner, sides.removed, sides.added)
    if len(change.anchors) > _NAMED_SHARE * max(len(anchors), _FEW_ANCHORS):
        return everything
    found = [everything[:0]]
    texts = new, labels[1].owner
    for at in track_batches("bound scores", len(everything), _IMAGES):
        open_here = _find_open(sides.compare(asked, at), change, after.recipe, texts)
        found.append(everything[at][open_here])
    return np.concatenate(found)


def _find_open(
    both: ComparedImages,
    change: TextChange,
    recipe: Recipe,
    texts: tuple[RelativeVectors, Int64Array],
) -> Int64Array:
    """Which images bounds and contending labels' scores leave open.

    Args:
        both: the images.
        change: of the prompts.
        recipe: how the other state compares.
        texts: the prompts' relative vectors in the other state, and the label of each.
    """
    most = bound_contenders(both.images, change, both.before, recipe.p[0])
    again = np.flatnonzero((most > -np.inf).any(axis=1))
    both = both.part(again)
    removed, added = (
        both.before(slice(None), change.anchors[which]) for which in (change.removed, change.added)
    )
    kth = bound_kth_similarity(both.images, removed, added, recipe.k[0])
    rescoring = Rescoring(both.images, kth, *texts, both.after, recipe.p[0])
    return again[~rescoring.confirm(most[again])]


@dataclass(frozen=True, slots=True)
class ComparedImages:
    """Some recorded images and their similarities in both states.

    Attributes:
        images: what is known of them.
        before: similarities in the first state, also to added anchors.
        after: similarities in the other state.
    """

    images: RecordedImages
    before: SimilarityEstimator
    after: SimilarityEstimator

    def part(self, rows: Int64Array) -> ComparedImages:
        """Some of them."""
        return ComparedImages(self.images.part(rows), self.before.part(rows), self.after.part(rows))


@dataclass(frozen=True, slots=True)
class ImageSides:
    """The image side of both states.

    Attributes:
        anchors: (n, d), those of both.
        before: the first state's centre or whitening, with the scales of added anchors too; None
            if the recipe needs none.
        after: the other state's.
        removed: positions of the anchors that only the first has.
        added: positions of those that only the other has.
    """

    anchors: Blocks
    before: Centre | WhitenedSide | None
    after: Centre | WhitenedSide | None
    removed: Int64Array
    added: Int64Array

    @staticmethod
    def of(model: Model, anchors: HypotheticalAnchors) -> ImageSides | None:
        """Find the centres of a model and of a hypothetical state of it.

        None where they have different whitenings: nothing is known of how similarities differ.
        """
        before: Centre | WhitenedSide | None = None
        after: Centre | WhitenedSide | None = None
        measure = model.recipe.measures[0]
        if measure == "white":
            before = after = anchors.whitened("image")
            if not after.equals(model.anchors.whitened("image")):
                return None
        if measure == "centred":
            either = anchors.live.copy()
            either[anchors.removed] = True
            before = anchors.centre_at("image", model.anchors.centre("image").mean, either)
            after = anchors.centre("image")
        return ImageSides(Blocks(anchors.image), before, after, anchors.removed, anchors.added)

    def compare(self, asked: ReplayRecords, at: slice) -> ComparedImages:
        """Compare some images of a run in both, and find how far their similarities drift."""
        before = SimilarityEstimator(asked.queries[at], self.anchors, self.before)
        after, drift = before, np.zeros(len(before.away))
        if isinstance(self.before, Centre) and isinstance(self.after, Centre):
            after = SimilarityEstimator(asked.queries[at], self.anchors, self.after)
            drift = self.after.bound_drift_at(np.minimum(before.away, after.away), self.before.mean)
        images = RecordedImages(
            similarities=asked.similarities[at],
            ranks=asked.ranks,
            weights=asked.weights[at],
            best=asked.best[at],
            scores=asked.scores[at],
            neighbors=asked.neighbors,
            pairs=asked.pairs,
            drift=drift,
        )
        return ComparedImages(images, before, after)
