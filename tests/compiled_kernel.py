"""Compiles the kernel of a GPU for one that is not here: `TRITON_INTERPRET=0 python FILE 90`.

Prints the bytes of shared memory that a program takes, and the instructions that it multiplies by.
"""

from __future__ import annotations

import re
import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from asif_lance.search.fused_products import _COLUMNS, _DEPTH, _ROWS, _WARPS, _append_reaching

POINTERS = {
    **dict.fromkeys(("anchors", "weights"), "*fp16"),
    **dict.fromkeys(("offset", "scale", "floors", "values"), "*fp32"),
    **dict.fromkeys(("count", "places"), "*i64"),
    "live": "*u8",
}
SIZES = {"rows": _ROWS, "columns": _COLUMNS, "depth": _DEPTH, "number_stride": 1}


def compile_for(capability: int, left_out: dict[str, object]) -> str:
    """What is printed; some arguments are missing, or as Triton takes a 1."""
    fixed = SIZES | left_out
    names = _append_reaching.arg_names
    types = {n: "constexpr" if n in fixed else POINTERS.get(n, "i32") for n in names}
    source = ASTSource(_append_reaching, types, fixed)
    made = compile(source, GPUTarget("cuda", capability, 32), {"num_warps": _WARPS})
    used = set(re.findall(r"(?:wgmma\.mma_async|mma\.sync|tcgen05\.mma)\S*", made.asm["ptx"]))
    return f"{made.metadata.shared} {' '.join(sorted(used))}"


if __name__ == "__main__":
    for left_out in ({}, {"offset": None, "scale": None, "live": None, "m": 1}):
        sys.stdout.write(compile_for(int(sys.argv[1]), left_out) + "\n")
