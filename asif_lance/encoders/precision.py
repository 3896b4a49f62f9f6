"""Half precision as the end of an encoder's name: `timm/NAME+bfloat16` multiplies in bfloat16.

So it is pinned with the name. Vectors of two precisions are never mixed, and whoever loads the
encoder of a database computes as it was computed when its vectors were made.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HALF = "+bfloat16"


def split_precision(name: str) -> tuple[str, str]:
    """An encoder's name without its precision, which is `+bfloat16`, or nothing for float32."""
    plain = name.removesuffix(HALF)
    return plain, name[len(plain) :]


def multiply_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """What a thread enters to compute so; what has to be more exact than products stays float32."""
    if not precision:
        return nullcontext()
    import torch  # takes seconds; names are taken apart without it

    return torch.autocast(device.type, torch.bfloat16)
