"""exact_top_k: equal to the oracle, and the same to the last bit however it is computed."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import top_k
from torch_settings import MODES, SWITCHES, switched

from asif_lance.errors import DimensionError, InputError, InvalidVectorError
from asif_lance.search import exact, exact_products, fast_products, kernel_loading
from asif_lance.search.anchor_scale import Scale
from asif_lance.search.blocks import Blocks
from asif_lance.search.exact import exact_top_k, similarities_of, top_k_of
from asif_lance.search.exact_products import multiply_exactly
from asif_lance.search.kernel_loading import loaded_kernels
from asif_lance.search.query_grid import on_grid, unit_queries


def vectors(rng, n, d, dtype=np.float32):
    """Unit vectors; queries of this dtype are not on the grid yet."""
    drawn = rng.normal(size=(n, d))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(dtype)


def clustered(rng, n, d, clusters=8, spread=0.02):
    """Correlated float16 anchors with many exact duplicates, sorted by cluster."""
    centres = vectors(rng, clusters, d)
    near = centres[np.sort(rng.integers(clusters, size=n))] + spread * rng.normal(size=(n, d))
    near[rng.integers(n, size=n // 3)] = near[rng.integers(n, size=n // 3)]
    return (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float16)


def assert_same(left, right):
    np.testing.assert_array_equal(left.indices, right.indices)
    np.testing.assert_array_equal(left.similarities, right.similarities)


@pytest.fixture(autouse=True)
def one_thread():
    """Most of these tables are too small to share out; others set threads themselves."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def with_kernels(monkeypatch):
    """Compiled loops are loaded, as in a process that has searched for a while."""
    monkeypatch.setattr(kernel_loading, "_seconds_without", [math.inf])


@pytest.fixture
def without_kernels(monkeypatch, with_kernels):
    monkeypatch.setattr(kernel_loading, "_WORTH_LOADING", math.nan)  # which nothing reaches


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def threads_for_little(monkeypatch):
    """Threads share work however little it is."""
    monkeypatch.setattr("asif_lance.search.parallel._WORTH_A_THREAD", 1)
    monkeypatch.setattr("asif_lance.search.parallel._processors", lambda: 3)


@pytest.fixture(
    params=[(torch.float32, 1), (torch.bfloat16, 1), (torch.bfloat16, 3), (torch.float32, 2)],
    ids=["float32", "bfloat16", "bfloat16 in threads", "float32 in threads without kernels"],
)
def small_runs(monkeypatch, request, one_thread, threads_for_little, with_kernels):
    """Runs of a few hundred anchors, so that small tables take the path of large ones.

    Batches are multiplied in one type or the other, whatever this processor is fast at, by one
    thread or by several that share the runs.
    """
    types, (kind, threads) = exact.product_types, request.param
    torch.set_num_threads(threads)
    if threads == 2:
        request.getfixturevalue("without_kernels")
    monkeypatch.setattr(exact, "_MOST_CROWDING", math.inf)
    monkeypatch.setattr(
        exact,
        "product_types",
        lambda count, *given: types(1, *given) if count == 1 else (kind,),
    )
    monkeypatch.setattr(fast_products, "_LONGEST_RUN", 320)
    monkeypatch.setattr(fast_products, "_WIDENED_NUMBERS", 2**11)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 90),
    m=st.integers(1, 20),
    d=st.integers(1, 9),
    k=st.integers(1, 120),
    dtype=st.sampled_from([np.float16, np.float32]),
    recipe=st.booleans(),
    masked=st.booleans(),
    shuffled=st.booleans(),
    shortlist=st.sampled_from([0, 4]),
)
def test_it_finds_what_naive_loops_find(
    seed, n, m, d, k, dtype, recipe, masked, shuffled, shortlist
):
    rng = np.random.default_rng(seed)
    anchors = vectors(rng, n, d, dtype)
    anchors[rng.integers(n, size=n // 2)] = anchors[0]
    queries = unit_queries(vectors(rng, m, d))
    options = {
        "offset": rng.normal(size=m) if recipe else None,
        "scale": rng.uniform(0.5, 2, size=n) if recipe else None,
        "live": rng.random(n) < 0.6 if masked else None,
        "tie_order": rng.permutation(n) if shuffled else None,
    }
    with mock.patch("asif_lance.search.exact._SHORTLIST_FACTOR", shortlist):
        found = exact_top_k(queries, anchors, k, **options)
    indices, similarities = top_k(queries, anchors, k, **options)
    np.testing.assert_allclose(found.similarities, similarities, atol=2e-7, rtol=2e-7)
    if dtype == np.float16 or not recipe:
        np.testing.assert_array_equal(found.indices, np.reshape(indices, found.indices.shape))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("m", [1, 3, 7])
def test_thousands_of_anchors_agree_with_naive_loops(rng, small_runs, dtype, m):
    anchors, queries = vectors(rng, 3000, 12, dtype), unit_queries(vectors(rng, m, 12))
    found = exact_top_k(queries, anchors, 50)
    indices, similarities = top_k(queries, anchors, 50)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_allclose(found.similarities, similarities, atol=6e-8)


def test_a_single_query_is_answered_the_same_where_float16_is_widened_by_torch(
    rng, small_runs, request
):
    anchors, queries = clustered(rng, 6000, 24), vectors(rng, 1, 24)
    expected = exact_top_k(queries, anchors, 100)
    request.getfixturevalue("without_kernels")
    assert fast_products.product_types(1, Blocks(anchors), torch.device("cpu")) == (torch.float16,)
    assert_same(exact_top_k(queries, anchors, 100), expected)


@pytest.mark.parametrize("recipe", [False, True])
def test_similarities_of_single_pairs_are_those_that_a_search_finds(rng, recipe):
    anchors, queries = clustered(rng, 3000, 24), 3e-5 * vectors(rng, 20, 24)
    given = {
        "offset": rng.normal(size=20) if recipe else None,
        "scale": rng.uniform(0.5, 2, size=3000) if recipe else None,
    }
    found = exact_top_k(queries, anchors, 50, **given)
    rows, order = np.repeat(np.arange(20), 50), rng.permutation(1000)
    given_pairs = rows[order], found.indices.ravel()[order]
    similar = similarities_of(queries, np.split(anchors, [7, 900]), *given_pairs, **given)
    np.testing.assert_array_equal(similar, found.similarities.ravel()[order])


def test_float64_products_of_float16_anchors_are_not_rounded_at_all(rng):
    anchors, queries = vectors(rng, 40, 384, np.float16), unit_queries(vectors(rng, 5, 384))
    rows, indices = np.repeat(np.arange(5), 40), np.tile(np.arange(40), 5)
    products = multiply_exactly(queries, Blocks(anchors), rows, indices)
    for value, row, index in zip(products, rows, indices, strict=True):
        terms = queries[row].astype(float) * anchors[index].astype(float)
        assert value == math.fsum(terms) == sum(rng.permutation(terms))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), p=st.integers(1, 40), d=st.integers(1, 200))
def test_products_of_float32_anchors_are_those_of_fractions_rounded_once(seed, p, d):
    rng = np.random.default_rng(seed)
    anchors = np.linspace(-1, 1, 7 * d).reshape(7, d) / d + rng.normal(size=(7, d)) * 1e-5
    anchors, queries = anchors.astype(np.float32), on_grid(rng.normal(size=(4, d)))[0]
    rows, indices = np.sort(rng.integers(4, size=p)), rng.integers(7, size=p)
    products = multiply_exactly(queries, Blocks(anchors), rows, indices)
    grid = 2**43  # what is lost of a component is below it
    for value, row, index in zip(products, rows, indices, strict=True):
        whole = np.rint(anchors[index].astype(float) * grid) / grid
        assert value == math.fsum(whole * queries[row].astype(float))


@pytest.fixture
def multiplied(monkeypatch, with_kernels):
    """The addresses of each call of the compiled loop."""
    calls, kernels = [], loaded_kernels()
    loop = kernels.pair_products

    def note(addresses, *given):
        calls.append(addresses)
        loop(addresses, *given)

    monkeypatch.setattr(kernels, "pair_products", note)
    return calls


@pytest.mark.parametrize("turned", ["nothing", "queries", "anchors"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_products_are_the_same_with_and_without_a_compiled_loop(
    rng, monkeypatch, multiplied, threads_for_little, request, dtype, threads, turned
):
    torch.set_num_threads(threads)
    monkeypatch.setattr(exact_products, "_PAIR_NUMBERS", 3000)
    monkeypatch.setattr(exact_products, "_MATRIX_NUMBERS", 7000)
    queries = unit_queries(vectors(rng, 30, 100))
    queries = np.asfortranarray(queries) if turned == "queries" else queries
    blocks = [vectors(rng, n, 100, dtype) for n in (170, 0, 1, 329)]
    blocks = Blocks([np.asfortranarray(b) if turned == "anchors" else b for b in blocks])
    rows, indices = np.sort(rng.integers(30, size=2000)), rng.integers(500, size=2000)
    given = queries, blocks, rows, indices
    found = multiply_exactly(*given)
    assert bool(multiplied) == (turned != "anchors" and dtype == np.float16)
    request.getfixturevalue("without_kernels")
    np.testing.assert_array_equal(found, multiply_exactly(*given))


def test_blocks_that_are_let_go_of_are_multiplied_one_by_one(rng, monkeypatch, multiplied):
    released = []
    monkeypatch.setattr(exact_products, "_PAIR_NUMBERS", 100 * 12)
    arrays = [vectors(rng, n, 12, np.float16) for n in (170, 0, 1, 329)]
    queries = unit_queries(vectors(rng, 30, 12))
    rows, indices = np.sort(rng.integers(30, size=2000)), rng.integers(500, size=2000)
    found = multiply_exactly(queries, Blocks(arrays, released.append), rows, indices)
    expected = multiply_exactly(queries, Blocks(arrays), rows, indices)
    np.testing.assert_array_equal(found, expected)
    streamed = multiplied[: len(released)]
    assert released == sorted(released)
    assert {*released} == {0, 2, 3}
    for block, addresses in zip(released, streamed, strict=True):
        away = (addresses - arrays[block].ctypes.data) // arrays[block].strides[0]
        assert 0 <= away.min() <= away.max() < len(arrays[block])
        assert len(away) <= 100


@pytest.mark.parametrize("kernels", ["with_kernels", "without_kernels"])
@pytest.mark.parametrize("wrong", [-1, 7])
def test_there_are_no_products_with_anchors_that_are_not_there(rng, request, kernels, wrong):
    request.getfixturevalue(kernels)
    anchors, queries = Blocks(vectors(rng, 7, 5, np.float16)), unit_queries(vectors(rng, 1, 5))
    with pytest.raises(IndexError, match="from 0 to 6"):
        multiply_exactly(queries, anchors, np.zeros(2, int), np.array([3, wrong]))


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [
        *((np.float16, kind) for kind in (torch.float32, torch.bfloat16, torch.float16)),
        *((np.float32, kind) for kind in (torch.float32, torch.bfloat16)),
    ],
)
@pytest.mark.parametrize("recipe", [False, True])
def test_fast_products_are_wrong_by_less_than_their_bound(rng, kind, dtype, recipe):
    anchors, queries = clustered(rng, 2000, 300).astype(dtype), unit_queries(vectors(rng, 20, 300))
    queries[:10] = unit_queries(anchors[:10])  # similarities near 1, and near 0
    offset = rng.normal(size=20) if recipe else None
    scale = rng.uniform(0.5, 2, size=2000) if recipe else None
    error = 0.01
    near = None if scale is None else Scale(scale + rng.uniform(-error, error, size=2000), error)
    given = torch.from_numpy(queries), Blocks(anchors)
    fast = fast_products.FastProduct(*given, offset, near, kind)
    exact = anchors.astype(float) @ queries.astype(float).T
    exact = exact if scale is None else (exact + offset) * scale[:, None]
    found = fast.compute_run(0, fast.run)[: min(fast.run, 2000), :20].numpy()
    # Of two anchors, the one that is truly as similar is never computed to be below this.
    assert (found >= fast.lower_floors(exact[: len(found)])).all()
    assert (exact[: len(found)] >= fast.lower_floors(found.astype(float))).all()


@pytest.mark.parametrize(
    ("first", "tried"),
    # float16 has the anchors as they are, and queries in two halves.
    [(torch.bfloat16, [torch.bfloat16, torch.float32]), (torch.float16, [torch.float16])],
)
def test_a_type_too_coarse_for_the_anchors_gives_way_to_the_next(rng, monkeypatch, first, tried):
    anchors, queries = clustered(rng, 9000, 64, 1, 1e-3), unit_queries(vectors(rng, 20, 64))
    expected, made = exact_top_k(queries, anchors, 40), []
    fast = fast_products.FastProduct
    both = (first, torch.float32)
    monkeypatch.setattr(exact, "product_types", lambda *given: both)
    monkeypatch.setattr(exact, "FastProduct", lambda *given: made.append(given[-1]) or fast(*given))
    assert_same(exact_top_k(queries, anchors, 40), expected)
    assert made == tried


def test_unit_queries_are_unit_multiples_of_the_grid_and_stay_so(rng):
    queries = unit_queries(rng.normal(size=(50, 384)) * 10.0 ** rng.integers(-30, 30, (50, 1)))
    np.testing.assert_allclose(np.linalg.norm(queries.astype(float), axis=1), 1, atol=1e-7)
    assert (queries.astype(float) * 2**28 % 1 == 0).all()
    np.testing.assert_array_equal(unit_queries(queries.astype(float)).astype(float), queries)
    again, size = on_grid(queries)
    np.testing.assert_array_equal(again, queries)
    assert (size == 1).all()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (0.0, "vector 1 is all zero"),
        (np.nan, "vector 1 holds NaN or infinity"),
        (np.inf, "vector 1 holds NaN or infinity"),
    ],
)
def test_vectors_without_a_direction_are_refused_by_row(bad, message):
    given = np.ones((3, 4))
    given[1] = bad
    with pytest.raises(InvalidVectorError) as caught:
        unit_queries(given)
    assert str(caught.value) == message
    assert caught.value.row == 1


@pytest.mark.parametrize("recipe", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_batch_mates_do_not_change_an_answer(rng, small_runs, dtype, recipe):
    anchors, queries = clustered(rng, 4000, 24).astype(dtype), vectors(rng, 70, 24)
    offset = rng.normal(size=70) if recipe else None
    scale = rng.uniform(0.5, 2, size=4000) if recipe else None
    together = exact_top_k(queries, anchors, 60, offset=offset, scale=scale)
    for i in (0, 33, 69):
        shift = None if offset is None else offset[i : i + 1]
        alone = exact_top_k(queries[i : i + 1], anchors, 60, offset=shift, scale=scale)
        np.testing.assert_array_equal(alone.indices[0], together.indices[i])
        np.testing.assert_array_equal(alone.similarities[0], together.similarities[i])


def test_block_size_batch_size_and_threads_do_not_change_an_answer(
    rng, monkeypatch, threads_for_little
):
    anchors, queries = clustered(rng, 6000, 24), vectors(rng, 20, 24)
    expected = exact_top_k(queries, anchors, 100)
    for run, wide, batch, count in ((64, 600, 20, 1), (1024, 2**20, 7, 2), (4096, 5000, 2, 1)):
        monkeypatch.setattr(fast_products, "_LONGEST_RUN", run)
        monkeypatch.setattr(fast_products, "_WIDENED_NUMBERS", wide)
        monkeypatch.setattr("asif_lance.search.exact._BATCH_SIZE", batch)
        torch.set_num_threads(count)
        assert_same(exact_top_k(queries, anchors, 100), expected)


def test_searches_at_the_same_time_do_not_disturb_each_other(rng, small_runs):
    anchors, batches = clustered(rng, 6000, 24), [vectors(rng, 20, 24) for _ in range(6)]
    expected = [exact_top_k(queries, anchors, 100) for queries in batches]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda queries: exact_top_k(queries, anchors, 100), batches * 3))
    for one, other in zip(found, expected * 3, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("switch", SWITCHES)
def test_no_setting_of_torch_changes_an_answer(rng, small_runs, switch):
    anchors, queries = clustered(rng, 6000, 64), vectors(rng, 32, 64)
    expected = exact_top_k(queries, anchors, 100)
    single = exact_top_k(queries[:1], anchors.astype(np.float32), 100)
    with switched(switch):
        assert_same(exact_top_k(queries, anchors, 100), expected)
        assert_same(exact_top_k(queries[:1], anchors.astype(np.float32), 100), single)


@pytest.mark.parametrize("mode", MODES)
def test_no_mode_of_torch_changes_an_answer(rng, small_runs, mode):
    anchors, queries = clustered(rng, 6000, 24), vectors(rng, 20, 24)
    given = {"offset": rng.normal(size=20), "scale": rng.uniform(0.5, 2, size=6000)}
    one = {"offset": given["offset"][:1], "scale": given["scale"]}
    some = rng.permuted(np.tile(np.arange(6000), (20, 1)), axis=1)[:, :90]

    def answers():
        tensor = torch.from_numpy(anchors)
        yield exact_top_k(queries, tensor, 100, **given)
        yield exact_top_k(queries[:1], tensor, 100, **one)
        yield top_k_of(queries, tensor, some, 50, **given)

    expected = list(answers())
    with MODES[mode]():
        for found, right in zip(answers(), expected, strict=True):
            assert_same(found, right)


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_the_bound_holds_for_factors_that_torch_rounds(rng, precision):
    """As matrix units do it, which few processors have: tf32 may cut off, bf16 is to nearest."""
    anchors, queries = clustered(rng, 2000, 300), unit_queries(vectors(rng, 20, 300))
    queries[:10] = unit_queries(anchors[:10])

    def round_factor(array):
        if precision == "bf16":
            return torch.from_numpy(array).bfloat16().float().numpy()
        return (array.view(np.int32) & ~0x1FFF).view(np.float32)

    with switched(f"mkldnn.matmul.fp32_precision={precision}"):
        fast = fast_products.FastProduct(
            torch.from_numpy(queries), Blocks(anchors), kind=torch.float32
        )
    found = round_factor(anchors.astype(np.float32)).astype(float) @ round_factor(queries).T
    true = anchors.astype(float) @ queries.T.astype(float)
    assert np.abs(found - true).max() > 1e-4
    assert (found >= fast.lower_floors(true)).all()
    assert (true >= fast.lower_floors(found)).all()


def worst_of_bfloat16():
    """Two float32 anchors and a query: the nearer one is multiplied to less, by all that can be."""
    nearer = np.array([(1 + 2**-8) / 8] * 64 + [(1 + 2**-8) / 32], np.float32)
    other = np.array([(1 + 2**-8 + 2**-20) / 8] * 64 + [1 / 32], np.float32)
    return nearer, other, np.full(65, 1 / 8, np.float32)


def test_the_bound_of_bfloat16_holds_where_every_rounding_is_as_large_as_it_can_be():
    *anchors, query = worst_of_bfloat16()
    given = torch.from_numpy(query[None]), Blocks(np.stack(anchors))
    fast = fast_products.FastProduct(
        torch.from_numpy(np.repeat(query[None], 2, 0)), given[1], kind=torch.bfloat16
    )
    found = fast.compute_run(0, 2)[:, 0].numpy().astype(float)
    true = np.stack(anchors).astype(float) @ query.astype(float)
    assert true[0] > true[1]
    assert found.tolist() == [1.0, 1 + 2**-6]
    assert (np.abs(found - true) <= (found - fast.lower_floors(found)) / 2).all()


@pytest.mark.parametrize("kernels", ["with_kernels", "without_kernels"])
def test_anchors_that_lose_much_by_bfloat16_are_multiplied_in_float32(rng, request, kernels):
    request.getfixturevalue(kernels)
    anchors, queries = vectors(rng, 100, 64, np.float16), unit_queries(vectors(rng, 20, 64))
    anchors[::3] = (1 + 2**-8) / 8 * rng.choice([-1, 1], size=(34, 64))
    anchors[50] = np.nan
    queries[:5] = np.sign(anchors[:15:3]) / 8
    given = torch.from_numpy(queries), Blocks(anchors)
    fast = fast_products.FastProduct(*given, kind=torch.bfloat16)
    found = fast.compute_run(0, 100)[:, :20].numpy().astype(float)
    error = np.abs(found - anchors.astype(float) @ queries.T.astype(float))
    assert np.isnan(error[50]).all()
    bound = (found - np.stack([fast.lower_floors(row) for row in found])) / 2.01
    assert (np.delete(error, 50, axis=0) <= np.delete(bound, 50, axis=0)).all()
    assert (error[0].max() < 1e-6) == (kernels == "with_kernels")


def test_an_anchor_is_found_whatever_bfloat16_makes_of_it(monkeypatch):
    monkeypatch.setattr(exact, "product_types", lambda *given: (torch.bfloat16,))
    monkeypatch.setattr(exact, "_MOST_CROWDING", math.inf)
    nearer, other, query = worst_of_bfloat16()
    anchors = np.concatenate([np.tile(other, (20_000, 1)), nearer[None]])
    found = exact_top_k(np.tile(query, (4, 1)), anchors, 1)
    assert found.indices.tolist() == [[20_000]] * 4


def test_the_order_of_rows_does_not_change_an_answer(rng, small_runs):
    anchors, queries = clustered(rng, 3000, 16), vectors(rng, 9, 16)
    rank = rng.permutation(3000)
    expected = exact_top_k(queries, anchors, 200, tie_order=rank)
    order = rng.permutation(3000)
    moved = exact_top_k(queries, anchors[order], 200, tie_order=rank[order])
    np.testing.assert_array_equal(order[moved.indices], expected.indices)
    np.testing.assert_array_equal(moved.similarities, expected.similarities)


def test_anchors_in_many_blocks_are_one_table(rng, small_runs):
    anchors, queries = clustered(rng, 3000, 16), vectors(rng, 9, 16)
    live = rng.random(3000) < 0.7
    cuts = [0, 1, 1, 700, 701, 2500]
    expected = exact_top_k(queries, anchors, 100, live=live)
    split = exact_top_k(queries, np.split(anchors, cuts), 100, live=live)
    assert_same(split, expected)


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_dead_anchors_might_as_well_not_be_there(rng, small_runs, share):
    anchors, queries = clustered(rng, 5000, 16), vectors(rng, 9, 16)
    live = rng.random(5000) < share
    masked = exact_top_k(queries, anchors, 150, live=live)
    compact = exact_top_k(queries, anchors[live], 150)
    np.testing.assert_array_equal(masked.indices, np.flatnonzero(live)[compact.indices])
    np.testing.assert_array_equal(masked.similarities, compact.similarities)


@pytest.mark.parametrize("m", [1, 20])
@pytest.mark.parametrize("arranged", ["ascending", "descending", "needles", "equal", "spread thin"])
def test_adversarial_orders_stay_exact(rng, small_runs, arranged, m):
    anchors = {
        "equal": np.repeat(vectors(rng, 1, 16, np.float16), 9000, axis=0),
        "spread thin": clustered(rng, 9000, 16, clusters=2, spread=1e-4),
    }.get(arranged, vectors(rng, 9000, 16, np.float16))
    queries = unit_queries(np.repeat(vectors(rng, 1, 16), m, axis=0))
    similarities = anchors.astype(float) @ queries[0].astype(float)
    if arranged in ("ascending", "descending"):
        order = np.argsort(similarities, kind="stable")
        order = order if arranged == "ascending" else order[::-1]
        anchors, similarities = anchors[order], similarities[order]
    if arranged == "needles":  # the sample sees only anchors that look good, and guesses too high
        best = np.argsort(-similarities)[:100]
        anchors[30::61][:100] = anchors[best]
        anchors[::2] = -anchors[best[0]]
        similarities = anchors.astype(float) @ queries[0].astype(float)
    found = exact_top_k(queries, anchors, 40)
    expected = np.lexsort((np.arange(9000), -similarities))[:40]
    np.testing.assert_array_equal(found.indices, np.tile(expected, (m, 1)))


def test_a_guess_that_is_too_high_is_noticed_and_made_good(rng, small_runs, monkeypatch):
    anchors, queries = vectors(rng, 4000, 16, np.float16), vectors(rng, 20, 16)
    expected = exact_top_k(queries, anchors, 40)
    guess = exact.guess_floors

    def too_high(*given):
        floors, crowding = guess(*given)
        return floors + 0.3, crowding

    monkeypatch.setattr(exact, "guess_floors", too_high)
    assert_same(exact_top_k(queries, anchors, 40), expected)


@pytest.mark.parametrize("power", [-60, -3, 1, 50])
def test_queries_of_any_norm_give_similarities_of_that_norm(rng, power):
    anchors, queries = clustered(rng, 2000, 16), unit_queries(vectors(rng, 5, 16))
    offset, size = rng.normal(size=5), np.float32(2.0**power)
    unit = exact_top_k(queries, anchors, 30, offset=offset)
    scaled = exact_top_k(queries * size, anchors, 30, offset=offset * float(size))
    np.testing.assert_array_equal(scaled.indices, unit.indices)
    np.testing.assert_array_equal(scaled.similarities, unit.similarities * size)


def test_numpy_and_torch_and_read_only_memory_give_the_same(rng, recwarn):
    anchors, queries = clustered(rng, 2000, 16), vectors(rng, 5, 16)
    expected = exact_top_k(queries, anchors, 30)
    anchors.flags.writeable = False
    assert_same(exact_top_k(torch.from_numpy(queries), anchors, 30), expected)
    assert_same(exact_top_k(queries, torch.tensor(anchors), 30), expected)
    assert not recwarn.list


def test_zero_queries_and_zero_anchors_have_similarity_zero(rng):
    anchors = vectors(rng, 10, 4, np.float16)
    found = exact_top_k(np.zeros((2, 4), np.float32), anchors, 3)
    np.testing.assert_array_equal(found.indices, [[0, 1, 2]] * 2)
    assert not found.similarities.any()
    anchors[:] = 0
    assert not exact_top_k(vectors(rng, 2, 4), anchors, 3).similarities.any()


def test_fewer_anchors_than_k_gives_them_all_and_none_gives_no_columns(rng):
    anchors, queries = vectors(rng, 10, 4, np.float16), vectors(rng, 3, 4)
    assert exact_top_k(queries, anchors, 800).indices.shape == (3, 10)
    assert exact_top_k(queries, anchors, 800, live=np.arange(10) < 4).indices.shape == (3, 4)
    assert exact_top_k(queries, anchors, 800, live=np.zeros(10, bool)).indices.shape == (3, 0)
    for nothing in (anchors[:0], [], [anchors[:0], anchors[:0]]):
        found = exact_top_k(queries, nothing, 800)
        assert found.indices.shape == found.similarities.shape == (3, 0)
    assert exact_top_k(queries[:0], anchors, 5).indices.shape == (0, 5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, InputError, "k must be at least 1, got 0"),
        (
            {"queries": np.ones((2, 5), np.float32)},
            DimensionError,
            "queries: expected 4 dimensions, got 5",
        ),
        (
            {"anchors": [np.ones((2, 4), np.float16), np.ones((2, 3), np.float16)]},
            DimensionError,
            "anchors: expected 4 dimensions, got 3",
        ),
        (
            {"anchors": [np.ones((2, 4), np.float16), np.ones((2, 4), np.float32)]},
            InputError,
            "anchors: all blocks must share one dtype and one device",
        ),
        (
            {"anchors": np.ones((2, 4))},
            InputError,
            "anchors: expected 2-d float16 or float32 arrays, got 2-d float64",
        ),
        (
            {"queries": np.ones(4, np.float32)},
            InputError,
            "vectors: expected 2-d numbers, got 1-d float32",
        ),
        (
            {"queries": np.full((2, 4), np.nan, np.float32)},
            InvalidVectorError,
            "query 0 holds NaN or infinity",
        ),
        (
            {"anchors": np.full((3, 4), np.nan, np.float16)},
            InvalidVectorError,
            "some anchors hold NaN: their similarities cannot be compared",
        ),
        ({"scale": [1.0]}, InputError, "scale: expected shape (3,), got (1,)"),
        ({"live": [True, True]}, InputError, "live: expected shape (3,), got (2,)"),
        ({"offset": [1.0, np.nan]}, InputError, "offset holds NaN or infinity"),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(change, error, message):
    usual = {"queries": np.ones((2, 4), np.float32), "anchors": np.eye(4, dtype=np.float16)[:3]}
    given = usual | {"k": 2} | change
    with pytest.raises(error) as caught:
        exact_top_k(given.pop("queries"), given.pop("anchors"), given.pop("k"), **given)
    assert str(caught.value) == message


@pytest.mark.parametrize("switch", SWITCHES)
def test_cuda_devices_multiply_float16_as_it_is_whatever_torch_is_told(switch):
    cuda, half = torch.device("cuda"), Blocks(np.eye(4, dtype=np.float16))
    single = Blocks(np.eye(4, dtype=np.float32))
    with switched(switch):
        assert fast_products.product_types(64, half, cuda) == (torch.float16, torch.float32)
        assert fast_products.product_types(64, single, cuda) == (torch.float32,)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_gpu_gives_the_same_answer_to_the_last_bit(rng, dtype, resident):
    anchors, queries = clustered(rng, 60_000, 64).astype(dtype), vectors(rng, 70, 64)
    blocks = [torch.from_numpy(part) for part in np.array_split(anchors, 7)]
    expected = exact_top_k(queries, anchors, 100)
    moved = [block.cuda() for block in blocks] if resident else blocks
    assert_same(exact_top_k(torch.from_numpy(queries).cuda(), moved, 100), expected)
