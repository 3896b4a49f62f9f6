"""Exact top-k search: for each query its most similar anchors, whatever computes them.

`candidates` keeps every anchor that could be among the k best, `exact_products` computes their
similarities without rounding, and `ranking` cuts ties by the caller's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from asif_lance.errors import DimensionError, InputError, InvalidVectorError
from asif_lance.records import Float32Array, Float64Array, Int64Array, Neighbors
from asif_lance.search.anchor_scale import Scale
from asif_lance.search.blocks import Blocks, Matrix
from asif_lance.search.candidates import (
    CandidatePool,
    collect_candidates,
    guess_floors,
    lowest_floors,
)
from asif_lance.search.device_candidates import DevicePool
from asif_lance.search.fast_products import FastProduct, product_types
from asif_lance.search.parallel import thread_count
from asif_lance.search.query_grid import on_grid, query_matrix
from asif_lance.search.ranking import QueryBatch, SearchTable, TieOrder

_T = TypeVar("_T", bound=np.generic)

_BATCH_SIZE = 256  # queries that share one pass over the anchors
_MOST_CROWDING = 0.04  # of the anchors let in cost more than the next better product
_MOST_SINGLE_QUERIES = 3  # so many take less time one by one, each at the speed of memory
_SHORTLIST_FACTOR = 4  # times k: where there are fewer anchors, every one is a candidate


@dataclass(frozen=True, slots=True)
class Hits:
    """The k most similar anchors of each of m queries, best first.

    Attributes:
        indices: (m, k) int64.
        similarities: (m, k) float64, as they were compared.
    """

    indices: Int64Array
    similarities: Float64Array

    def rounded(self) -> Neighbors:
        """As everything that follows takes them."""
        return Neighbors(self.indices, self.similarities.astype(np.float32))


def exact_top_k(
    queries: Matrix,
    anchors: Matrix | Sequence[Matrix],
    k: int,
    *,
    offset: ArrayLike | None = None,
    scale: ArrayLike | Scale | None = None,
    live: ArrayLike | None = None,
    tie_order: ArrayLike | TieOrder | None = None,
    release: Callable[[int], None] | None = None,
) -> Neighbors:
    """Find each query's k most similar live anchors; similarity = (q·a + offset) * scale.

    Queries are rounded to a grid of 2^-28 of their size (`exact_products` says why); what
    `unit_queries` gives is on it. Similarities are those of the stored numbers, computed in float64
    without rounding and compared as such. Work is done on the accelerator that holds either side,
    else on the CPU; anchors in main memory are streamed to the queries' device.

    Args:
        queries: (m, d) finite numbers of any norm.
        anchors: (n, d) float16 or float32, finite, of L2 norm at most 1.01; or a sequence of such
            blocks, whose rows count through.
        k: how many to find.
        offset: (m,) per query, or None for zeros.
        scale: (n,) per anchor, or None for ones; a `Scale` where exact ones take time to find.
        live: (n,) bool: which anchors may be found; None for all.
        tie_order: (n,) distinct integers; the smaller goes first among equal similarities. Or a
            function that gives them for some indices: it is asked for tied anchors only. None for
            the smaller index.
        release: is called with the number of each block that a pass is done with, so that its
            memory can be given back meanwhile; None if it may stay.

    Returns:
        min(k, live anchors) neighbors per query, best first.

    Raises:
        DimensionError: queries and anchors differ in d.
        InvalidVectorError: a query or an anchor is not finite.
        InputError: k is below 1, or an argument has the wrong shape.
    """
    return exact_hits(
        queries,
        anchors,
        k,
        offset=offset,
        scale=scale,
        live=live,
        tie_order=tie_order,
        release=release,
    ).rounded()


def exact_hits(
    queries: Matrix,
    anchors: Matrix | Sequence[Matrix],
    k: int,
    *,
    offset: ArrayLike | None = None,
    scale: ArrayLike | Scale | None = None,
    live: ArrayLike | None = None,
    tie_order: ArrayLike | TieOrder | None = None,
    release: Callable[[int], None] | None = None,
) -> Hits:
    """The same before similarities are rounded, so that parts of a table can be merged."""
    blocks = Blocks(anchors, release)
    batch = _make_batch(queries, blocks, k, offset, scale, live, tie_order)
    batch = replace(batch, k=min(k, batch.table.count))

    def search(part: QueryBatch, at: slice) -> tuple[Float64Array, Int64Array]:
        return _search(part, _device(queries, blocks), guess=True)

    together = 1 if len(batch.queries) <= _MOST_SINGLE_QUERIES else _BATCH_SIZE
    return _in_batches(batch, together, search)


def top_k_of(
    queries: Matrix,
    anchors: Matrix | Sequence[Matrix],
    candidates: Int64Array,
    k: int,
    *,
    offset: ArrayLike | None = None,
    scale: ArrayLike | Scale | None = None,
    tie_order: ArrayLike | TieOrder | None = None,
) -> Neighbors:
    """The same as `exact_top_k`, among some anchors of each query's own.

    What is not named here is as there.

    Args:
        queries: (m, d).
        anchors: (n, d).
        candidates: (m, w) int64, distinct in a row; below 0 where a query has fewer.
        k: how many to find.
        offset: (m,) or None.
        scale: of n anchors, or None.
        tie_order: of n anchors, or None.

    Returns:
        k neighbors per query, best first; of index -1 and similarity -inf where there are fewer.
    """
    batch = _make_batch(queries, Blocks(anchors), k, offset, scale, None, tie_order)

    def rank(part: QueryBatch, at: slice) -> tuple[Float64Array, Int64Array]:
        return _rank_named(part, candidates[at])

    return _in_batches(batch, _BATCH_SIZE, rank).rounded()


def similarities_of(
    queries: Matrix,
    anchors: Matrix | Sequence[Matrix],
    rows: Int64Array,
    indices: Int64Array,
    *,
    offset: ArrayLike | None = None,
    scale: ArrayLike | Scale | None = None,
) -> Float32Array:
    """The similarities of (p,) queries and the (p,) anchors of each, as `exact_top_k` has them.

    What is not named here is as there.

    Args:
        queries: (m, d).
        anchors: (n, d).
        rows: the query of each pair.
        indices: the anchor of each pair.
        offset: (m,) or None.
        scale: of n anchors, or None.

    Raises:
        IndexError: there is no such anchor.
    """
    batch = _make_batch(queries, Blocks(anchors), 1, offset, scale, None, None)
    return (batch.compute_similarities(rows, indices) * batch.size[rows]).astype(np.float32)


def _in_batches(
    batch: QueryBatch,
    together: int,
    answer: Callable[[QueryBatch, slice], tuple[Float64Array, Int64Array]],
) -> Hits:
    """Have so many queries answered together."""
    shape = len(batch.queries), batch.k
    values, indices = np.empty(shape), np.empty(shape, dtype=np.int64)
    for start in range(0, shape[0] if batch.k else 0, together):
        at = slice(start, start + together)
        values[at], indices[at] = answer(batch.select(at), at)
    return Hits(indices, values * batch.size[:, None])


def _search(
    batch: QueryBatch, device: torch.device, *, guess: bool
) -> tuple[Float64Array, Int64Array]:
    """Search one batch; queries whose guessed floor was too high once more without a guess."""
    if len(batch.table.anchors) <= _SHORTLIST_FACTOR * batch.k:
        return _rank_all(batch)
    product, floors = _choose_product(batch, device, guess=guess)
    pool: CandidatePool | DevicePool
    if batch.table.anchors.on_accelerator:
        pool = DevicePool(batch, product, floors)
        pool.collect()
        values, indices = batch.rank_there(pool.rows, pool.indices)
    else:
        pool = CandidatePool(batch, product, floors.copy())
        collect_candidates(product, batch.table, pool)
        found = pool.trim()
        values, indices = batch.rank_in_parts(found.rows, found.indices, product.threads)
    short = pool.safe_floors < floors
    if short.any() and guess:
        values[short], indices[short] = _search(batch.select(short), device, guess=False)
    return batch.check(values, indices)


def _rank_all(batch: QueryBatch) -> tuple[Float64Array, Int64Array]:
    """Rank every live anchor, where there are few."""
    live, n = batch.table.live, len(batch.table.anchors)
    anchors = np.arange(n) if live is None else np.flatnonzero(live)
    named = np.broadcast_to(anchors, (len(batch.queries), len(anchors)))
    return batch.check(*_rank_named(batch, named))


def _rank_named(batch: QueryBatch, named: Int64Array) -> tuple[Float64Array, Int64Array]:
    """Rank the (m, w) anchors that are named for each query, by number or -1."""
    rows, columns = np.nonzero(named >= 0)
    threads = thread_count(named.size * batch.queries.shape[1])
    return batch.rank_in_parts(rows, named[rows, columns], threads)


def _choose_product(
    batch: QueryBatch, device: torch.device, *, guess: bool
) -> tuple[FastProduct, Float32Array]:
    """Choose the fastest product whose error bound does not let in too many, and its floors."""
    queries, table = torch.from_numpy(batch.queries).to(device), batch.table
    kinds = product_types(len(queries), table.anchors, device)
    for kind in kinds if guess else kinds[-1:]:
        product = FastProduct(queries, table.anchors, batch.offset, table.scale, kind)
        if guess:
            floors, crowding = guess_floors(product, table, batch.k)
            if crowding < _MOST_CROWDING:
                break
    return product, floors if guess else lowest_floors(product.count)


def _device(queries: Matrix, blocks: Blocks) -> torch.device:
    """Choose where to compute: on the accelerator that holds either side."""
    if isinstance(queries, torch.Tensor) and not blocks.on_accelerator:
        return queries.device
    return blocks.blocks[0].device


def _make_batch(
    queries: Matrix,
    anchors: Blocks,
    k: int,
    offset: ArrayLike | None,
    scale: ArrayLike | Scale | None,
    live: ArrayLike | None,
    tie_order: ArrayLike | TieOrder | None,
) -> QueryBatch:
    """Check what a caller gave, and put the queries on the grid."""
    host, n = query_matrix(queries), len(anchors)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if anchors.blocks and anchors.blocks[0].shape[1] != host.shape[1]:
        raise DimensionError("queries", anchors.blocks[0].shape[1], host.shape[1])
    for row in np.flatnonzero(~np.isfinite(host).all(axis=1))[:1]:
        raise InvalidVectorError(f"query {row} holds NaN or infinity", int(row))
    grid, size = on_grid(host)
    shift = None if offset is None else _per_item("offset", offset, len(host), np.float64) / size
    mask = None if live is None else _per_item("live", live, n, np.bool_)
    count = n if mask is None else int(mask.sum())
    table = SearchTable(anchors, _scales(scale, n), mask, count, _ties(tie_order, n))
    return QueryBatch(grid, size, shift, table, k)


def _scales(scale: ArrayLike | Scale | None, n: int) -> Scale | None:
    if scale is None:
        return None
    if isinstance(scale, Scale) and scale.near.shape == (n,) and np.isfinite(scale.peak):
        return scale
    near = scale.near if isinstance(scale, Scale) else np.asarray(scale)
    return Scale(_per_item("scale", near, n, np.float64))


def _ties(order: ArrayLike | TieOrder | None, n: int) -> TieOrder:
    if order is None:
        return lambda indices: indices
    return order if callable(order) else _per_item("tie_order", order, n, np.int64).__getitem__


def _per_item(name: str, values: ArrayLike, count: int, dtype: type[_T]) -> NDArray[_T]:
    given = np.asarray(values)
    if given.shape != (count,):
        raise InputError(f"{name}: expected shape ({count},), got {given.shape}")
    if dtype is np.float64 and not np.isfinite(given).all():
        raise InputError(f"{name} holds NaN or infinity")
    return given.astype(dtype, copy=False)
