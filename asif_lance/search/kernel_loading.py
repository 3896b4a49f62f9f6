"""Decides when a process loads the compiled loops of `kernels`, or the kernel of a GPU.

Loading takes half a second (2 s the first time), while a search without the loops takes some
milliseconds longer, or a tenth of a second with many queries and anchors. So a process goes without
until that has cost it as much as loading. Whatever it is asked for, it loses at most twice as much
as by the better choice of loading at once and never.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_WORTH_LOADING = 0.5  # seconds of processor time

_seconds_without = [0.0]  # threads may add at the same time; nothing depends on the last digit


def loaded_kernels() -> ModuleType | None:
    """The module `kernels`; None while it is not worth loading, and where it cannot be."""
    return _import_kernels() if _seconds_without[0] >= _WORTH_LOADING else None


@contextmanager
def going_without() -> Iterator[None]:
    """Count the time of work that the loops would do in almost none."""
    begun = time.thread_time()
    yield
    _seconds_without[0] += time.thread_time() - begun


@functools.cache
def _import_kernels() -> ModuleType | None:
    try:
        from asif_lance.search import kernels  # here, since it takes so long
    except ImportError:  # numba does not work here, or the loops would not be fast
        return None
    return kernels


@functools.cache
def load_fused(device: torch.device) -> ModuleType | None:
    """The module `fused_products`; None where it cannot be used."""
    if device.type != "cuda":
        return None
    try:
        from asif_lance.search import fused_products  # here, since Triton may be missing

        fused_products.try_kernel(device)
    except ImportError:
        return None
    return fused_products
