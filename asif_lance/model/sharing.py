"""A model whose searches many processes share: the same answers bit by bit, from any of them."""

from __future__ import annotations

from asif_lance.anchors import Mapper, SharedAnchors
from asif_lance.errors import InputError
from asif_lance.model.model import Model


def share_model(model: Model, mapper: Mapper, shards: int) -> Model:
    """The same version; its pairs are compared by whatever maps functions over values.

    Labels are compiled by them, too, and kept as those of one process. Pictures are encoded, scores
    summed and pairs shown in this process.

    Args:
        model: an opened version.
        mapper: as `map`: a pool's, Ray's, Dask's. What it calls is asked again and again about the
            same shards, so processes that stay are quickest.
        shards: how many the version is cut into; at most one for each fragment.

    Raises:
        InputError: less than one shard, or pairs of a table that is not ours.
    """
    if (attached := model.store.attachment) is not None:
        raise InputError(
            f"{model.store.uri} is attached to {attached.table}, whose pairs one process searches"
        )
    return model.with_anchors(model.version.name, SharedAnchors(model.anchors, mapper, shards))
