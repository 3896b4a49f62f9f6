"""Where torch computes: the one place that chooses."""

from __future__ import annotations

import torch

from asif_lance.errors import InputError

_MOST = 0.8  # of a device's free memory; the rest is for products and encoders


def pick_device(name: str = "auto") -> torch.device:
    """The torch device of that name; `auto` takes cuda, else mps, else cpu.

    Raises:
        InputError: torch does not know the device or cannot use it here.
    """
    try:
        device = torch.device(_best() if name == "auto" else name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}: use auto, cpu, cuda or mps") from error
    if not _usable(device):
        raise InputError(f"device {name!r} is not available here: use auto or cpu")
    if device.type == "cuda":  # products of float16 are then as precise as `products` counts on
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    return device


def _best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _usable(device: torch.device) -> bool:
    if device.type == "cuda":
        return (device.index or 0) < torch.cuda.device_count()
    return device.type == "cpu" or (device.type == "mps" and torch.backends.mps.is_available())


def room_on(device: torch.device) -> int | None:
    """Bytes that anchors may take on a device: most of what is free; None for main memory."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] * _MOST)
