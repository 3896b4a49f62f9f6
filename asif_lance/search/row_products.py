"""Products of stored rows with vectors, at the speed of memory.

Every processor reads faster than torch widens float16, and gathering rows costs more than
multiplying them where they lie. The loops below are compiled by LLVM for the processor at hand,
once per process and when they are first needed.
"""

from __future__ import annotations

import torch

from asif_lance.records import Float64Array, Int64Array
from asif_lance.search.compiled import compiled

# Sums may be reordered and multiplications fused, so that the inner loops become ones over vectors.
_RUN = """
define i64 @loop(ptr noalias readonly %rows, ptr noalias readonly %vector, ptr noalias %out,
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
  ret i64 0
}
"""

# float64 sums of each component's two parts, which are exact; rounding happens once, at the end.
_PAIR = """
define internal double @product(ptr noalias readonly %row, ptr noalias readonly %vector, i64 %d) {
entry:
  br label %add
add:
  %j = phi i64 [ 0, %entry ], [ %j.next, %add ]
  %coarse.sum = phi double [ 0.0, %entry ], [ %coarse.next, %add ]
  %fine.sum = phi double [ 0.0, %entry ], [ %fine.next, %add ]
  %stored.at = getelementptr inbounds STORED, ptr %row, i64 %j
  %stored = load STORED, ptr %stored.at
  %weight.at = getelementptr inbounds double, ptr %vector, i64 %j
  %weight = load double, ptr %weight.at
PARTS
  %coarse.product = fmul reassoc contract double %coarse, %weight
  %coarse.next = fadd reassoc contract double %coarse.sum, %coarse.product
  %fine.next = fadd reassoc nsz contract double %fine.sum, %fine.product
  %j.next = add nuw nsw i64 %j, 1
  %more = icmp slt i64 %j.next, %d
  br i1 %more, label %add, label %done
done:
  %sum = fadd double %coarse.next, %fine.next
  ret double %sum
}
define i64 @loop(ptr noalias readonly %rows, ptr noalias readonly %owners,
                  ptr noalias readonly %vectors, ptr noalias %out,
                  ptr noalias readonly %beside, ptr noalias %beside.out, i64 %n, i64 %d) {
entry:
  %two = icmp ne ptr %beside, null
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %pair, label %end
pair:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %row.at = getelementptr inbounds ptr, ptr %rows, i64 %i
  %row = load ptr, ptr %row.at
  %owner.at = getelementptr inbounds i64, ptr %owners, i64 %i
  %owner = load i64, ptr %owner.at
  %begin = mul i64 %owner, %d
  %vector = getelementptr inbounds double, ptr %vectors, i64 %begin
  %sum = call double @product(ptr %row, ptr %vector, i64 %d)
  %out.at = getelementptr inbounds double, ptr %out, i64 %i
  store double %sum, ptr %out.at
  br i1 %two, label %also, label %next
also:
  %other.sum = call double @product(ptr %row, ptr %beside, i64 %d)
  %other.at = getelementptr inbounds double, ptr %beside.out, i64 %i
  store double %other.sum, ptr %other.at
  br label %next
next:
  %i.next = add nuw nsw i64 %i, 1
  %again = icmp slt i64 %i.next, %n
  br i1 %again, label %pair, label %end
end:
  ret i64 0
}
declare double @llvm.rint.f64(double)
"""
_HALF = """
  %single = fpext half %stored to float
  %coarse = fpext float %single to double
  %fine.product = fadd double 0.0, 0.0
"""
_FLOAT = """
  %whole = fpext float %stored to double
  %coarse.scaled = fmul double %whole, 0x4170000000000000  ; 2^24
  %coarse.rounded = call double @llvm.rint.f64(double %coarse.scaled)
  %coarse = fmul double %coarse.rounded, 0x3E70000000000000  ; 2^-24
  %left = fsub double %whole, %coarse
  %fine.scaled = fmul double %left, 0x42A0000000000000  ; 2^43
  %fine.rounded = call double @llvm.rint.f64(double %fine.scaled)
  %fine = fmul double %fine.rounded, 0x3D40000000000000  ; 2^-43
  %fine.product = fmul reassoc contract double %fine, %weight
"""
_PAIRS = {
    torch.float16: _PAIR.replace("STORED", "half").replace("PARTS", _HALF),
    torch.float32: _PAIR.replace("STORED", "float").replace("PARTS", _FLOAT),
}


def row_products(rows: torch.Tensor, vector: torch.Tensor, out: torch.Tensor) -> None:
    """Multiply rows with a vector on the calling thread; float32 sums, in any order.

    Args:
        rows: (n, d) float16 in main memory.
        vector: (d,) float32, contiguous.
        out: (n,) float32, contiguous; is overwritten.

    Raises:
        RuntimeError: this processor is not one for which LLVM `compiles`.
    """
    loop = compiled(_RUN, 3, 3)
    n, d = rows.shape
    if not d:
        out.zero_()
        return
    rows = rows if rows.stride(1) == 1 else rows.contiguous()
    loop(rows.data_ptr(), vector.data_ptr(), out.data_ptr(), n, d, rows.stride(0))


def pair_products(
    rows: Int64Array,
    owners: Int64Array,
    vectors: Float64Array,
    beside: Float64Array | None,
    out: Float64Array,
    dtype: torch.dtype,
) -> None:
    """Multiply each row with one of the vectors on the calling thread, as `exact_products` says.

    Args:
        rows: (p,) addresses of d contiguous components each; nothing guards against wrong ones.
        owners: (p,) which of the vectors.
        vectors: (m, d) contiguous, on the grid of queries.
        beside: (d,) one more to multiply every row with, or None.
        out: (1, p), or (2, p) with products beside; is overwritten by sums that are rounded once,
            if at all.
        dtype: float16 or float32, the type of the rows.

    Raises:
        RuntimeError: this processor is not one for which LLVM `compiles`.
    """
    loop = compiled(_PAIRS[dtype], 6, 2)
    d = vectors.shape[1]
    if not d:
        out[:] = 0
        return
    also = (None, None) if beside is None else (beside.ctypes.data, out[1].ctypes.data)
    at = (array.ctypes.data for array in (rows, owners, vectors, out[0]))
    loop(*at, *also, len(rows), d)
