"""Settings of torch that could change what products give, to be switched on for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from unittest import mock

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


@contextmanager
def _set(change: Callable[[], object], undo: Callable[[], object]) -> Iterator[None]:
    change()
    try:
        yield
    finally:
        undo()


def _default_type(kind: torch.dtype) -> AbstractContextManager[None]:
    before = torch.get_default_dtype()
    return _set(lambda: torch.set_default_dtype(kind), lambda: torch.set_default_dtype(before))


def _threads(count: int) -> AbstractContextManager[None]:
    before = torch.get_num_threads()
    return _set(lambda: torch.set_num_threads(count), lambda: torch.set_num_threads(before))


#: Whatever else holds for a thread or the process.
MODES: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "inference mode": torch.inference_mode,
    "autocast to bfloat16": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to float16": lambda: torch.autocast("cpu", torch.float16),
    "no oneDNN": lambda: torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
    "settings that contradict each other": lambda: mock.patch.object(
        torch, "get_float32_matmul_precision", side_effect=RuntimeError
    ),
    "default type float64": lambda: _default_type(torch.float64),
    "default type bfloat16": lambda: _default_type(torch.bfloat16),
    "default device": lambda: _set(
        lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)
    ),
    "deterministic algorithms": lambda: _set(
        lambda: torch.use_deterministic_algorithms(True),
        lambda: torch.use_deterministic_algorithms(False),
    ),
    "no denormal numbers": lambda: _set(
        lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)
    ),
    "one thread": lambda: _threads(1),
    "seven threads": lambda: _threads(7),
}
