"""A model whose work many processes share: the same answers, from any of them."""

from __future__ import annotations

from asif_lance.anchors import Mapper, SharedAnchors
from asif_lance.encoders import is_loaded_anywhere
from asif_lance.errors import InputError
from asif_lance.model.model import Model
from asif_lance.model.shared_encoder import SharedEncoder


def share_model(model: Model, mapper: Mapper, shards: int, *, encode: bool = True) -> Model:
    """The same version; whatever maps functions over values encodes pictures and compares pairs.

    Comparisons have the bits of one process; an encoder rounds as it does where it computes. Labels
    are compiled by the others, too, and kept as those of one process. Texts are encoded, scores
    summed and pairs shown in this process; so are pictures encoded with an encoder that a program
    has given or registered, and what is asked through the CLIP interface.

    Args:
        model: an opened version.
        mapper: as `map`: a pool's, Ray's, Dask's. What it calls is asked again and again about the
            same shards, so processes that stay are quickest. Threads call it, too.
        shards: how many the version is cut into; at most one for each fragment. As many batches of
            pictures are encoded at once.
        encode: whether the others encode pictures; this process does otherwise.

    Raises:
        InputError: less than one shard, or pairs of a table that is not ours.
    """
    if (attached := model.store.attachment) is not None:
        raise InputError(
            f"{model.store.uri} is attached to {attached.table}, whose pairs one process searches"
        )
    shared = model.with_anchors(model.version.name, SharedAnchors(model.anchors, mapper, shards))
    pin = model.store.image
    if encode and is_loaded_anywhere("image", pin.name):
        shared.image_encoder = SharedEncoder(pin, lambda: model.image_encoder, mapper, shards)
    return shared
