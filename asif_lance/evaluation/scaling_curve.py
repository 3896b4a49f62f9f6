"""scaling: accuracy against the number of pairs (Figures 5 and 8 of the paper).

Each repetition puts the pairs in a random order and takes the first 100, 300, 1,000, … of them, so
its subsets are nested. A subset is a hypothetical state of the version: it answers exactly as a
model of these pairs alone would, whatever the recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from asif_lance.errors import InputError
from asif_lance.evaluation.labelled_pictures import Labelled
from asif_lance.evaluation.sweep import check_scores, sweep
from asif_lance.model import Model, Prompts
from asif_lance.progress import track
from asif_lance.whatif import without_pairs

SideSettings = tuple[tuple[int, int], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Point:
    """Accuracy at one size.

    Attributes:
        pairs: size of the subsets.
        k: anchors kept, (image side, text side).
        p: power of similarities, likewise.
        top_1: share right in each repetition; one entry where all pairs are taken.
    """

    pairs: int
    k: tuple[int, int]
    p: tuple[float, float]
    top_1: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Mean over repetitions."""
        return float(np.mean(self.top_1))

    @property
    def deviation(self) -> float:
        """Standard deviation over repetitions (n - 1); 0 for a single one."""
        return float(np.std(self.top_1, ddof=1)) if len(self.top_1) > 1 else 0.0


def sizes_up_to(pairs: int) -> tuple[int, ...]:
    """30, 100, 300, 1,000, 3,000, … below the number of pairs, and all pairs."""
    steps = [size for e in range(1, 10) for size in (10**e, 3 * 10**e)]
    return (*(size for size in steps if 30 <= size < pairs), pairs)


def scaling(
    model: Model,
    labelled: Labelled,
    prompts: Prompts,
    settings: Sequence[SideSettings],
    sizes: Sequence[int] = (),
    *,
    repetitions: int = 3,
    seed: int = 0,
) -> tuple[Point, ...]:
    """Accuracy on labelled pictures of nested random subsets of a version's pairs.

    Args:
        model: the version and recipe.
        labelled: the pictures, encoded.
        prompts: the classes.
        settings: ((k image, k text), (p image, p text)) to measure, all from one search per subset.
        sizes: numbers of pairs; by default `sizes_up_to` all.
        repetitions: random orders of the pairs.
        seed: of the orders.

    Raises:
        InputError: a size beyond the pairs, or nothing to measure.
    """
    count = model.anchors.count
    sizes = sorted(set(sizes or sizes_up_to(count)))
    if not settings or repetitions < 1:
        raise InputError("give at least one setting of k and p, and one repetition")
    if sizes[0] < 1 or sizes[-1] > count:
        raise InputError(f"sizes must be between 1 and the {count:,} pairs of the version")
    measured: dict[tuple[int, SideSettings], list[float]] = {}
    ids = model.anchors.pair_ids.filter(pa.array(model.anchors.live)).to_pylist()
    subsets = [(r, size) for r in range(repetitions) for size in sizes if size < count or not r]
    for repetition, size in track("subsets of the pairs", subsets):
        order = np.random.default_rng([seed, repetition]).permutation(np.argsort(ids))
        left_out = [ids[i] for i in order[size:]]
        subset = without_pairs(model, left_out)[0] if left_out else model
        for setting, top_1 in _measure(subset, labelled, prompts, settings).items():
            measured.setdefault((size, setting), []).append(top_1)
    return tuple(Point(size, k, p, tuple(found)) for (size, (k, p)), found in measured.items())


def _measure(
    model: Model, labelled: Labelled, prompts: Prompts, settings: Sequence[SideSettings]
) -> dict[SideSettings, float]:
    largest_k = max(k[0] for k, _ in settings), max(k[1] for k, _ in settings)
    found = sweep(model, labelled.queries, prompts, largest_k, (prompts.ensemble,))
    top_1 = {}
    for k, p in settings:
        scores = found.scores(k, p, prompts.ensemble)
        top_1[k, p] = float(check_scores(scores, prompts.names, labelled.truths).mean())
    return top_1
