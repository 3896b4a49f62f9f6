"""Whatever proposes neighbors within the error that it states, the answer is exact.

Here it errs as much as it may: the best neighbors seem worse by all of it, and the others better.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asif_lance.search import blocks, candidates, exact, exact_top_k, fast_products
from asif_lance.search.fast_products import FastProduct

#: Who finds what reaches the floors: the processor, a device run by run, a device in one pass.
PLACES = ["processor", "runs", "one pass"]


class Proposer:
    """Similarities that are wrong by a stated error, at worst or at random."""

    def __init__(self, queries: Any, anchors: Any, k: int, error: float, worst: bool) -> None:
        self.queries = exact.on_grid(queries)[0]
        true = anchors.astype(float) @ self.queries.T.astype(float)
        kth = np.sort(true, axis=0)[-k]
        at_random = np.random.default_rng(len(anchors)).uniform(-1, 1, size=true.shape)
        wrong = np.where(true >= kth, -1, 1) if worst else at_random
        self.seen = torch.from_numpy((true + error * wrong).astype("f4"))

    def run(self, product: FastProduct, start: int, stop: int) -> torch.Tensor:
        return self._of(product._columns, product.count, slice(start, stop))

    def sample(self, product: FastProduct, stride: int) -> torch.Tensor:
        at = slice(stride // 2, None, stride)
        return self._of(product._columns, product.count, at)[:, : product.count]

    def reaching(
        self, found_in: Any, weights: Any, floors: torch.Tensor, most: int, **terms: Any
    ) -> Any:
        """As a kernel appends them, in no order."""
        seen = self._of(weights, len(floors), slice(None))[:, : len(floors)]
        hits = (seen >= floors) & terms["live"][:, None]
        anchors, queries = hits.nonzero()[torch.randperm(int(hits.sum()))].unbind(dim=1)
        return (queries, anchors, seen[anchors, queries]) if len(anchors) <= most else None

    def _of(self, columns: torch.Tensor, count: int, at: slice) -> torch.Tensor:
        """Those of the first `count` queries, which are columns, as `compute_run` has them."""
        asked = columns[:, :count].T.float().numpy()
        apart = np.abs(self.queries[None] - asked[:, None]).sum(axis=2)
        rows = self.seen[at][:, apart.argmin(axis=1)]
        width = 1 if columns.shape[1] == 1 else fast_products._rounded_up(count)
        return torch.nn.functional.pad(rows, (0, width - count)).contiguous()


@contextmanager
def searching_with(proposer: Proposer, error: float, place: str, shift: float) -> Iterator[None]:
    bound, guess = FastProduct._bound_errors, exact.guess_floors

    def too_high_or_too_low(*given: Any) -> Any:
        floors, crowding = guess(*given)
        return np.maximum(floors + np.float32(shift), np.finfo("f4").min), crowding

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastProduct, "_bound_errors", lambda *given: bound(*given) + error)
        patch.setattr(FastProduct, "compute_run", lambda *given: proposer.run(*given))
        patch.setattr(FastProduct, "compute_sample", lambda *given: proposer.sample(*given))
        patch.setattr(exact, "guess_floors", too_high_or_too_low)
        if place != "processor":
            for module in (fast_products, candidates, blocks):
                patch.setattr(module, "is_accelerator", lambda device: True)
            patch.setattr(fast_products, "_LONGEST_RUN", 32)
            patch.setattr(exact, "product_types", lambda *given: (torch.float16,))
        kernel = SimpleNamespace(find_reaching=proposer.reaching) if place == "one pass" else None
        patch.setattr(fast_products, "load_fused", lambda device: kernel)
        yield


@pytest.mark.parametrize("place", PLACES)
@given(
    n=st.integers(100, 700),
    m=st.integers(1, 6),
    k=st.integers(1, 20),
    error=st.sampled_from([1e-6, 0.01, 0.3]),
    worst=st.booleans(),
    shift=st.sampled_from([-9.0, 0.0, 0.05, 9.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_answer_is_exact(
    place: str, n: int, m: int, k: int, error: float, worst: bool, shift: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = rng.normal(size=(n, 8))
    drawn[: n // 2] = drawn[rng.integers(n, size=n // 2)]  # ties
    anchors = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float16)
    queries = rng.normal(size=(m, 8)).astype(np.float32)
    live, ties = rng.random(n) < 0.9, rng.permutation(n)
    given = {"live": live, "tie_order": ties}
    expected = exact_top_k(queries, anchors, k, **given)
    with searching_with(Proposer(queries, anchors, k, error, worst), error, place, shift):
        found = exact_top_k(queries, anchors, k, **given)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.similarities, expected.similarities)
