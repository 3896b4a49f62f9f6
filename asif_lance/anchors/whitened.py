"""The whitening of a version's pairs: fitted on those whose ids' hashes are the smallest.

So it is a function of the pairs that are there, whatever their order and history: of a fresh build
as of a version that was added to, deleted and forgotten from. It moves when a pair of the sample
goes, or one comes whose hash is smaller: for each pair that is added or deleted with a chance of
about `SAMPLE` / n. A pair that was forgotten is in no version, so in no sample.
"""

from __future__ import annotations

import hashlib
from weakref import WeakValueDictionary

import numpy as np
import torch

from asif_lance.anchors.whitened_cache import NamedWhitening
from asif_lance.records import BoolArray, Int64Array, UInt64Array
from asif_lance.relative import SAMPLE, Whitening

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
        return known
    whitening = _fitted.get(fit)
    if whitening is None:
        whitening = _fitted[fit] = Whitening.of(vectors)
    return NamedWhitening(fit, whitening)
