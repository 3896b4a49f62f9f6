"""Where torch computes, and how precisely: the one place that chooses, and reads its settings."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
from threadpoolctl import ThreadpoolController

from asif_lance.errors import InputError

_BFLOAT16_FEATURES = ("avx512_bf16", "amx_bf16")  # instruction sets that multiply it
_TIMED_PRODUCTS = 4
_MEMORY_SHARE = 0.8  # of a device's free memory; the rest is for products and encoders
_ROUNDINGS = {  # torch's names of what float32 numbers may be rounded to before they are multiplied
    **dict.fromkeys(("none", "ieee", "highest", "strict"), 0.0),
    **dict.fromkeys(("tf32", "high"), 2.0**-10),  # 10 bits after the first; some devices cut off
}
_SHORT_SUMS = "allow_fp16_reduced_precision_reduction", "allow_fp16_accumulation"
_sums_lock = threading.Lock()
_COARSEST_ROUNDING = 2.0**-8  # bfloat16's 7 bits after the first, rounded to nearest


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
    if device.type == "cuda" and device.index is None:  # others may make another one current
        return torch.device("cuda", torch.cuda.current_device())
    return device


def is_accelerator(device: torch.device) -> bool:
    """Whether a device has memory of its own, and is asked for a few large operations only."""
    return device.type != "cpu"


def take_turns(device: torch.device) -> AbstractContextManager[object]:
    """What a thread enters to compute on a device: the processor is shared, others go in turn."""
    return nullcontext() if device.type == "cpu" else threading.Lock()


def send_beside(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A batch on a device; to a CUDA device while it computes something else.

    So it goes from pinned memory, which torch uses again once it is sent, on a stream of its own.
    What the calling thread asks the device for next waits for it.
    """
    if device.type != "cuda" or batch.device.type != "cpu":
        return batch.to(device)
    sending, computing = _sending_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(sending):
        there = batch.pin_memory().to(device, non_blocking=True)
    computing.wait_stream(sending)
    there.record_stream(computing)  # its memory is used again only after what computes with it
    return there


@functools.cache
def _sending_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped


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
    if not any(has.get(name) for name in _BFLOAT16_FEATURES):
        return False
    seconds = {kind: _seconds_of(kind) for kind in (torch.bfloat16, torch.float32)}
    return seconds[torch.bfloat16] < seconds[torch.float32]


def _seconds_of(kind: torch.dtype) -> float:
    """The shortest of a few matrix products, in processor time of this thread.

    The first prepares and does not count.
    """
    shapes, times = [(512, 1024), (1024, 128), (512, 128)], []
    left, right, out = (torch.ones(shape, dtype=kind, device="cpu") for shape in shapes)
    for _ in range(1 + _TIMED_PRODUCTS):
        begun = time.thread_time()
        torch.mm(left, right, out=out)
        times.append(time.thread_time() - begun)
    return min(times[1:])


def room_on(device: torch.device) -> int | None:
    """Bytes that anchors may take on a device: most of what is free; None for main memory."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.mem_get_info(device)[0] * _MEMORY_SHARE)


def float32_rounding(device: torch.device) -> float:
    """The largest share of a float32 number that is rounded off before a matrix product.

    Zero unless the user allows it: by `torch.set_float32_matmul_precision`, by any `fp32_precision`
    or `allow_tf32` of `torch.backends`, or by oneDNN's variables in the environment. Where several
    could hold for a device, the coarsest counts.
    """
    given = []
    if device.type != "cuda":
        given += [_setting(torch.backends.mkldnn, "matmul"), _onednn_mode()]
    if device.type != "cpu":
        given += [_setting(torch.backends.cuda, "matmul")]
    return max(_ROUNDINGS.get(name.lower(), _COARSEST_ROUNDING) for name in given)


def _setting(backend: object, operation: str) -> str:
    """What torch says of one backend; before 2.9 it had one setting for all of them."""
    found = getattr(getattr(backend, operation, None), "fp32_precision", None)
    return found if isinstance(found, str) else torch.get_float32_matmul_precision()


def _onednn_mode() -> str:
    names = "ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"
    return next((os.environ[name] for name in names if name in os.environ), "strict")


def multiplies_float16(device: torch.device) -> bool:
    """Whether the device multiplies float16 matrices as they are, within `float32_sums`."""
    return device.type == "cuda"


def multiply_float16(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """Multiply float16 matrices into a float32 one; sums are float32, and nothing is rounded."""
    if left.device.type == "cpu":
        torch.mm(left.float(), right.float(), out=out)
        return
    with float32_sums():
        torch.mm(left, right, out_dtype=out.dtype, out=out)


@contextmanager
def float32_sums() -> Iterator[None]:
    """Have CUDA devices sum up products of float16 numbers in float32 meanwhile.

    torch lets them add in float16 unless it is told otherwise, for the whole process and as of the
    call that starts a product, not of its end. So this holds around such calls alone: other threads
    of ours wait for them, and whatever else multiplies float16 meanwhile is summed up like that.
    """
    settings = torch.backends.cuda.matmul
    names = [name for name in _SHORT_SUMS if hasattr(settings, name)]  # older torch has fewer
    with _sums_lock:
        before = {name: _switch(settings, name) for name in names}
        for name in names:
            setattr(settings, name, False)
        try:
            yield
        finally:
            for name, value in before.items():
                setattr(settings, name, value)


def _switch(settings: object, name: str) -> object:
    """How a switch stands; newer releases have a second one behind it, which it would set, too."""
    second = getattr(settings, f"{name}_split_k", None)
    first: bool = getattr(settings, name)
    return first if second is None else (first, second)


def float64_device(device: torch.device) -> torch.device:
    """Where products of float64 numbers on a device are those of float64: there, or on the CPU.

    MPS has none, and cuBLAS can be told to make them up from products of integers.
    """
    emulated = os.environ.get("CUBLAS_EMULATE_DOUBLE_PRECISION", "0") != "0"
    if device.type == "mps" or (device.type == "cuda" and emulated):
        return torch.device("cpu")
    return device


@contextmanager
def limit_torch(threads: int) -> Iterator[None]:
    """Let operations of torch use so many threads at most, if the calling thread asks for them.

    `torch.set_num_threads` would change what others use.
    """
    if torch.get_num_threads() <= threads:  # torch sets this thread's number when first asked
        yield
        return
    limit_mkl = _mkl_limit()
    with _openmp().limit(limits=threads):
        before = limit_mkl(threads)
        try:
            yield
        finally:
            limit_mkl(before)


@functools.cache
def _openmp() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="openmp")


@functools.cache
def _mkl_limit() -> Callable[[int], int]:
    """MKL's function that sets its number for the calling thread and returns the one before.

    It follows OpenMP's only until somebody calls `torch.set_num_threads`. Does nothing where torch
    is built without MKL.
    """
    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    set_local = None
    if library.exists():
        set_local = getattr(ctypes.CDLL(str(library)), "MKL_Set_Num_Threads_Local", None)
    return set_local or (lambda threads: 0)
