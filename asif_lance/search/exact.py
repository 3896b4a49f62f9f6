"""Exact top-k search: for each query its most similar anchors, whatever computes them.

The answer is a function of the stored numbers alone. It does not depend on block size, batch mates,
thread count, device or the order of the anchors: `candidates` keeps every anchor that could be
among the k best, `exact_products` computes their similarities without rounding, and ties are cut by
the caller's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    Candidates,
    SearchTable,
    collect_candidates,
    guess_floors,
    lowest_floors,
)
from asif_lance.search.fast_products import FastProduct, product_types
from asif_lance.search.parallel import share_work, thread_count
from asif_lance.search.query_grid import on_grid, query_matrix
from asif_lance.search.ranking import QueryBatch, TieOrder

_T = TypeVar("_T", bound=np.generic)

_BATCH_SIZE = 256  # queries that share one pass over the anchors
_MOST_CROWDING = 0.04  # of the anchors let in cost more than the next better product
_MOST_SINGLE_QUERIES = 3  # so many take less time one by one, each at the speed of memory
_SHORTLIST_FACTOR = 4  # times k: where there are fewer anchors, every one is a candidate


def exact_top_k(
    queries: Matrix,
    anchors: Matrix | Sequence[Matrix],
    k: int,
    *,
    offset: ArrayLike | None = None,
    scale: ArrayLike | Scale | None = None,
    live: ArrayLike | Sequence[ArrayLike] | None = None,
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
        live: (n,) bool, or one such array per block: which anchors may be found; None for all.
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
    blocks = Blocks(anchors, release)
    host = _checked_queries(queries, blocks, k)
    table = _table(blocks, scale, live)

    def search(batch: QueryBatch, at: slice) -> tuple[Float64Array, Int64Array]:
        return _search(batch, _device(queries, blocks), guess=True)

    together = 1 if len(host) <= _MOST_SINGLE_QUERIES else _BATCH_SIZE
    return _in_batches(host, table, min(k, table.count), offset, tie_order, together, search)


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
    blocks = Blocks(anchors)
    host = _checked_queries(queries, blocks, k)
    table = _table(blocks, scale, None)

    def rank(batch: QueryBatch, at: slice) -> tuple[Float64Array, Int64Array]:
        given = candidates[at]

        def find(own: slice) -> Candidates:
            rows, columns = np.nonzero(given[own] >= 0)
            named = given[own][rows, columns]
            return Candidates(rows, named, np.zeros(len(named), dtype=np.float32))

        threads = thread_count(given.size * host.shape[1])
        return _rank_in_parts(batch, batch.split(threads), find)

    return _in_batches(host, table, k, offset, tie_order, _BATCH_SIZE, rank)


def _in_batches(
    host: NDArray[np.generic],
    table: SearchTable,
    k: int,
    offset: ArrayLike | None,
    tie_order: ArrayLike | TieOrder | None,
    together: int,
    answer: Callable[[QueryBatch, slice], tuple[Float64Array, Int64Array]],
) -> Neighbors:
    """Put queries on the grid, have so many of them answered together, and scale back."""
    ties = tie_order if callable(tie_order) else _ties(tie_order, len(table.anchors))
    shift = None if offset is None else _per_item("offset", offset, len(host), np.float64)
    values, indices = np.empty((len(host), k)), np.empty((len(host), k), dtype=np.int64)
    grid, size = on_grid(host)
    shift = None if shift is None else shift / size
    for start in range(0, len(host) if k else 0, together):
        at = slice(start, start + together)
        batch = QueryBatch(grid[at], None if shift is None else shift[at], table, ties, k)
        values[at], indices[at] = answer(batch, at)
    return Neighbors(indices, (values * size[:, None]).astype(np.float32))


def _search(
    batch: QueryBatch, device: torch.device, *, guess: bool
) -> tuple[Float64Array, Int64Array]:
    """Search one batch; queries whose guessed floor was too high once more without a guess."""
    if len(batch.table.anchors) <= _SHORTLIST_FACTOR * batch.k:
        return _rank_all(batch)
    product, floors = _choose_product(batch, device, guess=guess)
    parts = batch.split(product.threads)
    rising = floors.copy()
    pools = [
        CandidatePool(batch.k, partial(product.lower_floors, queries=at), rising[at], own.keep_best)
        for at, own in parts
    ]
    collect_candidates(product, batch.table, rising, pools)
    pool_at = {at.start: pool for (at, _), pool in zip(parts, pools, strict=True)}
    values, indices = _rank_in_parts(batch, parts, lambda at: pool_at[at.start].trim())
    short = np.concatenate([pool.safe_floors for pool in pools]) < floors
    if short.any() and guess:
        values[short], indices[short] = _search(batch.select(short), device, guess=False)
    return batch.check(values, indices)


def _rank_in_parts(
    batch: QueryBatch,
    parts: list[tuple[slice, QueryBatch]],
    find: Callable[[slice], Candidates],
) -> tuple[Float64Array, Int64Array]:
    """Rank the candidates that `find` has for each part of a batch, each part by one thread."""
    shape = len(batch.queries), batch.k
    values, indices = np.empty(shape), np.empty(shape, dtype=np.int64)

    def rank(parts: Iterator[tuple[slice, QueryBatch]]) -> None:
        for at, own in parts:
            values[at], indices[at] = own.rank(find(at))

    share_work(parts, rank, len(parts))
    return values, indices


def _rank_all(batch: QueryBatch) -> tuple[Float64Array, Int64Array]:
    """Rank every live anchor, where there are few."""
    live, n = batch.table.live, len(batch.table.anchors)
    anchors = np.arange(n) if live is None else np.flatnonzero(live)

    def find(at: slice) -> Candidates:
        count = len(batch.queries[at])
        rows, indices = np.repeat(np.arange(count), len(anchors)), np.tile(anchors, count)
        return Candidates(rows, indices, np.zeros(len(rows), dtype=np.float32))

    parts = batch.split(thread_count(batch.queries.size * n))
    return batch.check(*_rank_in_parts(batch, parts, find))


def _choose_product(
    batch: QueryBatch, device: torch.device, *, guess: bool
) -> tuple[FastProduct, Float32Array]:
    """Choose the fastest product whose error bound does not let in too many, and its floors."""
    queries, table = torch.from_numpy(batch.queries).to(device), batch.table
    kinds = product_types(len(queries), table.anchors, device)
    for kind in kinds if guess else kinds[-1:]:
        product = FastProduct(queries, table.anchors, batch.offset, table.scale, kind)
        guessed = guess_floors(product, table, batch.k) if guess else None
        if guessed is not None and guessed.crowding < _MOST_CROWDING:
            break
    return product, lowest_floors(product.count) if guessed is None else guessed.floors


def _device(queries: Matrix, blocks: Blocks) -> torch.device:
    """Choose where to compute: on the accelerator that holds either side."""
    home = blocks.blocks[0].device
    if home.type == "cpu" and isinstance(queries, torch.Tensor):
        return queries.device
    return home


def _checked_queries(queries: Matrix, blocks: Blocks, k: int) -> NDArray[np.generic]:
    host = query_matrix(queries)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if blocks.dimension is not None and blocks.dimension != host.shape[1]:
        raise DimensionError("queries", blocks.dimension, host.shape[1])
    for row in np.flatnonzero(~np.isfinite(host).all(axis=1))[:1]:
        raise InvalidVectorError(f"query {row} holds NaN or infinity", int(row))
    return host


def _table(
    blocks: Blocks,
    scale: ArrayLike | Scale | None,
    live: ArrayLike | Sequence[ArrayLike] | None,
) -> SearchTable:
    n = len(blocks)
    scales = _scales(scale, n)
    if live is None:
        return SearchTable(blocks, scales, None, n)
    mask = _per_item("live", _one_mask(live), n, np.bool_)
    return SearchTable(blocks, scales, mask, int(mask.sum()))


def _scales(scale: ArrayLike | Scale | None, n: int) -> Scale | None:
    if scale is None:
        return None
    if isinstance(scale, Scale) and scale.near.shape == (n,) and np.isfinite(scale.peak):
        return scale
    near = scale.near if isinstance(scale, Scale) else np.asarray(scale)
    return Scale(_per_item("scale", near, n, np.float64))


def _ties(ranks: ArrayLike | None, n: int) -> TieOrder:
    if ranks is None:
        return lambda indices: indices
    return _per_item("tie_order", ranks, n, np.int64).__getitem__


def _one_mask(live: ArrayLike | Sequence[ArrayLike]) -> ArrayLike:
    if isinstance(live, Sequence) and live:
        return np.concatenate([np.atleast_1d(np.asarray(part)) for part in live])
    return np.asarray(live)


def _per_item(name: str, values: ArrayLike, count: int, dtype: type[_T]) -> NDArray[_T]:
    given = np.asarray(values)
    if given.shape != (count,):
        raise InputError(f"{name}: expected shape ({count},), got {given.shape}")
    if dtype is np.float64 and not np.isfinite(given).all():
        raise InputError(f"{name} holds NaN or infinity")
    return given.astype(dtype, copy=False)
