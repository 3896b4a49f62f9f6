"""Where torch computes: the one place that chooses."""

from __future__ import annotations

import functools
import time

import torch

from asif_lance.errors import InputError

_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # instruction sets that multiply it
_TRIES = 4
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
    if device.type == "cuda":  # products of float16 are then as precise as `fast_products` needs
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


@functools.cache
def bfloat16_is_faster() -> bool:
    """Whether the CPU multiplies bfloat16 faster than float32, measured at first use (some 20 ms).

    Instructions for it are needed, but do not tell: with the same ones some processors take half as
    long as for float32, and others twice as long.
    """
    # Older releases of torch do not tell.
    has: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if not any(has.get(name) for name in _BFLOAT16):
        return False
    seconds = {kind: _seconds_of(kind) for kind in (torch.bfloat16, torch.float32)}
    return seconds[torch.bfloat16] < seconds[torch.float32]


def _seconds_of(kind: torch.dtype) -> float:
    """The shortest of a few matrix products; the first prepares and does not count."""
    left, right = torch.ones((512, 1024), dtype=kind), torch.ones((1024, 128), dtype=kind)
    out, times = torch.empty((512, 128), dtype=kind), []
    for _ in range(1 + _TRIES):
        begun = time.perf_counter()
        torch.mm(left, right, out=out)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def room_on(device: torch.device) -> int | None:
    """Bytes that anchors may take on a device: most of what is free; None for main memory."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] * _MOST)
