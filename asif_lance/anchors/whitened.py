"""The metric of the recipe `white` for one version, fitted on a sample of its pairs.

The sample are the pairs whose ids' hashes are the smallest, so the metric is a function of the
pairs that are there, whatever their order and history: of a fresh build as of a version that was
added to, deleted and forgotten from. It moves when a pair of the sample goes, or one comes whose
hash is smaller: for each pair that is added or deleted with a chance of about `SAMPLE` / n. A pair
that was forgotten is in no version, so in no sample.

Measuring all distances anew takes long where there are many. From those under another whitening,
such as that of the version before, near ones follow fast, off by no more than a known share: they
serve to find candidates, whose exact ones are computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import numpy as np
import torch

from asif_lance.anchors.fragments import NamedWhitening, WhitenedRows
from asif_lance.records import BoolArray, Float64Array, Int64Array, UInt64Array
from asif_lance.relative import SAMPLE, Whitening, WhiteningStep
from asif_lance.search import FactorsOnDemand, Scale

#: Multiplications of a version's rows from which on near distances serve.
LONG = 2**32

_MOST_OFF = 2.0**-6  # shares of distances; beyond it searches find too many candidates

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
        rows: what is known of the first blocks, some of it only nearly.
        added: the exact factors of the others.
        used: the whitening.
        gather: gives the stored vectors at some positions.
    """
    near = np.concatenate([np.zeros(0), *(one.inverses for one in rows), *added])
    off = max((one.off for one in rows), default=0.0)
    if not off:
        return Scale(near)
    ends = np.cumsum([len(one.exact) for one in rows])

    def measure(at: Int64Array) -> Float64Array:
        found = used.whitening.inverse_distances(gather(at))
        parts = np.searchsorted(at, ends)
        for one, end, mine, what in zip(
            rows, ends, np.split(at, parts), np.split(found, parts), strict=False
        ):
            one.exact[mine - end] = what  # for the versions after this one, too
        return found

    known = np.concatenate([*(one.exact for one in rows), *added])
    return Scale(near, exact=FactorsOnDemand(known, measure), ratio=off)


def find_step(known: NamedWhitening, used: NamedWhitening, work: int) -> WhiteningStep | None:
    """How to come by near distances; None if exact ones take not much longer, or they are far off.

    Args:
        known: the whitening whose exact distances are known.
        used: the other one.
        work: multiplications that it takes to measure all distances anew.
    """
    if work < LONG:
        return None
    step = WhiteningStep.between(known.whitening, used.whitening)
    return step if step.off <= _MOST_OFF else None
