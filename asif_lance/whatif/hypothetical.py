"""Models with some pairs left out or more pairs added, over the same vectors.

Nothing is written, and they answer what really deleting or adding would answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.errors import InputError
from asif_lance.model import (
    LabelSet,
    Model,
    Prompts,
    average_prompts,
    build_label_set,
    find_cached_neighbors,
    teach_labels,
    update_neighbors,
)


def without_pairs(model: Model, pair_ids: Sequence[str]) -> tuple[Model, int]:
    """The model as it would be without some pairs, and how many of them it has.

    Raises:
        InputError: no pair would be left.
    """
    anchors = HypotheticalAnchors.of(model.anchors)
    named = pc.is_in(anchors.pair_ids, pa.array(sorted(set(pair_ids)), pa.string()))
    removed = named.to_numpy() & anchors.there
    left = anchors.without(removed)
    if not left.count:
        raise InputError("no pair would be left to classify with")
    return model.with_anchors(f"{model.version.name} (without)", left), int(removed.sum())


def with_pairs(model: Model, pairs: pa.Table) -> tuple[Model, int]:
    """The model as it would be with more pairs, and how many of them are new to it.

    Args:
        model: the model.
        pairs: columns `pair_id`, `caption`, `image_vector`, `text_vector` as the table has them,
            and `role` where some are examples.
    """
    anchors = HypotheticalAnchors.of(model.anchors)
    there = anchors.pair_ids.filter(pa.array(anchors.there))
    new = pairs.filter(pc.invert(pc.is_in(pairs["pair_id"], there.combine_chunks())))
    more = anchors.with_pairs(new) if new.num_rows else anchors
    return model.with_anchors(f"{model.version.name} (plus)", more), new.num_rows


def compile_for_both(before: Model, after: Model, prompts: Prompts) -> tuple[LabelSet, LabelSet]:
    """Compile prompts against both states; a hypothetical one's follow from those of the other."""
    if not (isinstance(after.anchors, HypotheticalAnchors) and before.anchors.state):
        return before.compile(prompts), after.compile(prompts)
    prompts = average_prompts(prompts)
    k, measure = before.recipe.k[1], before.recipe.measures[1]
    old = find_cached_neighbors(before.anchors, prompts.vectors, k, measure=measure)
    new = update_neighbors(after.anchors, prompts.vectors, k, old, measure=measure)
    both = zip((before, after), (old, new), strict=True)
    compiled = (
        (m, build_label_set(prompts, kept.first(k), m.recipe, len(m.anchors), m.version.name))
        for m, kept in both
    )
    first, second = (teach_labels(labels, m.anchors) for m, labels in compiled)
    return first, second
