"""Which similarities reach their query's floor: few of many, as fast as they can be read."""

from __future__ import annotations

import numpy as np
import torch

from asif_lance.records import Float32Array, Int64Array
from asif_lance.search.compiled import compiled, compiles

# Sixteen at a time are compared; only where one reaches its floor is looked into further.
_LOOP = """
define i64 @loop(ptr noalias readonly %scores, ptr noalias readonly %floors,
                 ptr noalias %positions, ptr noalias %values, i64 %size, i64 %width) {
entry:
  %some = icmp sgt i64 %size, 0
  br i1 %some, label %sixteen, label %end
sixteen:
  %i = phi i64 [ 0, %entry ], [ %i.next, %next ]
  %column = phi i64 [ 0, %entry ], [ %column.next, %next ]
  %count = phi i64 [ 0, %entry ], [ %count.next, %next ]
  %scores.at = getelementptr inbounds float, ptr %scores, i64 %i
  %score = load <16 x float>, ptr %scores.at, align 4
  %floors.at = getelementptr inbounds float, ptr %floors, i64 %column
  %floor = load <16 x float>, ptr %floors.at, align 4
  %reaches = fcmp oge <16 x float> %score, %floor
  %bits = bitcast <16 x i1> %reaches to i16
  %none = icmp eq i16 %bits, 0
  br i1 %none, label %next, label %keep
keep:
  %left = phi i16 [ %bits, %sixteen ], [ %left.next, %keep ]
  %kept = phi i64 [ %count, %sixteen ], [ %kept.next, %keep ]
  %lane.short = call i16 @llvm.cttz.i16(i16 %left, i1 true)
  %lane = zext i16 %lane.short to i64
  %position = add nuw nsw i64 %i, %lane
  %value.at = getelementptr inbounds float, ptr %scores, i64 %position
  %value = load float, ptr %value.at
  %value.to = getelementptr inbounds float, ptr %values, i64 %kept
  store float %value, ptr %value.to
  %position.to = getelementptr inbounds i64, ptr %positions, i64 %kept
  store i64 %position, ptr %position.to
  %kept.next = add nuw nsw i64 %kept, 1
  %less = sub i16 %left, 1
  %left.next = and i16 %left, %less
  %last = icmp eq i16 %left.next, 0
  br i1 %last, label %next, label %keep
next:
  %count.next = phi i64 [ %count, %sixteen ], [ %kept.next, %keep ]
  %along = add nuw nsw i64 %column, 16
  %over = icmp eq i64 %along, %width
  %column.next = select i1 %over, i64 0, i64 %along
  %i.next = add nuw nsw i64 %i, 16
  %more = icmp slt i64 %i.next, %size
  br i1 %more, label %sixteen, label %end
end:
  %found = phi i64 [ 0, %entry ], [ %count.next, %next ]
  ret i64 %found
}
declare i16 @llvm.cttz.i16(i16, i1)
"""


def reaching(scores: torch.Tensor, floors: Float32Array) -> tuple[Int64Array, Float32Array]:
    """Find the similarities that are at least their column's floor.

    Args:
        scores: (r, w) float32, contiguous; r * w and w are multiples of 16, or w is 1.
        floors: (w,); infinite for columns that mean nothing.

    Returns:
        Flat positions, ascending, and their values.
    """
    if scores.device.type != "cpu" or not compiles():
        reach = scores >= torch.from_numpy(floors).to(scores.device)
        hits = reach.view(-1).nonzero().view(-1)
        return hits.cpu().numpy(), scores.view(-1)[hits].cpu().numpy()
    floors = np.resize(floors, 16) if len(floors) == 1 else floors
    positions = np.empty(scores.numel(), dtype=np.int64)  # of which few pages are ever touched
    values = np.empty(scores.numel(), dtype=np.float32)
    found = compiled(_LOOP, 4, 2)(
        scores.data_ptr(),
        floors.ctypes.data,
        positions.ctypes.data,
        values.ctypes.data,
        scores.numel(),
        len(floors),
    )
    return positions[:found].copy(), values[:found].copy()
