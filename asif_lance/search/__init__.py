"""Exact top-k search over plain arrays: the k most similar anchors of each query.

Promises: the answer is a function of the stored numbers alone, bit by bit. Block size, batch,
thread count, device and the order of the anchors have no part in it; ties go by the caller's order.
Assumes: anchors are finite, of L2 norm at most 1.01, and nobody changes them meanwhile.
Any number of threads may search at once. Touches no tables or logs, and no files but numba's own
cache of compiled loops.
"""

from asif_lance.search.anchor_scale import ExactFactors, FactorsOnDemand, Scale
from asif_lance.search.blocks import Blocks, as_tensor
from asif_lance.search.exact import Hits, exact_hits, exact_top_k, similarities_of, top_k_of
from asif_lance.search.exact_products import ANCHOR_NORM
from asif_lance.search.fast_products import float32_error
from asif_lance.search.kernel_loading import going_without, loaded_kernels
from asif_lance.search.processor import Processor, describe_processor
from asif_lance.search.query_grid import unit_queries

# fmt: off
__all__ = [
    "ANCHOR_NORM", "Blocks", "ExactFactors", "FactorsOnDemand", "Hits", "Processor", "Scale",
    "as_tensor", "describe_processor", "exact_hits", "exact_top_k", "float32_error",
    "going_without", "loaded_kernels", "similarities_of", "top_k_of", "unit_queries",
]
# fmt: on
