"""Vectors on an accelerator: a fragment's once, for all versions and models that have it.

Those that come together lie side by side in one memory, so a search takes them for one matrix.
Versions that come one after another bring a memory each; too many are laid together anew.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from weakref import WeakValueDictionary

import torch

from asif_lance.devices import room_on

_MOST_MEMORIES = 8  # that one side's vectors lie in; each costs a search operations of its own

_held: WeakValueDictionary[tuple[torch.device, str, str], torch.Tensor] = WeakValueDictionary()
_lock = threading.Lock()


def place_on_device(
    device: torch.device,
    column: str,
    fragments: Sequence[str],
    vectors: list[torch.Tensor],
    limit: int | None,
) -> list[torch.Tensor]:
    """Copies on a device of a side's vectors; as they are in main memory where they do not fit.

    Args:
        device: an accelerator.
        column: of the vectors.
        fragments: names of the fragments' files.
        vectors: (rows, d) of each.
        limit: bytes that they may occupy together; None for what the device has room for.
    """
    with _lock:
        keys = [(device, column, name) for name in fragments]
        there = [_held.get(key) for key in keys]
        memories = {v.untyped_storage().data_ptr() for v in there if v is not None}
        new = [i for i, held in enumerate(there) if held is None]
        room = room_on(device)
        if len(memories) + bool(new) > _MOST_MEMORIES and _fits(vectors, room):
            new, there = list(range(len(keys))), [None] * len(keys)
        if limit is not None and not _fits(vectors, limit):
            return vectors
        if not _fits([vectors[i] for i in new], room):
            return vectors
        for i, copied in zip(new, _copy_together(device, [vectors[i] for i in new]), strict=True):
            there[i] = _held[keys[i]] = copied
        return [held for held in there if held is not None]


def _fits(vectors: Sequence[torch.Tensor], most: int | None) -> bool:
    return most is None or sum(v.nbytes for v in vectors) <= most


def _copy_together(device: torch.device, vectors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not vectors:
        return []
    sizes = [len(v) for v in vectors]
    shape = sum(sizes), vectors[0].shape[1]
    whole = torch.empty(shape, dtype=vectors[0].dtype, device=device)
    parts = list(torch.split(whole, sizes))
    for part, given in zip(parts, vectors, strict=True):
        part.copy_(given)
    return parts
