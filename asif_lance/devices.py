"""The one place that chooses a device."""

from __future__ import annotations

import torch

from asif_lance.errors import InputError


def pick_device(name: str = "auto") -> str:
    """`auto` is cuda, mps or cpu, the first there is; anything else must be there.

    Raises:
        InputError: the device is not here.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return next(device for device, here in there.items() if here)
    if not there.get(name.split(":")[0], False):
        raise InputError(f"device {name!r} is not available here; use auto or cpu")
    return name
