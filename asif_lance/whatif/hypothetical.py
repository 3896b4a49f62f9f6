"""Models with pairs imagined away or imagined there, over the same matrices.

Nothing is written, and they answer what really deleting or adding would answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from asif_lance.anchors import HypotheticalAnchors
from asif_lance.errors import InputError
from asif_lance.model import (
    LabelSet,
    Model,
    Prompts,
    average_prompts,
    build_label_set,
    kept_neighbors,
    neighbors_to_keep,
)
from asif_lance.records import Float32Array, Neighbors


def without_pairs(model: Model, pair_ids: Sequence[str]) -> tuple[Model, int]:
    """The model as it would be without some pairs, and how many of them it has.

    Raises:
        InputError: no pair would be left.
    """
    imagined = HypotheticalAnchors.of(model.anchors)
    named = pc.is_in(imagined.pair_ids, pa.array(sorted(set(pair_ids)), pa.string()))
    gone = named.to_numpy() & imagined.live
    imagined._gone = imagined._gone | gone
    imagined.live = imagined.live & ~gone
    imagined.count = int(imagined.live.sum())
    if not imagined.count:
        raise InputError("no pair would be left to classify with")
    return _bound(model, imagined, "without"), int(gone.sum())


def with_pairs(model: Model, pairs: pa.Table) -> tuple[Model, int]:
    """The model as it would be with more pairs, and how many of them are new to it.

    Args:
        model: the model.
        pairs: columns `pair_id`, `caption`, `image_vector`, `text_vector` as the table has them.
    """
    imagined = HypotheticalAnchors.of(model.anchors)
    there = imagined.pair_ids.filter(pa.array(imagined.live))
    new = pairs.filter(pc.invert(pc.is_in(pairs["pair_id"], there.combine_chunks())))
    if new.num_rows:
        known = [] if imagined._new is None else [imagined._new]
        imagined._new = pa.concat_tables([*known, new], promote_options="default")
        imagined.__dict__["image"] = [*imagined.image, _matrix(new, "image", imagined.image)]
        imagined.__dict__["text"] = [*imagined.text, _matrix(new, "text", imagined.text)]
        ids = [*imagined.pair_ids.chunks, *new["pair_id"].chunks]
        imagined.__dict__["pair_ids"] = pa.chunked_array(ids)
        imagined.live = np.append(imagined.live, np.ones(new.num_rows, dtype=np.bool_))
        imagined._gone = np.append(imagined._gone, np.zeros(new.num_rows, dtype=np.bool_))
        imagined.count += new.num_rows
    return _bound(model, imagined, "plus"), new.num_rows


def neighbors_before(
    before: Model, after: Model, queries: Float32Array, found: Neighbors
) -> Neighbors:
    """The same as `before.neighbors`, from those of an imagined state, which shares nearly all.

    Args:
        before: the model that `after` was made of.
        after: the imagined one.
        queries: (m, d) unit image queries.
        found: `after.neighbors` of them, with some to spare.
    """
    anchors, centred = after.anchors, before.recipe.centred
    k = min(before.recipe.k[0], before.anchors.count)
    if not isinstance(anchors, HypotheticalAnchors) or found.indices.shape[1] <= k:
        return before.neighbors(queries)
    stored = np.where(found.indices < len(before.anchors), found.indices, -1)
    went = np.broadcast_to(anchors.went, (len(queries), len(anchors.went)))
    candidates = np.concatenate([stored, went], axis=1)
    near = before.anchors.top_k_of("image", candidates, queries, k, centred=centred)
    mean = before.anchors.centre("image").mean if centred else None
    moved = 0.0 if mean is None else anchors.centre("image").bound_drift(queries, mean)
    # All others are at most as similar as the last one that was found, and may be tied with it.
    again = near.similarities[:, -1] <= found.similarities[:, -1] + moved
    if again.any():
        fresh = before.neighbors(queries[again])
        near.indices[again], near.similarities[again] = fresh.indices, fresh.similarities
    return near


def compile_for_both(before: Model, after: Model, prompts: Prompts) -> tuple[LabelSet, LabelSet]:
    """Compile prompts against both states; an imagined one's follow from those of the other."""
    if not (isinstance(after.anchors, HypotheticalAnchors) and before.anchors.state):
        return before.compile(prompts), after.compile(prompts)
    prompts = average_prompts(prompts)
    k, centred = before.recipe.k[1], before.recipe.centred
    old = kept_neighbors(before.anchors, prompts.vectors, k, centred=centred)
    new = neighbors_to_keep(after.anchors, prompts.vectors, k, old, centred=centred)
    both = zip((before, after), (old, new), strict=True)
    first, second = (
        build_label_set(prompts, kept.first(k), m.recipe, len(m.anchors), m.version.name)
        for m, kept in both
    )
    return first, second


def _bound(model: Model, anchors: HypotheticalAnchors, how: str) -> Model:
    imagined = copy.copy(model)
    imagined.version = replace(model.version, name=f"{model.version.name} ({how})")
    imagined.__dict__["anchors"] = anchors
    return imagined


def _matrix(pairs: pa.Table, side: str, like: list[torch.Tensor]) -> torch.Tensor:
    column = pairs[f"{side}_vector"].combine_chunks()
    width = like[0].shape[1]
    if column.type.list_size != width:
        raise InputError(f"{side} vectors: expected dimension {width}, got {column.type.list_size}")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float16)
    return torch.from_numpy(flat.reshape(-1, width)).to(like[0].device)
