"""Settings of torch that make products faster and less precise, to be switched on for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

#: Everything by which torch 2.14 may be told to round float32 or to cut sums short.
SWITCHES = [
    "set_float32_matmul_precision=high",
    "set_float32_matmul_precision=medium",
    "fp32_precision=tf32",
    "fp32_precision=bf16",
    "fp32_precision=ieee",
    "cuda.matmul.allow_tf32=True",
    "cuda.matmul.fp32_precision=tf32",
    "cudnn.fp32_precision=tf32",
    "mkldnn.fp32_precision=bf16",
    "mkldnn.matmul.fp32_precision=tf32",
    "mkldnn.matmul.fp32_precision=bf16",
    "cuda.matmul.allow_fp16_accumulation=True",
    "cuda.matmul.allow_fp16_reduced_precision_reduction=True",
    "cuda.matmul.allow_bf16_reduced_precision_reduction=True",
]


@contextmanager
def switched(switch: str) -> Iterator[None]:
    """Set one of them as a user does, and all of them back at the end."""
    matmul = torch.backends.cuda.matmul
    names = ["allow_fp16_accumulation", "allow_fp16_reduced_precision_reduction"]
    names.append("allow_bf16_reduced_precision_reduction")
    before = {name: getattr(matmul, name) for name in names}
    path, _, value = switch.partition("=")
    *owners, name = path.split(".")
    try:
        if name == "set_float32_matmul_precision":
            torch.set_float32_matmul_precision(value)
        else:
            owner = torch.backends
            for part in owners:
                owner = getattr(owner, part)
            setattr(owner, name, {"True": True, "False": False}.get(value, value))
        yield
    finally:
        for name, allowed in before.items():
            setattr(matmul, name, allowed)
        torch.set_float32_matmul_precision("highest")
        for backend in ("generic", "cuda", "mkldnn"):
            for operation in ("all", "conv", "matmul", "rnn"):
                if backend != "generic" or operation == "all":
                    torch._C._set_fp32_precision_setter(backend, operation, "none")
