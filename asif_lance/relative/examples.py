"""Examples teach their labels at once: what labelled pictures add to the scores of their labels.

Means and relative vectors know of the ordinary pairs alone, so that labels without examples answer
as before. A label with member examples a_1..a_k gains evidence from them,

    f(q, l) = sum of q'·a'_i / |sum of a'_i|

where q' and a'_i are the unit differences from a point halfway between the mean of the ordinary
pairs and the mean of the examples: f is the cosine of a picture and the label's mean example. The
score is (1 - w) z + w max(0, f - t), with the ordinary score z. The weight w and, where some labels
have no examples, the threshold t come from the examples themselves, each left out in turn
(`fit_teaching`).

Every part a'_i / |sum| is rounded to a multiple of 2^-24, once. Then products with a query, and
their sums, are exact (see `search.exact_products`): they depend on the pairs alone, not on their
history, nor on the batch, the threads or the device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from asif_lance.records import Float32Array, Float64Array, Int64Array
from asif_lance.relative.centring import multiply_wide
from asif_lance.search import unit_queries

#: An example belongs to the label whose prompts its caption is nearest to, from this cosine on.
MEMBER_COSINE = 0.75

#: Share of other labels' pictures that evidence may mislead where half of the labels have examples.
FALSE_EVIDENCE = 1 / 100

_GRID = 2.0**-24
_WEIGHT_GRID = 2.0**-12  # so that no rounding of the fit's sums reaches the scores
_PRIOR_MEANS, _PRIOR_DEVIATION = np.array([1.0, 1.5]), 2.0
_TYPICAL_SPREAD = 0.125  # of evidence, where there is none to tell
_TYPICAL_COUNTS = 10.0  # as many cosines of two examples as it is worth where there are a few


def find_members(
    captions: Float32Array, prompts: Float32Array, owner: Int64Array, labels: int
) -> Int64Array:
    """The label that each of e examples belongs to, (e,), -1 for none.

    Args:
        captions: (e, d) stored vectors of the examples' captions.
        prompts: (t, d) unit vectors on the grid of `unit_queries`.
        owner: (t,) the label of each, ascending.
        labels: how many there are.
    """
    cosines = captions.astype(np.float64) @ prompts.T.astype(np.float64)
    first = np.searchsorted(owner, np.arange(labels))
    best = np.maximum.reduceat(cosines, first, axis=1)
    members = best.argmax(axis=1)
    return np.where(best.max(axis=1) >= MEMBER_COSINE, members, -1).astype(np.int64)


@dataclass(frozen=True)
class Teaching:
    """What the examples of h labels say of pictures.

    Attributes:
        centre: (d,) float64, where differences begin; multiples of 2^-25.
        labels: (h,) the labels that have examples, ascending.
        owner: (e,) the place of each example's label among these.
        parts: (e, d) float32, their unit differences over the length of their label's sum.
        lengths: (h,) float64, of these sums.
        weight: w, at least 0 and below 1.
        threshold: t, at least 0.
    """

    centre: Float64Array
    labels: Int64Array
    owner: Int64Array
    parts: Float32Array
    lengths: Float64Array
    weight: float = 0.0
    threshold: float = 0.0

    @cached_property
    def directions(self) -> Float64Array:
        """(h, d) the sum of the parts of each label, exactly."""
        sums = np.zeros((len(self.labels), self.parts.shape[1]))
        np.add.at(sums, self.owner, self.parts.astype(np.float64))
        return sums

    def turn(self, queries: NDArray[np.floating]) -> Float64Array:
        """(m, d) unit differences from the centre; zero for a query that is the centre."""
        wide = queries.astype(np.float64) - self.centre
        far = np.any(wide, axis=1)
        turned = np.zeros(wide.shape)
        turned[far] = unit_queries(wide[far])
        return turned

    def evidence(self, queries: Float32Array) -> Float64Array:
        """(m, h) f of each query and label."""
        return multiply_wide(self.turn(queries), self.directions.T)

    def add(self, scores: Float64Array, queries: Float32Array) -> Float64Array:
        """(m, c) scores of all labels, by their ordinary ones and the queries."""
        found = (1.0 - self.weight) * scores
        beyond = np.maximum(self.evidence(queries) - self.threshold, 0.0)
        found[:, self.labels] += self.weight * beyond
        return found

    def shares(self, query: Float32Array, label: int) -> tuple[Int64Array, Float64Array]:
        """Which examples a label has, and what each adds to the label's score.

        Args:
            query: (d,) unit vector.
            label: any.
        """
        members = np.flatnonzero(self.labels[self.owner] == label)
        turned = self.turn(query[None])[0]
        own = self.parts[members].astype(np.float64) @ turned
        evidence = float(own.sum())
        beyond = max(evidence - self.threshold, 0.0)
        return members, own * (self.weight * beyond / evidence if beyond else 0.0)

    def cosines(self, query: Float32Array, examples: NDArray[np.floating]) -> Float32Array:
        """(e,) cosines of a (d,) query's and stored examples' differences from the centre."""
        found: Float32Array = (self.turn(examples) @ self.turn(query[None])[0]).astype(np.float32)
        return found

    def left_out(self, examples: NDArray[np.floating], owner: Int64Array) -> Float64Array:
        """(m, h) the evidence for stored examples, the own share taken out of the label's.

        Args:
            examples: (m, d) some of them.
            owner: (m,) the place of each one's label.
        """
        found: Float64Array = self.turn(examples) @ self.directions.T
        rows = np.arange(len(found))
        length, own = self.lengths[owner], found[rows, owner]
        rest = np.sqrt(np.maximum(length * length - 2.0 * own * length + 1.0, 0.0))
        found[rows, owner] = (own * length - 1.0) / np.maximum(rest, 1.0)
        return found


def make_teaching(
    examples: NDArray[np.floating], members: Int64Array, mean: Float64Array
) -> Teaching:
    """What e examples, (e, d) as stored, each of a label, say; weight and threshold come later.

    Args:
        examples: in an order that the pairs alone determine.
        members: (e,) the label of each.
        mean: (d,) of the ordinary pairs, on the grid.
    """
    wide = examples.astype(np.float64)
    own_mean = np.rint(wide.sum(axis=0) / (len(wide) + 1) / _GRID) * _GRID
    labels, owner = np.unique(members, return_inverse=True)
    bare = Teaching(0.5 * (mean + own_mean), labels, owner, wide[:0].astype("f4"), wide[0, :0])
    units = np.rint(bare.turn(wide) / _GRID) * _GRID
    sums = np.zeros((len(labels), wide.shape[1]))
    np.add.at(sums, owner, units)
    # Members that cancel each other out say little: their sum counts as no shorter than one.
    lengths = np.maximum(np.sqrt(np.square(sums).sum(axis=1)), 1.0)
    parts = np.rint(units / lengths[owner][:, None] / _GRID) * _GRID
    return Teaching(bare.centre, labels, owner, parts.astype(np.float32), lengths)


def fit_teaching(
    teaching: Teaching, examples: Float32Array, places: Int64Array, ordinary: Float64Array
) -> Teaching:
    """Find weight and threshold by what m of the examples score when they are left out.

    The weight makes the examples' own labels likeliest, under a softmax over the labels that have
    examples of `b z / spread of z + c f / spread of f`. Until examples show otherwise they count
    half as much again as the ordinary pairs: b and c have normal priors with means 1 and 1.5 and
    deviation 2. What k examples of a label say counts k / (k - 1) times as much as what is left
    when one of them is out.

    Args:
        teaching: of all examples.
        examples: (m, d) as stored.
        places: (m,) which they are.
        ordinary: (m, c) their scores by the ordinary pairs.
    """
    owner = teaching.owner[places]
    found = teaching.left_out(examples, owner)
    others = np.ones(found.shape, dtype=np.bool_)
    others[np.arange(len(owner)), owner] = False
    of_others = np.sort(found[others])
    spread = (float(of_others.std()) if len(of_others) else 0.0) or _TYPICAL_SPREAD
    counts = np.bincount(teaching.owner)[owner].astype(np.float64)
    # An example that is its label's only one tells nothing about the others.
    found[counts < 2] = 0.0
    even = ordinary - ordinary.mean(axis=1, keepdims=True)
    ordinary_spread = float(np.sqrt(np.square(even).mean())) or 1.0
    b, c = _fit_logistic(even[:, teaching.labels] / ordinary_spread, found / spread, owner)
    whole = counts[counts > 1]
    c *= float((whole / (whole - 1.0)).mean()) if len(whole) else 1.0
    b, c = b / ordinary_spread, c / spread
    weight = float(np.rint(c / (b + c) / _WEIGHT_GRID)) * _WEIGHT_GRID if b + c else 0.0
    # Where examples say nothing, ordinary pairs decide, however little they tell.
    weight = min(weight, 1.0 - _WEIGHT_GRID)
    usual = max(float(of_others.mean()), 0.0) if len(of_others) else 0.0
    spread = _temper_spread(spread, len(of_others) // 2)
    threshold = _find_threshold(usual, spread, len(teaching.labels) / ordinary.shape[1])
    return replace(teaching, weight=weight, threshold=threshold)


def _temper_spread(spread: float, count: int) -> float:
    """The spread of evidence by that of `count` cosines, and by the typical one.

    A few cosines can be alike by chance: the threshold would lie so low that examples silence
    labels that have none.
    """
    squares = _TYPICAL_COUNTS * _TYPICAL_SPREAD**2 + count * spread**2
    return float(np.sqrt(squares / (_TYPICAL_COUNTS + count)))


def _find_threshold(usual: float, spread: float, taught: float) -> float:
    """From where on evidence counts, so that labels without examples keep their pictures.

    Where half of the labels have examples, one in a hundred pictures of another label goes beyond
    it, if evidence is spread normally; the more labels have none, the fewer. Where all have
    examples nothing has to be protected.

    Args:
        usual: mean evidence for labels that are not a picture's own, but at least 0: of few labels
            with examples each is what the others are not.
        spread: its standard deviation.
        taught: share of the labels that have examples.
    """
    from scipy.special import ndtri  # 50 MB with the other one: only examples need them

    beyond = FALSE_EVIDENCE * taught / (1.0 - taught) if taught < 1.0 else 1.0
    if beyond >= 1.0:
        return 0.0
    # On the grid: the order in which examples are summed up does not show.
    return max(float(np.rint((usual + spread * -ndtri(beyond)) / _GRID)) * _GRID, 0.0)


def _fit_logistic(first: Float64Array, second: Float64Array, truths: Int64Array) -> Float64Array:
    """The likeliest non-negative factors of two (m, c) scores that sum up to logits."""
    from scipy.optimize import minimize

    rows = np.arange(len(truths))

    def cost(factors: Float64Array) -> tuple[float, Float64Array]:
        logits = factors[0] * first + factors[1] * second
        logits -= logits.max(axis=1, keepdims=True)
        sums = np.exp(logits).sum(axis=1)
        off = np.exp(logits) / sums[:, None]
        off[rows, truths] -= 1.0
        unlikely = float((np.log(sums) - logits[rows, truths]).sum())
        away = (factors - _PRIOR_MEANS) / _PRIOR_DEVIATION
        slope = np.array([(off * first).sum(), (off * second).sum()]) + away / _PRIOR_DEVIATION
        return unlikely + 0.5 * float(np.square(away).sum()), slope

    found: Float64Array = minimize(cost, _PRIOR_MEANS, jac=True, bounds=[(0.0, None)] * 2).x
    return found
