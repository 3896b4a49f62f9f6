"""Products of float16 rows with one float32 vector, at the speed of memory.

Every processor reads faster than `torch.mv` widens float16. The loop below is compiled by LLVM for
the processor at hand, once per process and when it is first needed.
"""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

# Sums may be reordered and multiplications fused, so that the loop becomes one over vectors.
_LOOP = """
define void @products(ptr noalias readonly %rows, ptr noalias readonly %vector, ptr noalias %out,
                      i64 %n, i64 %d, i64 %stride) {
entry:
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %row, label %end
row:
  %i = phi i64 [ 0, %entry ], [ %i.next, %store ]
  %begin = mul i64 %i, %stride
  %here = getelementptr half, ptr %rows, i64 %begin
  br label %add
add:
  %j = phi i64 [ 0, %row ], [ %j.next, %add ]
  %sum = phi float [ 0.0, %row ], [ %sum.next, %add ]
  %narrow.at = getelementptr inbounds half, ptr %here, i64 %j
  %narrow = load half, ptr %narrow.at
  %wide = fpext half %narrow to float
  %weight.at = getelementptr inbounds float, ptr %vector, i64 %j
  %weight = load float, ptr %weight.at
  %product = fmul reassoc contract float %wide, %weight
  %sum.next = fadd reassoc contract float %sum, %product
  %j.next = add nuw nsw i64 %j, 1
  %more = icmp slt i64 %j.next, %d
  br i1 %more, label %add, label %store
store:
  %out.at = getelementptr float, ptr %out, i64 %i
  store float %sum.next, ptr %out.at
  %i.next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %i.next, %n
  br i1 %again, label %row, label %end
end:
  ret void
}
"""


def row_products(rows: torch.Tensor, vector: torch.Tensor, out: torch.Tensor) -> None:
    """Multiply rows with a vector on the calling thread; float32 sums, in any order.

    Args:
        rows: (n, d) float16 in main memory.
        vector: (d,) float32, contiguous.
        out: (n,) float32, contiguous; is overwritten.

    Raises:
        RuntimeError: this processor is not one that `widens`.
    """
    kernel = _kernel()
    if kernel is None:
        raise RuntimeError("this processor has no instruction that widens float16")
    n, d = rows.shape
    if not d:
        out.zero_()
        return
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    kernel.call(rows.data_ptr(), vector.data_ptr(), out.data_ptr(), n, d, rows.stride(0))


def widens() -> bool:
    """Whether the processor widens float16 by an instruction, without which there is no loop."""
    return _kernel() is not None


@dataclass(frozen=True)
class _Kernel:
    """Compiled code, which lives as long as its engine; calls let other Python threads run."""

    engine: Any
    call: Callable[[int, int, int, int, int, int], None]


@functools.cache
def _kernel() -> _Kernel | None:
    from llvmlite import binding as llvm  # takes a moment, and batches do without

    features = llvm.get_host_cpu_features()
    if not (features.get("f16c") or platform.machine().lower() in ("arm64", "aarch64")):
        return None
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    target = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features.flatten(), opt=3
    )
    module = llvm.parse_assembly(_LOOP)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.loop_interleaving = True
    passes = llvm.create_pass_builder(target, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, target)
    engine.finalize_object()
    pointer, size = ctypes.c_void_p, ctypes.c_int64
    kind = ctypes.CFUNCTYPE(None, pointer, pointer, pointer, size, size, size)
    return _Kernel(engine, kind(engine.get_function_address("products")))
