"""How similar pairs are on both sides: are captions of similar images similar, and are there hubs?

Probes drawn from the pairs are compared with the pairs (100,000 of them at most, as in Figures 3
and 10 of the paper). Pairs that show a probe's own picture are left out: five captions of one photo
would resemble each other whatever the encoders do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import skew

from asif_lance.anchors import Anchors, Side
from asif_lance.progress import track_batches
from asif_lance.records import BoolArray, Float32Array, Float64Array, Int64Array

#: Pairs that probes are compared with: the paper's 100,000.
REFERENCE = 100_000

#: The share of them that counts as similar: the paper's 1,000 of 100,000; at least ten.
NEAR_SHARE, NEAR_LEAST = 0.01, 10

#: Images at least this similar are one picture (float16 rounds the last digits).
SAME_PICTURE = 0.999

BARS = 80
_EDGES = np.linspace(-1, 1, BARS + 1)
_BLOCK = 64  # probes compared at once
_SIDES: tuple[Side, Side] = ("image", "text")


@dataclass(frozen=True, slots=True)
class PairSimilarity:
    """How similar P probes are to R pairs.

    Attributes:
        probes: (P,) positions of the probes among the anchors.
        reference: (R,) positions of the pairs that they were compared with.
        near: how many of those count as similar.
        near_texts: (P,) mean cosine of a probe's caption with those of the most similar images.
        all_texts: (P,) the same with all captions.
        histograms: `image_all`, `image_near`, `text_all`, `text_near`: (BARS,) shares of the
            cosines over [-1, 1], those of the pairs with the most similar images and all.
        lists: by side, (R,) in how many probes' lists of the `near` most similar each pair is.
    """

    probes: Int64Array
    reference: Int64Array
    near: int
    near_texts: Float64Array
    all_texts: Float64Array
    histograms: dict[str, Float64Array]
    lists: dict[Side, Int64Array]


def measure_similarity(anchors: Anchors, probes: int, rng: np.random.Generator) -> PairSimilarity:
    """Compare probes with the pairs of a version.

    Args:
        anchors: the version's pairs.
        probes: how many are drawn, at most.
        rng: draws them, and the pairs where there are more than `REFERENCE`.
    """
    live = np.flatnonzero(anchors.live)
    reference = np.sort(rng.permutation(live)[:REFERENCE])
    chosen = np.sort(rng.permutation(live)[:probes])
    near = max(NEAR_LEAST, int(NEAR_SHARE * len(reference)))
    near_texts, all_texts = np.zeros(len(chosen)), np.zeros(len(chosen))
    histograms = {f"{side}_{what}": np.zeros(BARS) for side in _SIDES for what in ("all", "near")}
    lists: dict[Side, Int64Array] = {side: np.zeros(len(reference), np.int64) for side in _SIDES}
    for rows, cosines in _compare_blocks(anchors, chosen, reference):
        same_picture = cosines["image"] >= SAME_PICTURE
        nearest = {side: _find_nearest(cosines[side], same_picture, near) for side in _SIDES}
        closest = {side: np.take_along_axis(cosines[side], nearest["image"], 1) for side in _SIDES}
        near_texts[rows] = closest["text"].mean(axis=1)
        all_texts[rows] = cosines["text"].mean(axis=1, where=~same_picture)
        for side in _SIDES:
            histograms[f"{side}_all"] += np.histogram(cosines[side][~same_picture], _EDGES)[0]
            histograms[f"{side}_near"] += np.histogram(closest[side], _EDGES)[0]
            lists[side] += np.bincount(nearest[side].ravel(), minlength=len(reference))
    shares = {name: bars / max(bars.sum(), 1) for name, bars in histograms.items()}
    return PairSimilarity(chosen, reference, near, near_texts, all_texts, shares, lists)


def _compare_blocks(
    anchors: Anchors, probes: Int64Array, reference: Int64Array
) -> Iterator[tuple[slice, dict[Side, Float32Array]]]:
    """Some probes at a time, and their (b, R) cosines on both sides."""
    known = {side: anchors.vectors(side, reference).T for side in _SIDES}
    for rows in track_batches("compare probes", len(probes), _BLOCK):
        yield rows, {side: anchors.vectors(side, probes[rows]) @ known[side] for side in _SIDES}


def _find_nearest(cosines: Float32Array, same_picture: BoolArray, count: int) -> Int64Array:
    """(b, count) places of the most similar pairs that are not of the probe's own picture."""
    others = np.where(same_picture, -np.inf, cosines)
    places: Int64Array = np.argpartition(others, -count, axis=1)[:, -count:].astype(np.int64)
    return places


def skewness(counts: Int64Array) -> float:
    """Third standardised moment of (n,) counts; 0 when all are equal."""
    return float(skew(counts)) if np.ptp(counts) else 0.0
