"""The vectors of one model version, mapped from its files, and approximate search over them.

Promises: positions count the rows of all fragments in order, deleted ones too; all versions that
have a fragment share its vectors. Assumes: data files never change (Lance's promise).
Reading is safe from several threads, and raises `StaleModelError` once a pair of the version was
forgotten or files that it takes are gone. Writes nothing but caches, which may be deleted at any
time, and the settings of approximate search, which `indexing` has it keep with a version.
"""

from asif_lance.anchors.anchors import Anchors
from asif_lance.anchors.approximate import Approximation, choose_approximation
from asif_lance.anchors.hypothetical import HypotheticalAnchors
from asif_lance.anchors.index_search import IndexSearch
from asif_lance.anchors.sampled_search import SampledSearch
from asif_lance.anchors.search_settings import (
    INDEX,
    MeasuredSetting,
    SearchChoice,
    SearchKind,
    SearchSetting,
)
from asif_lance.anchors.shards import (
    Mapper,
    Shard,
    ShardHits,
    ShardQuestion,
    SharedAnchors,
    cut_shards,
    merge_hits,
    sample_shard,
    search_shard,
    sum_shard,
)
from asif_lance.anchors.version_rows import Side

# fmt: off
__all__ = [
    "INDEX", "Anchors", "Approximation", "HypotheticalAnchors", "IndexSearch", "Mapper",
    "MeasuredSetting", "SampledSearch", "SearchChoice", "SearchKind", "SearchSetting", "Shard",
    "ShardHits", "ShardQuestion", "SharedAnchors", "Side", "choose_approximation", "cut_shards",
    "merge_hits", "sample_shard", "search_shard", "sum_shard",
]
# fmt: on
