"""The metric of the recipe `white` for one version, fitted on a sample of its pairs.

The sample are the pairs whose ids' hashes are the smallest, so the metric is a function of the
pairs that are there, whatever their order and history: of a fresh build as of a version that was
added to, deleted and forgotten from. It moves when a pair of the sample goes, or one comes whose
hash is smaller: for each pair that is added or deleted with a chance of about `SAMPLE` / n. A pair
that was forgotten is in no version, so in no sample.

Measuring all distances anew takes long where there are many. Those under another whitening, such as
that of the version before, are off by no more than a known share: they serve to find candidates,
whose exact ones are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch

from asif_lance.anchors.fragments import NamedWhitening, WhitenedRows
from asif_lance.records import BoolArray, Float64Array, Int64Array, UInt64Array
from asif_lance.relative import SAMPLE, Whitening
from asif_lance.search import FactorsOnDemand, Scale

#: Multiplications of a version's rows from which on near distances serve.
LONG = 2**36

_MOST_OFF = 2.0**-4  # shares of distances; beyond it searches find too many candidates

_fitted: WeakValueDictionary[str, Whitening] = WeakValueDictionary()


def choose_sample(hashes: UInt64Array, live: BoolArray) -> Int64Array:
    """Positions of the live pairs with the smallest of (n,) hashes, ascending by hash."""
    positions = np.flatnonzero(live)
    if len(positions) > SAMPLE:
        known = hashes[positions]
        positions = positions[known <= np.partition(known, SAMPLE - 1)[SAMPLE - 1]]
    return positions[np.argsort(hashes[positions], kind="stable")]


def fit_sample(vectors: torch.Tensor, known: NamedWhitening | None) -> NamedWhitening:
    """The whitening of (s, d) float16 vectors; the known one, if it is of these."""
    stored = vectors.contiguous().numpy()
    fit = hashlib.sha256(repr(stored.shape).encode() + stored.tobytes()).hexdigest()
    if known is not None and known.fit == fit:
        _fitted[fit] = known.whitening
    whitening = _fitted.get(fit)
    if whitening is None:
        whitening = _fitted[fit] = Whitening.of(vectors)
    return NamedWhitening(fit, whitening)


def make_scale(
    rows: Sequence[WhitenedRows],
    added: Sequence[Float64Array],
    used: NamedWhitening,
    gather: Callable[[Int64Array], torch.Tensor],
) -> Scale:
    """The scale of all rows of some blocks under a whitening.

    Args:
        rows: what is known of the first blocks, some of it under another whitening.
        added: the exact factors of the others.
        used: the whitening.
        gather: gives the stored vectors at some positions.
    """
    near = np.concatenate([np.zeros(0), *(one.inverses for one in rows), *added])
    others = {one.used.fit: one.used for one in rows if one.used.fit != used.fit}
    if not others:
        return Scale(near)
    sure = [np.full(len(one.inverses), one.used.fit == used.fit) for one in rows]
    sure += [np.ones(len(one), dtype=np.bool_) for one in added]
    known = np.where(np.concatenate(sure), near, np.nan)
    exact = FactorsOnDemand(known, lambda at: used.whitening.inverse_distances(gather(at)))
    ratio = max(other.whitening.bound_ratio(used.whitening) for other in others.values())
    return Scale(near, exact=exact, ratio=ratio)


def serves(known: WhitenedRows | None, used: NamedWhitening, work: int) -> bool:
    """Whether distances need not be measured anew, where that takes so many multiplications."""
    if known is None or known.used.fit == used.fit:
        return known is not None
    return work >= LONG and known.used.whitening.bound_ratio(used.whitening) <= _MOST_OFF
