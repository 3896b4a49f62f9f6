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

from asif_lance.errors import InputError, format_count
from asif_lance.evaluation.labelled_pictures import Labelled, check_classes
from asif_lance.evaluation.statistics import check_seed, deviation
from asif_lance.evaluation.sweep import check_scores, sweep
from asif_lance.model import Model, Prompts
from asif_lance.progress import track
from asif_lance.relative import check_k_and_p
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
    def deviation(self) -> float | None:
        """Standard deviation over repetitions (n - 1); None for a single one."""
        return deviation(self.top_1)


def sizes_up_to(pairs: int) -> tuple[int, ...]:
    """30, 100, 300, 1,000, 3,000, … below the number of pairs, and all pairs."""
    steps = [size for e in range(1, 10) for size in (10**e, 3 * 10**e)]
    return (*(size for size in steps if 30 <= size < pairs), pairs)


def choose_sizes(pairs: int, sizes: Sequence[int] = ()) -> tuple[int, ...]:
    """The numbers of pairs to measure, ascending: those that are asked for, or `sizes_up_to` all.

    Raises:
        InputError: a size that is not between 1 and the number of pairs.
    """
    chosen = tuple(sorted(set(sizes or sizes_up_to(pairs))))
    if chosen[0] < 1 or chosen[-1] > pairs:
        raise InputError(
            f"sizes must be between 1 and the {format_count(pairs, 'pair')} of the version"
        )
    return chosen


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
        InputError: a size beyond the pairs, nothing to measure, a k, p or seed that means nothing,
            or a class that is not among the prompts.
    """
    count = model.anchors.count
    sizes = choose_sizes(count, sizes)
    if not settings or repetitions < 1:
        raise InputError("give at least one setting of k and p, and one repetition")
    for k, p in settings:
        check_k_and_p(k, p)
    check_seed(seed)
    check_classes(labelled.truths, prompts.names)
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
