"""What an accelerator would do, done by the processor: the same answers, within a budget.

The processor stands for a device with memory of its own, so every step that a device takes is taken
here, but for what only CUDA has: pinned memory, events and streams.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch_settings import MODES

from asif_lance.records import Neighbors
from asif_lance.search import (
    Blocks,
    ExactFactors,
    FactorsOnDemand,
    Scale,
    blocks,
    candidates,
    exact,
    exact_products,
    exact_top_k,
    fast_products,
    kernel_loading,
    similarities_of,
    top_k_of,
)
from asif_lance.search.fast_products import FastProduct, _Staging, float32_error

try:
    from asif_lance.search import fused_products
except ImportError:  # torch for processors alone comes without Triton
    fused_products = None  # type: ignore[assignment]

HALF, WIDE = (torch.float16, torch.float32), (torch.float32,)
CUTS = [17, 400, 401, 2500, 2501, 5000]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


#: On the device, where one kernel finds what reaches the floors or a few operations for each run
#: do, or brought to it.
PLACES = [*["fused"] * (fused_products is not None), "resident", "streamed"]


@pytest.fixture(params=PLACES)
def accelerator(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The processor as a device that holds the anchors, or that they are brought to."""
    stand_in(monkeypatch, request.param)
    return str(request.param)


def stand_in(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Have the processor taken for a device from now on."""
    monkeypatch.setattr(kernel_loading, "_WORTH_LOADING", float("nan"))  # which nothing reaches
    resident = place != "streamed"
    kernel = fused_products if place == "fused" else None
    monkeypatch.setattr(fast_products, "load_fused", lambda device: kernel)
    for module in (fast_products, candidates, *[blocks] * resident):
        monkeypatch.setattr(module, "is_accelerator", lambda device: True)
    monkeypatch.setattr(fast_products, "_is_there", lambda anchors, queries: resident)
    monkeypatch.setattr(fast_products, "_LONGEST_RUN", 320)
    monkeypatch.setattr(fast_products, "_STAGED_NUMBERS", 700 * 24)
    monkeypatch.setattr(exact_products, "_DEVICE_NUMBERS", 50_000)


def vectors(rng: np.random.Generator, n: int, d: int, dtype: Any = np.float32) -> Any:
    drawn = rng.normal(size=(n, d))
    drawn[rng.integers(n, size=n // 3)] = drawn[rng.integers(n, size=n // 3)]  # ties
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(dtype)


def split(anchors: Any, cuts: Any = CUTS) -> list[torch.Tensor]:
    """Fragments as a device holds them, side by side in one memory."""
    return list(torch.from_numpy(anchors).tensor_split(list(cuts)))


def assert_same(left: Neighbors, right: Neighbors) -> None:
    np.testing.assert_array_equal(left.indices, right.indices)
    np.testing.assert_array_equal(left.similarities, right.similarities)


def no_scale(rng: np.random.Generator, anchors: Any) -> None:
    return None


def plain(rng: np.random.Generator, anchors: Any) -> Scale:
    return Scale(rng.uniform(0.5, 2, size=len(anchors)))


def by_mean(rng: np.random.Generator, anchors: Any) -> Scale:
    wide = anchors.astype(float)
    mean = np.rint(wide.mean(axis=0) * 2**24) / 2**24
    squares = np.square(wide).sum(axis=1)
    factors = ExactFactors(mean, squares, 1e-6).compute(np.arange(len(wide)), wide @ mean)
    moved = factors * (1 + rng.uniform(-1, 1, size=len(wide)) * 1e-4)
    error = float(np.abs(moved - factors).max())
    return Scale(moved, error, ExactFactors(mean, squares, 1e-6))


def on_demand(rng: np.random.Generator, anchors: Any) -> Scale:
    true = rng.uniform(0.5, 2, size=len(anchors))
    near = true * (1 + rng.uniform(-1, 1, size=len(true)) * 1e-3)
    known = np.full(len(true), np.nan)
    return Scale(near, exact=FactorsOnDemand(known, true.__getitem__), ratio=2e-3)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("dtype", "kinds"), [(np.float16, HALF), (np.float16, WIDE), (np.float32, WIDE)]
)
@pytest.mark.parametrize("make_scale", [no_scale, plain, by_mean, on_demand])
def test_it_gives_the_same_answer_to_the_last_bit(
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
    dtype: Any,
    make_scale: Callable[[np.random.Generator, Any], Scale | None],
    kinds: tuple[torch.dtype, ...],
) -> None:
    anchors, queries = vectors(rng, 6000, 24, dtype), vectors(rng, 21, 24)
    scale, live = make_scale(rng, anchors), rng.random(6000) < 0.8
    given = {"scale": scale, "offset": None if scale is None else rng.normal(size=21)}
    expected = exact_top_k(queries, anchors, 100, live=live, **given)
    single = exact_top_k(queries[:1], anchors, 100)
    some = rng.permuted(np.tile(np.arange(6000), (21, 1)), axis=1)[:, :90]
    named = top_k_of(queries, anchors, some, 50, **given)
    pairs = rng.integers(21, size=300), rng.integers(6000, size=300)
    similar = similarities_of(queries, anchors, *pairs, **given)
    stand_in(monkeypatch, place)
    monkeypatch.setattr(exact, "product_types", lambda *asked: kinds)
    held = split(anchors)
    assert_same(exact_top_k(queries, held, 100, live=live, **given), expected)
    assert_same(exact_top_k(queries[:1], held, 100), single)
    assert_same(top_k_of(queries, held, some, 50, **given), named)
    np.testing.assert_array_equal(similarities_of(queries, held, *pairs, **given), similar)


def test_equal_anchors_and_a_guess_that_is_too_high_are_made_good(
    rng: np.random.Generator, accelerator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors = np.repeat(vectors(rng, 1, 16, np.float16), 9000, axis=0)
    queries, rank = vectors(rng, 9, 16), rng.permutation(9000)
    found = exact_top_k(queries, split(anchors), 40, tie_order=rank)
    np.testing.assert_array_equal(found.indices, [np.argsort(rank)[:40]] * 9)
    other = vectors(rng, 9000, 16, np.float16)
    expected, guess = exact_top_k(queries, split(other), 40), exact.guess_floors

    def too_high(*given: Any) -> Any:
        floors, crowding = guess(*given)
        return floors + 0.3, crowding

    monkeypatch.setattr(exact, "guess_floors", too_high)
    assert_same(exact_top_k(queries, split(other), 40), expected)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_of_torch_changes_an_answer(
    rng: np.random.Generator, accelerator: str, mode: str
) -> None:
    anchors, queries = vectors(rng, 6000, 24, np.float16), vectors(rng, 20, 24)
    given = {"offset": rng.normal(size=20), "scale": by_mean(rng, anchors)}
    expected = exact_top_k(queries, split(anchors), 100, **given)
    held = split(anchors)
    with MODES[mode]():
        found = exact_top_k(queries, held, 100, **given)
    assert_same(found, expected)


@pytest.mark.parametrize("count", [1, 9])
def test_the_bound_allows_for_sums_that_are_cut_off(
    rng: np.random.Generator, accelerator: str, count: int
) -> None:
    cpu = torch.device("cpu")
    assert float32_error(384, cpu) == pytest.approx(4 * 384 * 2.0**-24, rel=1e-3)
    anchors, queries = vectors(rng, 300, 24, np.float16), torch.from_numpy(vectors(rng, count, 24))
    fast = FastProduct(queries, Blocks(anchors), kind=torch.float16)
    true = anchors.astype(float) @ queries.T.double().numpy()
    # What `lower_floors` is wide of the truth must hold the worst that matrix units may do.
    worst = 4 * 24 * 2.0**-24
    assert (true - fast.lower_floors(true) >= 2 * worst).all()


class Operations(TorchDispatchMode):
    """Counts operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count[str(func)] += 1
        return func(*args, **kwargs or {})


class Transfers(TorchFunctionMode):
    """Counts what would move between memories if the device were another one."""

    MOVES = torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.item, torch.Tensor.nonzero

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func in self.MOVES
        return func(*args, **kwargs or {})


def spend(search: Callable[[], object]) -> tuple[Counter[str], int]:
    """The operations and transfers of a search."""
    with Transfers() as transfers, Operations() as operations:
        search()
    return operations.count, transfers.count


@pytest.mark.parametrize("m", [1, 21])
@pytest.mark.parametrize("make_scale", [no_scale, by_mean])
def test_operations_and_transfers_do_not_grow_with_the_fragments(
    rng: np.random.Generator,
    accelerator: str,
    m: int,
    make_scale: Callable[[np.random.Generator, Any], Scale | None],
) -> None:
    anchors, queries = vectors(rng, 6000, 24, np.float16), vectors(rng, m, 24)
    scale = make_scale(rng, anchors)
    several = [split(anchors, range(size, 6000, size)) for size in (3000, 60)]
    exact_top_k(queries, several[0], 100, scale=scale)  # what a scale brings there stays
    few, many = (spend(lambda f=f: exact_top_k(queries, f, 100, scale=scale)) for f in several)
    if accelerator != "streamed":
        assert (few[0].total(), few[1]) == (many[0].total(), many[1])
        assert few[1] < 60
        return
    # What is brought has to be cut from each fragment; sending and multiplying is done at once.
    assert many[1] <= 1.5 * few[1]
    assert many[0]["aten.mm.out"] <= 2 * few[0]["aten.mm.out"]


def test_blocks_are_one_if_they_follow_one_another_in_one_memory(
    rng: np.random.Generator,
) -> None:
    whole = torch.from_numpy(vectors(rng, 100, 4))
    parts = [*whole.tensor_split([10, 10, 60]), whole[:5], whole[6:9].clone(), whole[5:7]]
    joined = Blocks(parts)
    assert [len(block) for block in joined.blocks] == [100, 5, 3, 2]
    assert joined.blocks[0].data_ptr() == whole.data_ptr()
    together = torch.cat(parts)
    at = rng.permutation(len(together))
    assert torch.equal(joined.take(at), together[at])
    assert torch.equal(joined.gather(torch.from_numpy(at)), together[at])
    assert torch.equal(torch.cat(list(joined.slices(3, 108, 7))), together[3:108])
    released: list[int] = []
    assert len(Blocks(parts, released.append).blocks) == len(parts)


def test_columns_and_every_other_row_of_one_memory_stay_apart(rng: np.random.Generator) -> None:
    whole = torch.from_numpy(vectors(rng, 100, 8))
    assert len(Blocks([whole[:, :4], whole[:, 4:]]).blocks) == 2
    assert len(Blocks([whole[:50:2], whole[50::2]]).blocks) == 2


@pytest.mark.parametrize("rows", [7, 16, 1000])
def test_many_blocks_are_brought_together_and_in_order(rng: np.random.Generator, rows: int) -> None:
    anchors = torch.from_numpy(vectors(rng, 200, 5, np.float16))
    staged = _Staging(torch.device("cpu"))
    for cuts in ([3, 4, 11, 90], [100], []):
        parts = [p for one in anchors.tensor_split(cuts) for p in one.split(rows)]
        brought = list(staged.bring(parts, rows))
        assert torch.equal(torch.cat(brought), anchors)
        assert len(brought) <= 2 * 200 // rows + 1
