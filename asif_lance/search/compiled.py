"""Loops that LLVM compiles for the processor at hand, when they are first needed."""

from __future__ import annotations

import ctypes
import functools
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_LOCK = threading.Lock()  # one thread compiles, the others wait for it


def compiles() -> bool:
    """Whether there are loops: on processors that widen float16 by an instruction."""
    return _llvm() is not None


def compiled(code: str, pointers: int, sizes: int) -> Callable[..., int]:
    """Compile LLVM's language, once per process, to a function that lets other threads run.

    Args:
        code: defines a function `loop` that returns i64; inner loops become ones over vectors.
        pointers: how many addresses it takes, first.
        sizes: how many i64 it takes after them.

    Raises:
        RuntimeError: this processor is not one for which LLVM `compiles`.
    """
    with _LOCK:
        return _compiled(code, pointers, sizes)


@functools.cache
def _compiled(code: str, pointers: int, sizes: int) -> Callable[..., int]:
    llvm = _llvm()
    if llvm is None:
        raise RuntimeError("this processor has no instruction that widens float16")
    engine, arguments = llvm.engine(code), [ctypes.c_void_p] * pointers + [ctypes.c_int64] * sizes
    loop: Any = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(engine.get_function_address("loop"))
    loop.engine = engine  # the machine code lives as long as it does
    found: Callable[..., int] = loop
    return found


@dataclass(frozen=True)
class _Llvm:
    """LLVM, set up for this processor."""

    binding: Any
    target: Any

    def engine(self, code: str) -> Any:
        module = self.binding.parse_assembly(code)
        module.verify()
        tuning = self.binding.create_pipeline_tuning_options(speed_level=3)
        tuning.loop_vectorization = tuning.loop_interleaving = True
        passes = self.binding.create_pass_builder(self.target, tuning)
        passes.getModulePassManager().run(module, passes)
        engine = self.binding.create_mcjit_compiler(module, self.target)
        engine.finalize_object()
        return engine


@functools.cache
def _llvm() -> _Llvm | None:
    from llvmlite import binding  # takes a moment, and not every command needs it

    features = binding.get_host_cpu_features()
    if not (features.get("f16c") or platform.machine().lower() in ("arm64", "aarch64")):
        return None
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple().create_target_machine(
        cpu=binding.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    return _Llvm(binding, target)
