"""Which of two labels wins in another state, from their own anchors alone.

A label's score needs only the anchors that carry its text weight, a few hundred, and which of them
are among an image's k nearest. The similarity that decides is known: it is the k-th of the recorded
ones without those that went and with those that came. What the bounds of `settled` leave open is
scored so, exactly but for anchors too close to that similarity to tell from float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from asif_lance.blocks import Blocks
from asif_lance.records import RelativeVectors
from asif_lance.settled import ROUNDING, SAME, Floats, Images, Longs, Mask

_COLUMN = 64  # images per prompt that cost what reading its anchors' vectors costs


class Doubles:
    """Vectors of anchors as float64, each time in the same memory: fresh memory costs more."""

    def __init__(self, blocks: Sequence[torch.Tensor]) -> None:
        """Read from (rows, d) blocks whose rows count through."""
        self._blocks = Blocks(blocks)
        self._kinds = (self._blocks.dtype, torch.float32, torch.float64)
        self._rooms = [torch.empty((0, blocks[0].shape[1]), dtype=kind) for kind in self._kinds]

    def __call__(self, positions: Longs) -> Floats:
        """The (m, d) vectors at (m,) positions, until the next call."""
        count = len(positions)
        if count > len(self._rooms[0]):
            self._rooms = [room.new_empty((count, room.shape[1])) for room in self._rooms]
        half, single, double = (room[:count] for room in self._rooms)
        half.copy_(self._blocks.take(positions))
        found: Floats = double.copy_(single.copy_(half)).numpy()
        return found


def cost(open_: Mask, after: RelativeVectors, owner: Longs) -> int:
    """How many similarities `stands` compares, or as many as take the same time."""
    images = open_.sum(axis=0)[owner]
    return int(((images + _COLUMN * (images > 0)) * after.values.shape[1]).sum())


def stands(
    images: Images,
    open_: Mask,
    bounds: tuple[Floats, Floats],
    after: RelativeVectors,
    owner: Longs,
    vectors: Callable[[Longs], Floats],
    power: float,
) -> Mask:
    """Which of m images surely keep their label.

    Args:
        images: as recorded.
        open_: (m, c) bool, the labels that may win, the chosen one included.
        bounds: from `nearness`.
        after: relative vectors of r prompts in the other state.
        owner: (r,) the label of each.
        vectors: gives the (x, d) image vectors of x anchors.
        power: the recipe's p of the image side.

    Returns:
        (m,) bool.
    """
    lower, upper = (np.full(open_.shape, -np.inf) for _ in range(2))
    for row, label in enumerate(owner.tolist()):
        mine, kept = np.flatnonzero(open_[:, label]), after.values[row] > 0
        if not len(mine):
            continue
        queries = images.queries[mine].astype(np.float64)
        similar = queries @ vectors(after.indices[row][kept]).T
        # As a search rounds them, so that their powers agree.
        weight = images.part(mine).weight_of(similar.astype(np.float32).astype(np.float64), power)
        parts = weight * after.values[row][kept]
        near, far = (bound[mine, None] for bound in bounds)
        least = np.where(similar >= near, parts, 0.0).sum(axis=1)
        most = np.where(similar >= far, parts, 0.0).sum(axis=1)
        lower[mine, label] = np.maximum(lower[mine, label], least)
        upper[mine, label] = np.maximum(upper[mine, label], most)
    best = np.arange(len(lower)), images.best
    floor = lower[best].copy()
    upper[best] = -np.inf
    # Written so that what is no number fails.
    sure: Mask = floor - ROUNDING > upper.max(axis=1) + ROUNDING
    return sure & (images.similarities[:, 0] > 0)


def nearness(images: Images, went: Floats, came: Floats, k: int) -> tuple[Floats, Floats]:
    """From which similarity on an anchor is surely among the k nearest, and below which it is not.

    Args:
        images: m images, as recorded.
        went: (m, g) similarities of the anchors that went.
        came: (m, a) of those that came.
        k: how many anchors count.

    Returns:
        (m,) both; infinite where the recorded similarities do not reach that far.
    """
    known = images.similarities[:, 1:]
    # Among those before, ranks + 1 are at least as similar as this one and more than the next.
    end = np.inf if images.ranks[0] + 1 < images.pairs else -np.inf
    following = np.concatenate([np.full((len(known), 1), end), known[:, :-1]], axis=1) + 2 * SAME
    most = images.ranks + 1 - _at_least(went, following) + _at_least(came, following)
    surely = np.where(most <= k, following, np.inf).min(axis=1)
    lowest = known - SAME
    least = images.ranks + 1 - _at_least(went, lowest) + _at_least(came, known + SAME)
    never = np.where(least >= k, lowest, -np.inf).max(axis=1)
    return surely, never


def _at_least(similarities: Floats, bounds: Floats) -> Longs:
    """(m, w) how many of (m, x) similarities reach each of (m, w) bounds."""
    counts = np.zeros(bounds.shape, dtype=np.int64)
    for column in similarities.T:
        counts += column[:, None] >= bounds
    return counts
