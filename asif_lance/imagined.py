"""Models with pairs imagined away or imagined there, over the same matrices.

Nothing is written, and they answer what really deleting or adding would answer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from asif_lance.anchors import Anchors
from asif_lance.errors import InputError
from asif_lance.labels import LabelSet, Prompts, assemble, one_embedding_per_class
from asif_lance.model import Model
from asif_lance.prompt_neighbors import kept_neighbors, neighbors_to_keep
from asif_lance.records import Neighbors
from asif_lance.search import exact_top_k


class Imagined(Anchors):
    """The anchors of a version, less some, or with some more behind them."""

    @classmethod
    def of(cls, anchors: Anchors) -> Imagined:
        """A copy that shares all vectors; `state` is empty, so that nothing of it is kept."""
        imagined = cls.__new__(cls)
        anchors.image, anchors.text  # noqa: B018  # so that the copy has them
        imagined.__dict__.update(copy.copy(anchors.__dict__))
        imagined.state, imagined._centres = (), {}
        if not isinstance(anchors, Imagined):
            imagined._stored, imagined._new = anchors.live, None
            imagined._gone = np.zeros(len(anchors), dtype=np.bool_)
            imagined._blocks = len(anchors.image)
        return imagined

    _stored: NDArray[np.bool_]  # which rows the version has
    _gone: NDArray[np.bool_]  # which of them are left out
    _new: pa.Table | None  # the rows behind them
    _blocks: int  # of the version

    @property
    def came(self) -> int:
        """How many rows lie behind those of the version."""
        return 0 if self._new is None else self._new.num_rows

    @property
    def went(self) -> NDArray[np.int64]:
        """The positions of the version's rows that are left out."""
        return np.flatnonzero(self._gone)

    def rows(self, positions: NDArray[np.int64], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Columns of the pairs at (m,) positions, imagined ones too."""
        rows: list[dict[str, Any]] = [{}] * len(positions)
        stored = np.flatnonzero(positions < len(self._stored))
        if len(stored):
            logical = np.cumsum(self._stored)[positions[stored]] - 1
            found = self.dataset.take(logical.tolist(), columns=list(columns)).to_pylist()
            for i, row in zip(stored.tolist(), found, strict=True):
                rows[i] = row
        if self._new is not None:
            for i in np.flatnonzero(positions >= len(self._stored)).tolist():
                at = int(positions[i]) - len(self._stored)
                rows[i] = self._new.slice(at, 1).select(list(columns)).to_pylist()[0]
        return rows

    def touched(self, queries: NDArray[np.float32], near: Neighbors, k: int) -> NDArray[np.bool_]:
        """Which of m queries have other neighbors here than `near`, those of the real version."""
        if near.indices.shape[1] != min(k, self.count):
            return np.ones(len(queries), dtype=np.bool_)
        touched: NDArray[np.bool_] = np.any(self._gone[near.indices], axis=1)
        if self._new is not None:
            new = [block.cpu() for block in self.image[self._blocks :]]
            nearest = exact_top_k(queries, new, 1).similarities[:, 0]
            touched |= nearest >= near.similarities[:, -1]
        return touched


def without(model: Model, pair_ids: Sequence[str]) -> tuple[Model, int]:
    """The model as it would be without some pairs, and how many of them it has.

    Raises:
        InputError: no pair would be left.
    """
    imagined = Imagined.of(model.anchors)
    named = pc.is_in(imagined.pair_ids, pa.array(sorted(set(pair_ids)), pa.string()))
    gone = named.to_numpy() & imagined.live
    imagined._gone = imagined._gone | gone
    imagined.live = imagined.live & ~gone
    imagined.count = int(imagined.live.sum())
    if not imagined.count:
        raise InputError("no pair would be left to classify with")
    return _bound(model, imagined, "without"), int(gone.sum())


def plus(model: Model, pairs: pa.Table) -> tuple[Model, int]:
    """The model as it would be with more pairs, and how many of them are new to it.

    Args:
        model: the model.
        pairs: columns `pair_id`, `caption`, `image_vector`, `text_vector` as the table has them.
    """
    imagined = Imagined.of(model.anchors)
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
    before: Model, after: Model, queries: NDArray[np.float32], found: Neighbors
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
    if not isinstance(anchors, Imagined) or found.indices.shape[1] <= k:
        return before.neighbors(queries)
    stored = np.where(found.indices < len(before.anchors), found.indices, -1)
    went = np.broadcast_to(anchors.went, (len(queries), len(anchors.went)))
    candidates = np.concatenate([stored, went], axis=1)
    near = before.anchors.top_k_of("image", candidates, queries, k, centred=centred)
    mean = before.anchors.centre("image").mean if centred else None
    moved = 0.0 if mean is None else anchors.centre("image").moved(queries, mean)
    # All others are at most as similar as the last one that was found, and may be tied with it.
    again = near.similarities[:, -1] <= found.similarities[:, -1] + moved
    if again.any():
        fresh = before.neighbors(queries[again])
        near.indices[again], near.similarities[again] = fresh.indices, fresh.similarities
    return near


def compiled(before: Model, after: Model, prompts: Prompts) -> tuple[LabelSet, LabelSet]:
    """Compile prompts against both states; an imagined one's follow from those of the other."""
    if not (isinstance(after.anchors, Imagined) and before.anchors.state):
        return before.compile(prompts), after.compile(prompts)
    prompts = one_embedding_per_class(prompts)
    k, centred = before.recipe.k[1], before.recipe.centred
    old = kept_neighbors(before.anchors, prompts.vectors, k, centred=centred)
    new = neighbors_to_keep(after.anchors, prompts.vectors, k, old, centred=centred)
    both = zip((before, after), (old, new), strict=True)
    first, second = (
        assemble(prompts, kept.first(k), m.recipe, len(m.anchors), m.version.name)
        for m, kept in both
    )
    return first, second


def _bound(model: Model, anchors: Imagined, how: str) -> Model:
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
